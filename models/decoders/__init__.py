"""Decoders: ``build(config, channels) -> nn.Module`` with ``forward(features, size) -> tuple`` of logits [B, 1, H, W].

Parameters whose names have a part ``idle`` take part in nothing: they are kept because the published model has them.
"""
