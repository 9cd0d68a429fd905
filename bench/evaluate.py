"""From logits to the 8-bit maps that are scored, exactly as upstream's test.py saves them."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from bench.datasets import Split
from bench.transforms import TransformConfig, to_input


@torch.no_grad()
def predict(
    model: nn.Module, split: Split, transform: TransformConfig, device: torch.device, batch_size: int
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """For each pair: name, prediction uint8 [H, W] and mask uint8 [H, W], both at the mask's original size.

    WZH0120/SAM3-UNet fdb21da, test.py: the logits are resized bilinearly, then sigmoid, then stretched per image to
    0..1 (a quirk: a confident all-background answer becomes full-contrast noise), then cut off to 8 bits.
    """
    model.eval()
    for start in range(0, len(split), batch_size):
        chosen = np.arange(start, min(start + batch_size, len(split)))
        images, _ = split.batch(chosen, device)
        logits = model(to_input(images, transform.normalisation))[0]
        for i, one in zip(chosen, logits):
            mask = split.ground_truth(i)
            resized = F.interpolate(one[None], size=mask.shape, mode="bilinear", align_corners=False)
            answer = resized.sigmoid().float().cpu().numpy()[0, 0]
            answer = (answer - answer.min()) / (answer.max() - answer.min() + 1e-8)
            yield split.names[i], (answer * 255).astype(np.uint8), mask


@torch.no_grad()
def predict_classes(
    model: nn.Module, split: Split, transform: TransformConfig, device: torch.device, batch_size: int
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """For each pair: name, predicted class uint8 [H, W] and true class uint8 [H, W], both at the mask's original size.

    The logits are resized bilinearly, then the largest wins.
    """
    model.eval()
    for start in range(0, len(split), batch_size):
        chosen = np.arange(start, min(start + batch_size, len(split)))
        images, _ = split.batch(chosen, device)
        logits = model(to_input(images, transform.normalisation))[0]
        for i, one in zip(chosen, logits):
            mask = split.ground_truth(i)
            resized = F.interpolate(one[None], size=mask.shape, mode="bilinear", align_corners=False)
            yield split.names[i], resized[0].argmax(dim=0).to(torch.uint8).cpu().numpy(), mask
