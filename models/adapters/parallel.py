"""AdaptFormer (Chen et al., NeurIPS 2022, arXiv 2205.13535): a bottleneck parallel to the block's MLP.

``out = block(x) + scale * W_up ReLU(W_down n)``, where ``n`` is the input of the block's MLP (the second norm's
output), as in the paper's equation; the published code (ShoufaChen/AdaptFormer, models/custom_modules.py) uses the
value before that norm by default. The sum bypasses the block's layer scale and stochastic depth, as in both.
``W_up`` starts at zero, so the start is the block itself. Dropout 0.1 is the published code's, not in the paper.
"""

import math
from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn

from models import adapters
from models.core.registry import InvalidModel


class Config(adapters.Config):
    compilable: ClassVar[bool] = False  # a hook is registered in each forward pass

    name: Literal["parallel"] = "parallel"
    rank: PositiveInt = 64
    """Width of the bottleneck; 64 in the paper."""
    scale: PositiveFloat = 0.1
    """Fixed factor of the bottleneck's output; 0.1 in the paper."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1


class ParallelAdapter(nn.Module):
    """Adds 2 * dim * rank + dim + rank parameters."""

    def __init__(self, block: nn.Module, dim: int, config: Config) -> None:
        super().__init__()
        self.block = block
        self.scale = config.scale
        down, up = nn.Linear(dim, config.rank), nn.Linear(config.rank, dim)
        nn.init.kaiming_uniform_(down.weight, a=math.sqrt(5))
        for zero in (down.bias, up.weight, up.bias):
            nn.init.zeros_(zero)
        self.adapter = nn.Sequential(down, nn.ReLU(), nn.Dropout(config.dropout), up)

    def forward(self, x: Tensor) -> Tensor:
        """x [B, ..., C] -> [B, ..., C], of any shape that the block takes."""
        with adapters.inputs_of(self.block.mlp) as seen:
            out = self.block(x)
        added = self.adapter(seen[0])  # SAM's ViT in timm hands its MLP a map as tokens
        return out + self.scale * added.reshape(out.shape)


def build(config: Config, encoder: nn.Module, blocks: Sequence[int]) -> nn.Module:
    """Raises ``InvalidModel`` for blocks without an MLP."""
    for i in blocks:
        block = encoder.blocks[i]
        linear = [m for m in block.mlp.modules() if isinstance(m, nn.Linear)] if hasattr(block, "mlp") else []
        if not linear:
            parts = ", ".join(name for name, _ in block.named_children())
            raise InvalidModel(
                f"adapter: parallel needs a block's 'mlp' of linear layers, which block {i} "
                f"({type(block).__name__}: {parts}) does not have"
            )
        encoder.blocks[i] = ParallelAdapter(block, linear[0].in_features, config)
    return encoder
