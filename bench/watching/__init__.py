"""What follows the trials while they run: the display, the page, the trackers."""
