"""From logits to predictions that are scored: 8-bit maps of an object, exactly as upstream's test.py, or classes."""

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.config.settings import ProtocolConfig, TransformConfig
from bench.datasets import Split
from bench.datasets.core.prefetch import batches
from bench.datasets.core.transforms import to_input
from bench.scoring.metric_types import NotFinite

Item = TypeVar("Item")


@torch.no_grad()
def predict(
    model: nn.Module,
    split: Split,
    transform: TransformConfig,
    device: torch.device,
    batch_size: int,
    protocol: ProtocolConfig = ProtocolConfig(),
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yields name, prediction and mask of each pair, [H, W] at the mask's original size.

    Predictions are maps of an object, or class numbers. Unquantised maps are float32 0..1, all other predictions uint8.
    Raises ``NotFinite`` with the name of the image.
    """
    model.eval()
    order = np.split(np.arange(len(split)), range(batch_size, len(split), batch_size))
    for chosen, (images, _, truths) in zip(order, batches(split, order, device, with_truths=True)):
        logits = model(to_input(images, transform.normalisation))[0]
        for i, one, mask in zip(chosen, logits, truths):
            try:
                prediction = to_prediction(one, mask.shape, protocol)
            except NotFinite as error:
                raise NotFinite(f"image {split.names[i]}: {error}") from None
            yield split.names[i], prediction, mask


def timed(items: Iterable[Item], spent: list[float], on_step: Callable[[], Any]) -> Iterator[Item]:
    """Passes items on, appends the seconds that each one took to ``spent``, and calls ``on_step``."""
    iterator = iter(items)
    while True:
        started = time.perf_counter()
        try:
            item = next(iterator)
        except StopIteration:
            return
        spent.append(time.perf_counter() - started)
        on_step()
        yield item


def to_prediction(logits: Tensor, size: tuple[int, int], protocol: ProtocolConfig) -> np.ndarray:
    """Converts logits [K, h, w] of one image to [H, W]: a map of the object for K = 1, else classes, uint8.

    Raises ``NotFinite``.
    """
    if not logits.isfinite().all():
        raise NotFinite("the model's logits are not finite (NaN or infinity)")
    return to_map(logits, size, protocol) if len(logits) == 1 else to_classes(logits, size)


def to_map(logits: Tensor, size: tuple[int, int], protocol: ProtocolConfig) -> np.ndarray:
    """Converts logits [1, h, w] of one image to the scored map [H, W]: uint8 0..255, or float32 0..1 unquantised.

    The default is that of WZH0120/SAM3-UNet fdb21da, test.py: the logits are resized bilinearly, the sigmoid follows,
    the map is stretched to 0..1 and truncated to 8 bits.
    """
    corners = None if protocol.resize == "nearest" else False
    resized = F.interpolate(logits[None], size=size, mode=protocol.resize, align_corners=corners)
    levels = resized.sigmoid().float().cpu().numpy()[0, 0]
    if protocol.minmax:
        levels = (levels - levels.min()) / (levels.max() - levels.min() + 1e-8)
    if protocol.quantise == "none":
        return levels
    return (levels * 255 + (0.5 if protocol.quantise == "round" else 0)).astype(np.uint8)


def to_classes(logits: Tensor, size: tuple[int, int]) -> np.ndarray:
    """Converts logits [K, h, w] of one image to classes uint8 [H, W]: resized bilinearly, then the largest logit."""
    resized = F.interpolate(logits[None], size=size, mode="bilinear", align_corners=False)
    return resized[0].argmax(dim=0).to(torch.uint8).cpu().numpy()
