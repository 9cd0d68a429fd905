"""Adapters: ``build(config, encoder, blocks) -> nn.Module``.

``build`` puts the method at the encoder's blocks with these numbers and returns the encoder, or a module that takes its
place: the same contract and channels (``models.encoders``), reading the encoder instead of changing it. The names of the method's
own parameters have a part ``adapter`` (``trunk.blocks.3.adapter.0.weight``); by it they are counted and checked.
"""

from collections.abc import Callable, Sequence

from torch import nn

from models._placement import Placement
from models._registry import Config as Base


class Config(Base):
    """What every adapter has: the encoder blocks that it is put at."""

    placement: Placement = "all"


def wrap(encoder: nn.Module, blocks: Sequence[int], make: Callable[[nn.Module, int], nn.Module]) -> nn.Module:
    """Replaces each of the blocks by ``make(block, dim)``, a module that calls it; returns the encoder."""
    for i in blocks:
        encoder.blocks[i] = make(encoder.blocks[i], encoder.block_dims[i])
    return encoder
