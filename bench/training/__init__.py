"""The training loop, losses and checks, and files of training: trained weights, training states, cached features."""
