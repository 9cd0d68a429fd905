"""Commands for those who work on the suite: predictions and speed against measurements, the tiny encoder's weights."""
