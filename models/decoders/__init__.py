"""Decoders: ``build(config, channels) -> nn.Module`` with ``forward(features, size) -> tuple`` of logits [B, 1, H, W]."""
