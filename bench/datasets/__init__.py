"""Datasets: ``dataset.name: folder`` is the entry ``folder.py`` of this folder.

An entry has ``Config`` and ``build(config, transform, progress) -> Data``. Masks hold classes if its ``Config`` has
``num_classes`` above 1, else objects. Every image is decoded and resized once into a cache on disk, which all trials of
a machine map into memory.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

IGNORED = -1
"""Value of mask pixels that count neither in the loss nor in the scores. Masks with such pixels are int16."""


class DataError(Exception):
    """A dataset that cannot be used; ``errors`` has one line for each fault."""

    def __init__(self, errors: list[str]) -> None:
        super().__init__("\n".join(errors))
        self.errors = errors


@dataclass(frozen=True)
class Split:
    """Some of a dataset's pairs, resized. ``images`` and ``masks`` belong to the whole dataset; ``indices`` select."""

    images: np.ndarray
    """uint8 [N, H, W, 3]."""
    masks: np.ndarray
    """[N, H, W]: 0..255, soft at outlines if resizing interpolates; or classes. uint8, or int16 with IGNORED."""
    indices: np.ndarray
    """int [n], ascending."""
    names: tuple[str, ...]
    """Names of the n pairs."""
    read_ground_truth: Callable[[int], np.ndarray]
    """Reads the mask of a pair of the whole dataset, by its number, at its original size [H, W]; values as in masks."""

    def __len__(self) -> int:
        return len(self.indices)

    def batch(self, chosen: np.ndarray, device: torch.device) -> tuple[Tensor, Tensor]:
        """Returns images uint8 [B, H, W, 3] and masks uint8 or int16 [B, H, W] of some pairs, on the device.

        chosen: numbers of pairs of this split, 0..n-1. The batch is copied as bytes, a quarter of its size as floats.
        """
        rows = self.indices[chosen]
        return torch.from_numpy(self.images[rows]).to(device), torch.from_numpy(self.masks[rows]).to(device)

    def ground_truth(self, i: int) -> np.ndarray:
        """Returns the mask of pair ``i`` of this split at its original size [H, W]: above 128 is object; or classes.

        uint8, or int16 with IGNORED.
        """
        return self.read_ground_truth(int(self.indices[i]))


@dataclass(frozen=True)
class Data:
    """The three splits: ``train`` for training, ``val`` for choices between settings, ``test`` for the scores.

    A benchmark has several test sets; ``test`` is the first of them.
    """

    train: Split
    val: Split
    test: Split
    fingerprint: str
    """Hash of the content of all pairs and of the split."""
    notes: tuple[str, ...] = ()
    """Lines for the user, e.g. on files that are no images."""
    test_sets: dict[str, Split] = field(default_factory=dict)
    """Test sets by name; empty if ``test`` is the only one."""
    set_fingerprints: dict[str, str] = field(default_factory=dict)
    """Hash of each set that pairs come from, by its name."""
    changed: Callable[[], list[str]] = list
    """Returns a line for each pair whose files have changed since they were read."""
    almost_white: dict[str, list[str]] = field(default_factory=dict)
    """Names of the pairs whose masks hold levels from 129 to 254, by test set."""

    @property
    def tests(self) -> dict[str, Split]:
        """Test sets by name, in the order of the tables."""
        return self.test_sets or {"test": self.test}
