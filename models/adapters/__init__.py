"""Adapters: ``build(config, encoder, blocks) -> nn.Module``.

``build`` adds the method to the encoder's blocks with these numbers. It returns the encoder, or a module with the same
contract and channels (``models.encoders``) that reads the encoder instead of changing it. The names of the method's own
parameters have a part ``adapter`` (``trunk.blocks.3.adapter.0.weight``); by it they are counted and checked.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor, nn

from models.core.placement import Placement
from models.core.registry import InvalidModel
from models.core.registry import Config as Base


class Config(Base):
    """Settings of every adapter."""

    placement: Placement = "all"
    """Encoder blocks that get the adapter."""


def wrap(encoder: nn.Module, blocks: Sequence[int], make: Callable[[nn.Module, int], nn.Module]) -> nn.Module:
    """Replaces each of the blocks by ``make(block, dim)``, a module that calls it; returns the encoder."""
    for i in blocks:
        encoder.blocks[i] = make(encoder.blocks[i], encoder.block_dims[i])
    return encoder


@contextmanager
def inputs_of(module: nn.Module) -> Iterator[list[Tensor]]:
    """Collects the first argument of every call of ``module`` in the body.

    The hook exists for one forward pass only: a permanent one would refer to the original after ``deepcopy``.
    """
    seen: list[Tensor] = []
    handle = module.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    try:
        yield seen
    finally:
        handle.remove()


def as_map(x: Tensor, prefix_tokens: int) -> Tensor:
    """Converts the input of a block to a map: x [B, H, W, C], or tokens [B, prefix_tokens + H * H, C] -> [B, H, W, C].

    Tokens do not contain the image's shape: it must be square. Raises ``InvalidModel`` if it cannot be.
    """
    if x.ndim == 4:
        return x
    places = x.shape[1] - prefix_tokens
    side = math.isqrt(places)
    if side * side != places:
        raise InvalidModel(f"adapter: {places} tokens are no square map, which this adapter needs")
    return x[:, prefix_tokens:].unflatten(1, (side, side))
