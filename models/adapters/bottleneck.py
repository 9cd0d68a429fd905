"""The serial bottleneck of SAM2-UNet and SAM3-UNet: ``block(x + GELU(W2 GELU(W1 x)))``.

Upstream: WZH0120/SAM3-UNet fdb21da, SAM3UNet.py, class ``Adapter``. It sits *before* the block, so what it adds also
travels down the residual stream. Two quirks are kept: the GELU after the second layer, which lets the adapter add
almost only upwards (not below -0.17), and a start that is small but not zero.
"""

from collections.abc import Sequence
from typing import Literal

from pydantic import PositiveInt
from torch import Tensor, nn

from models import adapters


class Config(adapters.Config):
    name: Literal["bottleneck"] = "bottleneck"
    rank: PositiveInt = 32
    """Width of the bottleneck; 32 in both papers."""


class BottleneckAdapter(nn.Module):
    """Adds 2 * dim * rank + dim + rank parameters."""

    def __init__(self, block: nn.Module, dim: int, rank: int) -> None:
        super().__init__()
        self.block = block
        self.adapter = nn.Sequential(nn.Linear(dim, rank), nn.GELU(), nn.Linear(rank, dim), nn.GELU())
        for layer in (self.adapter[0], self.adapter[2]):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """x [B, H, W, C] -> [B, H, W, C]."""
        return self.block(x + self.adapter(x))


def build(config: Config, encoder: nn.Module, blocks: Sequence[int]) -> nn.Module:
    return adapters.wrap(encoder, blocks, lambda block, dim: BottleneckAdapter(block, dim, config.rank))
