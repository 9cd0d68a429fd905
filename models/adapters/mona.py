"""Mona (Yin et al., CVPR 2025, "5%>100%", arXiv 2408.08345): a bottleneck with convolutions, for dense prediction.

``x + W_up GELU(conv(W_down(s1 * LN(x) + s2 * x)))`` with ``s1`` starting at 1e-6 and ``s2`` at 1; ``conv`` averages
depth-wise 3x3, 5x5 and 7x7 convolutions, then a 1x1 convolution, each with a residual. Two per block, where the paper
has them: in the residual stream after the attention and after the MLP. Its start is small but not the block itself,
as in the published code (Leiyi-Hu/mona), whose dropout of 0.1 is kept too.
"""

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from models import adapters
from models.core.registry import InvalidModel

KERNELS = (3, 5, 7)


class Config(adapters.Config):
    compilable: ClassVar[bool] = False  # its blocks register a hook in each forward pass

    name: Literal["mona"] = "mona"
    rank: PositiveInt = 64
    """Width of the bottleneck; 64 in the paper."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1


class Mona(nn.Module):
    """The change of the residual stream by one Mona; 2 * dim * rank + rank**2 + 5 * dim + 88 * rank parameters."""

    def __init__(self, dim: int, config: Config) -> None:
        super().__init__()
        rank = config.rank
        self.norm = nn.LayerNorm(dim)
        self.s1 = nn.Parameter(torch.full((dim,), 1e-6))
        self.s2 = nn.Parameter(torch.ones(dim))
        self.down = nn.Linear(dim, rank)
        self.convs = nn.ModuleList(nn.Conv2d(rank, rank, k, padding=k // 2, groups=rank) for k in KERNELS)
        self.project = nn.Conv2d(rank, rank, 1)
        self.dropout = nn.Dropout(config.dropout)
        self.up = nn.Linear(rank, dim)

    def forward(self, x: Tensor) -> Tensor:
        """x [B, H, W, C] -> [B, H, W, C]."""
        low = self.down(self.norm(x) * self.s1 + x * self.s2).permute(0, 3, 1, 2)
        low = low + sum(conv(low) for conv in self.convs) / len(KERNELS)
        low = low + self.project(low)
        return self.up(self.dropout(F.gelu(low.permute(0, 2, 3, 1))))


class MonaBlock(nn.Module):
    """A block with a Mona after its attention and one after its MLP.

    The place of the first one lies inside the block, so it changes the input of ``norm2``, which is the residual stream
    between attention and MLP. Its change thus enters the MLP, and is added once more to the block's output.
    """

    def __init__(self, block: nn.Module, dim: int, prefix_tokens: int, config: Config) -> None:
        super().__init__()
        self.block = block
        self.prefix_tokens = prefix_tokens
        self.adapter = nn.ModuleList([Mona(dim, config), Mona(dim, config)])

    def forward(self, x: Tensor) -> Tensor:
        """x [B, H, W, C] or [B, prefix_tokens + H * H, C] -> the same shape, unless the block changes it."""
        added: list[Tensor] = []

        def insert(_: nn.Module, arguments: tuple[Tensor]) -> tuple[Tensor]:
            stream = arguments[0]
            # SAM's ViT in timm flattens its map here
            seen = stream if stream.ndim == x.ndim else stream.reshape(x.shape)
            added.append(self._change(self.adapter[0], seen))
            return (stream + added[0].reshape(stream.shape),)

        handle = self.block.norm2.register_forward_pre_hook(insert)
        try:
            x = self.block(x)
        finally:
            handle.remove()
        x = x + added[0]
        return x + self._change(self.adapter[1], x)

    def _change(self, mona: Mona, x: Tensor) -> Tensor:
        """Computes the change of x by a Mona; it is 0 for tokens without a place in the image."""
        change = mona(adapters.as_map(x, self.prefix_tokens))
        return change if x.ndim == 4 else F.pad(change.flatten(1, 2), (0, 0, self.prefix_tokens, 0))


def build(config: Config, encoder: nn.Module, blocks: Sequence[int]) -> nn.Module:
    """Raises ``InvalidModel`` for blocks that are no transformer blocks with a norm before the MLP."""
    for i in blocks:
        block = encoder.blocks[i]
        shape = getattr(getattr(block, "norm2", None), "normalized_shape", None)
        if shape is None or not hasattr(block, "mlp"):
            parts = ", ".join(name for name, _ in block.named_children())
            raise InvalidModel(
                f"adapter: mona sits before 'norm2' (the norm between attention and 'mlp') and behind the block; "
                f"block {i} ({type(block).__name__}: {parts}) has no such parts"
            )
        encoder.blocks[i] = MonaBlock(block, shape[-1], encoder.prefix_tokens, config)
    return encoder
