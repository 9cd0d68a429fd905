"""Decoders: ``build(config, channels, num_classes) -> nn.Module`` with ``forward(features, size) -> tuple`` of logits
[B, num_classes, H, W]. They take one feature map for all levels, or four from fine to coarse.

Parameters whose names have a part ``idle`` are never used: they exist because the published model has them.
"""
