"""Latency of one image: the forward pass at batch size 1, with the image already on the device."""

import statistics
import time

import numpy as np
import torch
from torch import nn

from bench.config.settings import TransformConfig
from bench.datasets import Split
from bench.datasets.core.transforms import to_input

WARM_UP = 3
PASSES = 20
SECONDS = 2.0
"""Time after which measuring ends, even after a single pass."""


@torch.no_grad()
def latency(model: nn.Module, split: Split, transform: TransformConfig, device: torch.device) -> float:
    """Measures the median seconds of a forward pass over the first image of ``split``, without loading, resizing or
    scoring."""
    model.eval()
    images, _ = split.batch(np.arange(1), device)
    inputs = to_input(images, transform.normalisation)
    taken: list[float] = []
    while len(taken) < 2 or (sum(taken) < SECONDS and len(taken) < WARM_UP + PASSES):
        _wait(device)
        started = time.perf_counter()
        model(inputs)
        _wait(device)
        taken.append(time.perf_counter() - started)
    return statistics.median(taken[min(WARM_UP, len(taken) - 1) :])


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
