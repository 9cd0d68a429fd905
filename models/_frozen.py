"""Frozen linear layers whose weights are stored in fewer bits than they are computed with.

``bfloat16``   half the bytes
``int8``       a quarter: one scale for each output channel, the largest magnitude at 127
``nf4``        0.13 of them: four bits, one float16 scale for each 64 weights (QLoRA, Dettmers et al., NeurIPS 2023,
               appendix E; the 16 levels are those of bitsandbytes and torchao)

A weight is unpacked for each use and again in the backward pass; only what is stored is kept in between. torchao's own
tensor subclasses (0.18) would also build and run on meta and fake tensors, but its modules move between releases, and
plain torch needs no further package; the tests compare the four-bit codes where it is installed.
"""

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Storage = Literal["float32", "bfloat16", "int8", "nf4"]

NF4_BLOCK = 64
NF4_LEVELS = (
    -1.0,
    -0.6961928009986877,
    -0.5250730514526367,
    -0.39491748809814453,
    -0.28444138169288635,
    -0.18477343022823334,
    -0.09105003625154495,
    0.0,
    0.07958029955625534,
    0.16093020141124725,
    0.24611230194568634,
    0.33791524171829224,
    0.44070982933044434,
    0.5626170039176941,
    0.7229568362236023,
    1.0,
)


class StoredLinear(nn.Module):
    """``nn.Linear``, its frozen weight in another format: x [..., in] -> [..., out] in x's or autocast's precision."""

    def __init__(self, linear: nn.Linear, storage: Storage) -> None:
        super().__init__()
        self.in_features, self.out_features, self.storage = linear.in_features, linear.out_features, storage
        weight = linear.weight.detach()
        codes, scales = {"bfloat16": _to_bfloat16, "int8": _to_int8, "nf4": _to_nf4}[storage](weight)
        self.codes = nn.Parameter(codes, requires_grad=False)
        self.scales = None if scales is None else nn.Parameter(scales, requires_grad=False)
        self.bias = linear.bias
        levels = torch.tensor(NF4_LEVELS, device=weight.device) if storage == "nf4" else None
        self.register_buffer("levels", levels, persistent=False)

    @property
    def weight(self) -> Tensor:
        """The unpacked weight [out, in], float32."""
        return self.unpacked(torch.float32)

    def unpacked(self, dtype: torch.dtype) -> Tensor:
        """The weight [out, in] as it is computed with."""
        if self.storage == "bfloat16":
            return self.codes.to(dtype)
        scales = self.scales.to(dtype)
        if self.storage == "int8":
            return self.codes * scales[:, None]
        levels = self.levels.to(dtype)
        pairs = torch.stack((levels[(self.codes >> 4).int()], levels[(self.codes & 15).int()]), dim=-1)
        blocks = pairs.view(-1, NF4_BLOCK).mul_(scales[:, None])
        return blocks.view(self.out_features, self.in_features)

    def forward(self, x: Tensor) -> Tensor:
        kind = x.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
        return _Multiply.apply(x.to(dtype), self)


class _Multiply(torch.autograd.Function):
    """Keeps the layer, which is there anyway, instead of its unpacked weight."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: StoredLinear) -> Tensor:
        ctx.layer = layer
        bias = None if layer.bias is None else layer.bias.to(x.dtype)
        return F.linear(x, layer.unpacked(x.dtype), bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient @ ctx.layer.unpacked(gradient.dtype), None


def _to_bfloat16(weight: Tensor) -> tuple[Tensor, None]:
    return weight.bfloat16(), None


def _to_int8(weight: Tensor) -> tuple[Tensor, Tensor]:
    scales = (weight.abs().amax(dim=1) / 127).clamp(min=torch.finfo(weight.dtype).tiny)
    return (weight / scales[:, None]).round().clamp(-127, 127).to(torch.int8), scales


def _to_nf4(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Two codes a byte, the first in the upper half."""
    blocks = weight.reshape(-1, NF4_BLOCK)
    scales = blocks.abs().amax(dim=1).half().clamp(min=torch.finfo(torch.float16).tiny)
    levels = torch.tensor(NF4_LEVELS, device=weight.device)
    nearest = (
        torch.bucketize(blocks / scales.to(weight.dtype)[:, None], (levels[1:] + levels[:-1]) / 2)
        .to(torch.uint8)
        .view(-1, 2)
    )
    return (nearest[:, 0] << 4) | nearest[:, 1], scales


def store_frozen(module: nn.Module, storage: Storage) -> None:
    """Replaces every plain ``nn.Linear`` below ``module`` that does not train. ``nf4`` leaves those alone whose size is
    no multiple of 64, as bitsandbytes and torchao refuse them."""
    if storage == "float32":
        return
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is not nn.Linear or any(p.requires_grad for p in child.parameters()):
                continue
            if storage != "nf4" or child.weight.numel() % NF4_BLOCK == 0:
                setattr(parent, name, StoredLinear(child, storage))
