"""Peak memory: measured by phase, predicted for a training step on a GPU, and what a card takes besides."""
