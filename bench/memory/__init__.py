"""Peak memory: measured by phase, predicted for a training step on a GPU, and the overhead of a card."""
