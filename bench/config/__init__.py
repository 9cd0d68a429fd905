"""From a sweep file to typed configuration, and from that to trials."""
