"""Methods of the ``peft`` library, put at linear layers of the encoder's chosen blocks."""

import re
from collections.abc import Callable, Sequence
from typing import Annotated

from pydantic import Field
from torch import nn

from models.core.registry import InvalidModel

NAME = "adapter"
"""Name of the adapter in peft, which becomes a part of the names of its weights."""

Layers = Annotated[tuple[str, ...], Field(strict=False, min_length=1)]
"""Dotted names of linear layers within a block."""


def pattern(layers: Sequence[str]) -> str:
    """Returns the regular expression of these layers' names in the list of chosen blocks; peft matches it in full."""
    return r"\d+\.(" + "|".join(re.escape(layer) for layer in layers) + ")"


def inject(
    encoder: nn.Module, blocks: Sequence[int], layers: Sequence[str], put: Callable[[nn.ModuleList], object]
) -> nn.Module:
    """Calls ``put`` with the chosen blocks, whose linear ``layers`` it replaces; returns the encoder.

    Raises ``InvalidModel`` unless every chosen block has all the layers. Tuned parameters stay tuned, although peft
    freezes all parameters but its own.
    """
    for i in blocks:
        linear = {name for name, m in encoder.blocks[i].named_modules() if isinstance(m, nn.Linear)}
        absent = [layer for layer in layers if layer not in linear]
        if absent:
            raise InvalidModel(
                f"adapter: block {i} has no linear layer {', '.join(absent)}. "
                f"Its linear layers: {', '.join(sorted(linear)) or 'none'}"
            )
    if blocks:
        tuned = [p for p in encoder.parameters() if p.requires_grad]
        put(nn.ModuleList(encoder.blocks[i] for i in blocks))
        for parameter in tuned:
            parameter.requires_grad_(True)
    return encoder
