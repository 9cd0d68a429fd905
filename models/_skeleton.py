"""A model's shape without its memory: for counting parameters and finding mistakes before any work starts."""

from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from models import MODELS
from models._registry import Config


class _ReadableConstants(TorchFunctionMode):
    """``linspace`` stays on the CPU: sam3's ViT reads its drop-path rates with ``.item()``."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.linspace:
            return func(*args, **{**(kwargs or {}), "device": "cpu"})
        return func(*args, **(kwargs or {}))


def skeleton(config: Config, image_size: int | tuple[int, int], pretrained: bool = False) -> nn.Module:
    """The model with all parameters on the meta device. Raises ``InvalidModel`` for what cannot be built.

    With ``pretrained`` its checkpoint is read and checked (``WeightsError``), and ready for the real model to map.
    """
    with torch.device("meta"), _ReadableConstants():
        return MODELS.build(config, image_size, pretrained)
