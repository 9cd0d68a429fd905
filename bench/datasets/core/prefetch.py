"""Batches of a split in a given order. For a GPU they are read ahead in a thread, so that the GPU does not wait.

On a CPU nothing is read ahead: the cores compute, and gathering a batch from the cache takes about a thousandth of the
time of its training step (tests/benchmarks/bench_prefetch.py).
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from bench.datasets import Features, Split
from bench.system.in_order import in_order

Item, Result = TypeVar("Item"), TypeVar("Result")
AHEAD = 2
"""Batches that are ready in memory before they are needed."""
CPU = torch.device("cpu")


class Batch(NamedTuple):
    """Some pairs of a split: images uint8 [B, H, W, 3] or features, and masks [B, H, W], on the device."""

    images: Tensor | Features
    masks: Tensor
    truths: Iterable[np.ndarray]
    """Masks at their original sizes if they were asked for, else empty. On a CPU each is read when it is needed."""


def batches(
    split: Split,
    order: Sequence[np.ndarray],
    device: torch.device,
    *,
    with_truths: bool = False,
    ahead: int | None = None,
) -> Iterator[Batch]:
    """Yields a batch for each item of ``order``, numbers of pairs of the split, in this order.

    with_truths: read the masks at their original sizes, too. ahead: number of batches that are read ahead; by default
    ``AHEAD`` for a GPU and none for a CPU. Raises what reading a batch raises, at the place of that batch. The
    thread ends with the last batch, or with the iterator.
    """
    if ahead is None:
        ahead = AHEAD if device.type == "cuda" else 0
    if not ahead:
        for chosen in order:
            yield Batch(*split.batch(chosen, device), map(split.ground_truth, chosen) if with_truths else [])
        return

    def read(chosen: np.ndarray) -> Batch:
        truths = [split.ground_truth(i) for i in chosen] if with_truths else []
        images, masks = split.batch(chosen, CPU)
        if device.type == "cuda":  # only memory that is pinned is copied while the GPU computes
            with torch.cuda.device(device):
                images = images if isinstance(images, Features) else images.pin_memory()
                masks = masks.pin_memory()
        return Batch(images, masks, truths)

    for images, masks, truths in read_ahead(read, order, ahead):
        if isinstance(images, Features):  # they are read later, when their flips are known
            images = replace(images, device=device)
        else:
            images = images.to(device, non_blocking=True)
        yield Batch(images, masks.to(device, non_blocking=True), truths)


def read_ahead(read: Callable[[Item], Result], items: Iterable[Item], ahead: int) -> Iterator[Result]:
    """Yields ``read`` of each item in their order; a thread is up to ``ahead`` results further. Raises its error."""
    thread = ThreadPoolExecutor(1, "prefetch")
    try:
        yield from in_order((thread.submit(read, item) for item in items), ahead)
    finally:
        thread.shutdown(cancel_futures=True)
