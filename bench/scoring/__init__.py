"""From logits or files of maps to scores: prediction, metrics, protocols, and sample predictions."""
