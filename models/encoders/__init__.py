"""Encoders: image -> feature maps.

An encoder is an ``nn.Module`` with ``forward(images [B, 3, H, W]) -> tuple`` of features, fine to coarse, each
[B, C_i, H/s_i, W/s_i]; ``channels`` (the C_i); ``blocks``, a sequence of modules whose items adapters may replace;
``block_dims``, the width of each block; ``prefix_tokens``, the number of tokens without a place in the image
(class, registers) that precede the others between blocks: blocks work on [B, H, W, C] where it is 0, else they may work
on [B, prefix_tokens + H * W, C]; ``stem_parameters()``, the parameters before the first block; and
``load_pretrained() -> int``, the number of tensors loaded. Its ``build(config, image_size)`` gets the side of a square;
one that takes (height, width) too says so by ``any_aspect: ClassVar[bool] = True`` in its ``Config``.

An encoder that can be split has ``cuts``, the numbers of blocks before which it can be cut (their count: after the
last); ``run_to(images, block) -> tuple`` of all tensors that the rest needs; and ``run_from(hidden, block)``, the rest.
One after the other they give the same as ``forward``, to the bit.
"""
