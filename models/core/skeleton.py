"""A model without memory for its tensors: it counts parameters and reveals mistakes before any work starts."""

import warnings
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from models import MODELS
from models.core.registry import Config, InvalidModel
from models.core.size import in_words


class _ReadableConstants(TorchFunctionMode):
    """Computes ``linspace`` on the CPU: sam3's ViT reads its drop-path rates with ``.item()``."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.linspace:
            return func(*args, **{**(kwargs or {}), "device": "cpu"})
        return func(*args, **(kwargs or {}))


def skeleton(config: Config, image_size: int | tuple[int, int], pretrained: bool = False) -> nn.Module:
    """Builds a model with all parameters on the meta device. Raises ``InvalidModel`` if it cannot be built.

    With ``pretrained`` its checkpoint is read, checked (``WeightsError``) and cached for the real model.
    """
    part, entry = ("encoder", config.encoder) if hasattr(config, "encoder") else ("name", config)
    if not isinstance(image_size, int) and not entry.any_aspect:
        what = f"transform.size {in_words(image_size)} is no square, and {entry.name} takes only squares"
        raise InvalidModel(f"{part}: {what}. Give one side")
    try:
        with torch.device("meta"), _ReadableConstants(), warnings.catch_warnings():
            # only the shapes are checked
            warnings.filterwarnings("ignore", ".*copying from a non-meta parameter")
            return MODELS.build(config, image_size, pretrained)
    except (
        ArithmeticError,
        AssertionError,
        MemoryError,
        RuntimeError,
    ) as error:  # of libraries, for sizes that they do not support
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InvalidModel(f"{part}: cannot be built ({reason})") from error
