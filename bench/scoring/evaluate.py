"""From logits to what is scored: 8-bit maps of an object, exactly as upstream's test.py saves them, or classes."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.config.settings import ProtocolConfig, TransformConfig
from bench.datasets import Split
from bench.datasets.core.transforms import to_input
from bench.scoring.metric import NotFinite


@torch.no_grad()
def predict(
    model: nn.Module,
    split: Split,
    transform: TransformConfig,
    device: torch.device,
    batch_size: int,
    protocol: ProtocolConfig = ProtocolConfig(),
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """For each pair: name, prediction and mask [H, W], both at the mask's original size.

    Of the two protocols predictions are maps, of classes they are class numbers. Unquantised maps are float32 0..1, all
    others uint8. Raises ``NotFinite`` with the image.
    """
    model.eval()
    for start in range(0, len(split), batch_size):
        chosen = np.arange(start, min(start + batch_size, len(split)))
        images, _ = split.batch(chosen, device)
        logits = model(to_input(images, transform.normalisation))[0]
        for i, one in zip(chosen, logits):
            mask = split.ground_truth(i)
            try:
                answer = to_answer(one, mask.shape, protocol)
            except NotFinite as error:
                raise NotFinite(f"image {split.names[i]}: {error}") from None
            yield split.names[i], answer, mask


def to_answer(logits: Tensor, size: tuple[int, int], protocol: ProtocolConfig) -> np.ndarray:
    """logits [K, h, w] of one image -> [H, W]: a map of the object for K = 1, else the classes, uint8.

    Raises ``NotFinite``.
    """
    if not logits.isfinite().all():
        raise NotFinite("the model's logits are not finite (NaN or infinity)")
    return to_map(logits, size, protocol) if len(logits) == 1 else to_classes(logits, size)


def to_map(logits: Tensor, size: tuple[int, int], protocol: ProtocolConfig) -> np.ndarray:
    """logits [1, h, w] of one image -> the map that is scored, [H, W]: uint8 0..255, or float32 0..1 unquantised.

    By default as WZH0120/SAM3-UNet fdb21da, test.py: the logits are resized bilinearly, then sigmoid, then stretched
    per image to 0..1, then cut off to 8 bits.
    """
    corners = None if protocol.resize == "nearest" else False
    resized = F.interpolate(logits[None], size=size, mode=protocol.resize, align_corners=corners)
    answer = resized.sigmoid().float().cpu().numpy()[0, 0]
    if protocol.minmax:
        answer = (answer - answer.min()) / (answer.max() - answer.min() + 1e-8)
    if protocol.quantise == "none":
        return answer
    return (answer * 255 + (0.5 if protocol.quantise == "round" else 0)).astype(np.uint8)


def to_classes(logits: Tensor, size: tuple[int, int]) -> np.ndarray:
    """logits [K, h, w] of one image -> classes uint8 [H, W] at ``size``: resized bilinearly, then the largest wins."""
    resized = F.interpolate(logits[None], size=size, mode="bilinear", align_corners=False)
    return resized[0].argmax(dim=0).to(torch.uint8).cpu().numpy()
