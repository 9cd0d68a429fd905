"""A ladder parallel to the frozen encoder: it reads the encoder's maps, and no gradient enters the encoder.

After Ladder Side-Tuning (LST; Sung et al., NeurIPS 2022, arXiv 2206.06522), brought to dense prediction by E3VA (Yin
et al., ACM MM 2024, arXiv 2306.09729). The encoder runs without autograd, so that none of its activations is kept for
the backward pass. Each rung projects the map that enters its block down to ``rank`` channels, fuses it with the state
of the rung below by a learned gate, ``g = sigmoid(a / 0.1)`` as in LST, and mixes it. The last states are projected up
to the encoder's channels and added to its output. The up-projection starts at zero: the start is the encoder itself.

Different from LST: a rung mixes by a depth-wise 3x3 convolution and a linear layer where LST has a narrow transformer
layer initialised by pruning the backbone; maps are normalised before the down-projection. Different from E3VA: one
ladder of block inputs instead of adapters parallel to each attention and MLP.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import ClassVar, Literal

import torch
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from models import adapters
from models.core.registry import InvalidModel

TEMPERATURE = 0.1


class Config(adapters.Config):
    compilable: ClassVar[bool] = False  # a hook is registered in each forward pass

    name: Literal["ladder"] = "ladder"
    rank: PositiveInt = 64
    """Channels of the ladder."""


def resized(x: Tensor, size: torch.Size) -> Tensor:
    """x [B, h, w, C] -> [B, H, W, C] for size (H, W)."""
    if x.shape[1:3] == size:
        return x
    return F.interpolate(x.permute(0, 3, 1, 2), size=size, mode="bilinear", align_corners=False).permute(0, 2, 3, 1)


class Rung(nn.Module):
    """One step of the ladder: dim * rank + rank**2 + 14 * rank parameters, and a gate on all but the lowest."""

    def __init__(self, dim: int, rank: int, lowest: bool) -> None:
        super().__init__()
        self.down = nn.Linear(dim, rank)
        self.gate = None if lowest else nn.Parameter(torch.zeros(()))
        self.norm = nn.LayerNorm(rank)
        self.conv = nn.Conv2d(rank, rank, 3, padding=1, groups=rank)
        self.out = nn.Linear(rank, rank)

    def forward(self, below: Tensor | None, taken: Tensor) -> Tensor:
        """State of the rung below [B, h, w, rank] and the encoder's map [B, H, W, C] -> state [B, H, W, rank]."""
        state = self.down(F.layer_norm(taken, taken.shape[-1:]))
        if below is not None:
            share = torch.sigmoid(self.gate / TEMPERATURE)
            state = share * state + (1 - share) * resized(below, state.shape[1:3])
        mixed = self.conv(self.norm(state).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return state + self.out(F.gelu(mixed))


class Ladder(nn.Module):
    """Replaces the encoder. ``encoder`` is the frozen one; ``adapter`` holds all trained parameters.

    Besides its rungs it has 2 * rank parameters, and rank * C + C for each of the encoder's maps.
    """

    def __init__(self, encoder: nn.Module, blocks: Sequence[int], rank: int) -> None:
        super().__init__()
        self.encoder = encoder
        rungs = {str(i): Rung(encoder.block_dims[i], rank, lowest=i == blocks[0]) for i in blocks}
        up = nn.ModuleList(nn.Linear(rank, channels) for channels in encoder.channels)
        for layer in up:
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        self.adapter = nn.ModuleDict({"rungs": nn.ModuleDict(rungs), "norm": nn.LayerNorm(rank), "up": up})

    @property
    def blocks(self) -> nn.ModuleList:
        return self.encoder.blocks

    @property
    def block_dims(self) -> tuple[int, ...]:
        return self.encoder.block_dims

    @property
    def channels(self) -> tuple[int, ...]:
        return self.encoder.channels

    @property
    def prefix_tokens(self) -> int:
        return self.encoder.prefix_tokens

    def stem_parameters(self) -> Iterator[nn.Parameter]:
        return self.encoder.stem_parameters()

    def load_pretrained(self) -> int:
        return self.encoder.load_pretrained()

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """images [B, 3, H, W] -> the encoder's maps, each [B, C_i, H/s_i, W/s_i]."""
        rungs = self.adapter["rungs"]
        with torch.no_grad(), ExitStack() as taps:
            seen = [taps.enter_context(adapters.inputs_of(self.blocks[int(i)])) for i in rungs]
            maps = self.encoder(images)
        states: list[Tensor] = []
        for rung, (taken, *_) in zip(rungs.values(), seen):
            below = states[-1] if states else None
            states.append(rung(below, adapters.as_map(taken, self.prefix_tokens)))
        return tuple(each + self._change(up, states, each.shape[2:]) for up, each in zip(self.adapter["up"], maps))

    def _change(self, up: nn.Linear, states: list[Tensor], size: torch.Size) -> Tensor:
        """Projects a state up for a map of ``size``: the highest state among those nearest to it in scale."""
        nearest = min(reversed(states), key=lambda state: abs(math.log(state.shape[1] / size[0])))
        return up(self.adapter["norm"](resized(nearest, size))).permute(0, 3, 1, 2)


def build(config: Config, encoder: nn.Module, blocks: Sequence[int]) -> nn.Module:
    """Raises ``InvalidModel`` if parts of the encoder are tuned: no gradient would reach them."""
    if not blocks:
        return encoder
    if any(parameter.requires_grad for parameter in encoder.parameters()):
        raise InvalidModel(
            "adapter: a ladder sends no gradient into the encoder, so nothing of it can be tuned. "
            "Set tuned_blocks to none and tuned_stem to false, or take another adapter"
        )
    return Ladder(encoder, blocks, config.rank)
