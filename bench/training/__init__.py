"""The training loop, its losses and checks, and what it keeps: weights, training state, features of frozen blocks."""
