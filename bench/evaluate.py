"""From logits to the 8-bit maps that are scored, exactly as upstream's test.py saves them."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from bench.datasets import Split
from bench.protocol import ProtocolConfig
from bench.transforms import TransformConfig, to_input


@torch.no_grad()
def predict(
    model: nn.Module,
    split: Split,
    transform: TransformConfig,
    device: torch.device,
    batch_size: int,
    protocol: ProtocolConfig = ProtocolConfig(),
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """For each pair: name, prediction and mask uint8 [H, W], both at the mask's original size.

    By default as WZH0120/SAM3-UNet fdb21da, test.py: the logits are resized bilinearly, then sigmoid, then stretched
    per image to 0..1, then cut off to 8 bits. Unquantised predictions are float32 0..1.
    """
    model.eval()
    for start in range(0, len(split), batch_size):
        chosen = np.arange(start, min(start + batch_size, len(split)))
        images, _ = split.batch(chosen, device)
        logits = model(to_input(images, transform.normalisation))[0]
        for i, one in zip(chosen, logits):
            mask = split.ground_truth(i)
            corners = None if protocol.resize == "nearest" else False
            resized = F.interpolate(one[None], size=mask.shape, mode=protocol.resize, align_corners=corners)
            answer = resized.sigmoid().float().cpu().numpy()[0, 0]
            yield split.names[i], to_map(answer, protocol), mask


def to_map(answer: np.ndarray, protocol: ProtocolConfig) -> np.ndarray:
    """Probabilities float32 [H, W] -> the map that is scored: uint8 0..255, or float32 0..1 where not quantised."""
    if protocol.minmax:
        answer = (answer - answer.min()) / (answer.max() - answer.min() + 1e-8)
    if protocol.quantise == "none":
        return answer
    return (answer * 255 + (0.5 if protocol.quantise == "round" else 0)).astype(np.uint8)
