"""From logits to what is scored: 8-bit maps of an object, exactly as upstream's test.py saves them, or classes."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.datasets import Split
from bench.transforms import TransformConfig, to_input


@torch.no_grad()
def predict(
    model: nn.Module, split: Split, transform: TransformConfig, device: torch.device, batch_size: int
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """For each pair: name, prediction uint8 [H, W] and mask uint8 [H, W], both at the mask's original size."""
    model.eval()
    for start in range(0, len(split), batch_size):
        chosen = np.arange(start, min(start + batch_size, len(split)))
        images, _ = split.batch(chosen, device)
        logits = model(to_input(images, transform.normalisation))[0]
        for i, one in zip(chosen, logits):
            mask = split.ground_truth(i)
            yield split.names[i], to_answer(one, mask.shape), mask


def to_answer(logits: Tensor, size: tuple[int, int]) -> np.ndarray:
    """logits [K, h, w] of one image -> uint8 [H, W]: a map of the object for K = 1, else the classes."""
    return to_map(logits, size) if len(logits) == 1 else to_classes(logits, size)


def to_map(logits: Tensor, size: tuple[int, int]) -> np.ndarray:
    """logits [1, h, w] of one image -> uint8 [H, W], 0..255, at ``size``.

    WZH0120/SAM3-UNet fdb21da, test.py: the logits are resized bilinearly, then sigmoid, then stretched per image to
    0..1 (a quirk: a confident all-background answer becomes full-contrast noise), then cut off to 8 bits.
    """
    resized = F.interpolate(logits[None], size=size, mode="bilinear", align_corners=False)
    answer = resized.sigmoid().float().cpu().numpy()[0, 0]
    answer = (answer - answer.min()) / (answer.max() - answer.min() + 1e-8)
    return (answer * 255).astype(np.uint8)


def to_classes(logits: Tensor, size: tuple[int, int]) -> np.ndarray:
    """logits [K, h, w] of one image -> classes uint8 [H, W] at ``size``: resized bilinearly, then the largest wins."""
    resized = F.interpolate(logits[None], size=size, mode="bilinear", align_corners=False)
    return resized[0].argmax(dim=0).to(torch.uint8).cpu().numpy()
