"""SSF (Lian et al., NeurIPS 2022, arXiv 2210.08823): a scale and a shift per channel after every operation.

An operation is a linear layer or a layer norm of a chosen block: with ``norm1``, ``qkv``, ``proj``, ``norm2``, ``fc1``
and ``fc2``, as in the published code (dongzelian/SSF, models/vision_transformer.py). It starts as the identity (scale
1, shift 0), where that code draws both with a deviation of 0.02 around it. The paper also adapts the patch embedding
and the last norm, which lie outside the blocks.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from timm.layers import LayerNorm2d
from torch import Tensor, nn

from models import adapters
from models.core.registry import InvalidModel


class Config(adapters.Config):
    name: Literal["ssf"] = "ssf"


class ScaleShift(nn.Module):
    """``scale * operation(x) + shift``; adds 2 parameters for each channel of the operation's output."""

    def __init__(self, operation: nn.Module, dim: int) -> None:
        super().__init__()
        self.operation = operation
        self.adapter = nn.ParameterDict({"scale": torch.ones(dim), "shift": torch.zeros(dim)})

    def forward(self, x: Tensor) -> Tensor:
        """x [..., C_in] -> [..., dim]."""
        return self.operation(x) * self.adapter["scale"] + self.adapter["shift"]


def width(module: nn.Module) -> int | None:
    """Output channels of an operation, which stand last in its output; ``None`` for any other module."""
    if isinstance(module, nn.Linear):
        return module.out_features
    if isinstance(module, nn.LayerNorm) and not isinstance(module, LayerNorm2d):
        return module.normalized_shape[-1]
    return None


def build(config: Config, encoder: nn.Module, blocks: Sequence[int]) -> nn.Module:
    """Raises ``InvalidModel`` for blocks without linear layers and layer norms."""
    for i in blocks:
        block = encoder.blocks[i]
        found = [(name, width(module)) for name, module in block.named_modules() if width(module)]
        if not found:
            raise InvalidModel(
                f"adapter: ssf follows linear layers and layer norms, and block {i} ({type(block).__name__}) has none"
            )
        for name, dim in found:
            parent, _, last = name.rpartition(".")
            setattr(block.get_submodule(parent), last, ScaleShift(block.get_submodule(name), dim))
    return encoder
