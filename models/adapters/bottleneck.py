"""The serial bottleneck of SAM2-UNet and SAM3-UNet: ``block(x + GELU(W2 GELU(W1 x)))``.

Upstream: WZH0120/SAM3-UNet fdb21da, SAM3UNet.py, class ``Adapter``. It sits *before* the block, so what it adds also
travels down the residual stream. Two quirks are kept by default and can be lifted: the GELU after the second layer,
which lets the adapter add almost only upwards (not below -0.17), and a start that is small but not zero.
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
    init: Literal["trunc_normal", "default", "zero"] = "trunc_normal"
    """``trunc_normal``: deviation 0.02, biases 0, as SAM3-UNet; ``default``: torch's own, as SAM2-UNet, which calls no
    initialisation; ``zero``: the second layer starts at 0, so that training starts from the frozen encoder itself."""
    trailing_activation: bool = True
    """The GELU behind the second layer, as in both papers' code. Without it the adapter can add downwards too."""


class BottleneckAdapter(nn.Module):
    """Adds 2 * dim * rank + dim + rank parameters."""

    def __init__(self, block: nn.Module, dim: int, config: Config) -> None:
        super().__init__()
        self.block = block
        down, up = nn.Linear(dim, config.rank), nn.Linear(config.rank, dim)
        self.adapter = nn.Sequential(down, nn.GELU(), up, *[nn.GELU()] * config.trailing_activation)
        if config.init != "default":
            for layer in (down, up):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)
        if config.init == "zero":
            nn.init.zeros_(up.weight)

    def forward(self, x: Tensor) -> Tensor:
        """x [B, H, W, C] -> [B, H, W, C]."""
        return self.block(x + self.adapter(x))


def build(config: Config, encoder: nn.Module, blocks: Sequence[int]) -> nn.Module:
    return adapters.wrap(encoder, blocks, lambda block, dim: BottleneckAdapter(block, dim, config))
