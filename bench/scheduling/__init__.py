"""Where and when trials run: one after another, or side by side by Ray Tune; each in a process of its own."""
