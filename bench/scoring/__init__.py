"""From logits or files of maps to scores: the metrics, their protocols, and samples to look at."""
