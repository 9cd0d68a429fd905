"""Encoders: image -> feature maps.

An encoder is an ``nn.Module`` with ``forward(images [B, 3, H, W]) -> tuple`` of features, fine to coarse, each
[B, C_i, H/s_i, W/s_i]; ``channels`` (the C_i); ``blocks``, an ``nn.ModuleList`` whose items adapters may wrap;
``block_dims``, the width at which each block works; ``stem_parameters()``, what lies before the first block; and
``load_pretrained() -> int``, the number of tensors loaded.
"""
