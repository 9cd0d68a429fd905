"""Datasets: ``dataset.name: folder`` is the entry ``folder.py`` of this folder.

An entry has ``Config`` and ``build(config, transform, progress) -> Data``. Masks hold classes if its ``Config`` has
``num_classes`` above 1, else objects. Every image is decoded and resized once into a cache on disk, which all trials of
a machine map into memory.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

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


ReadFeatures = Callable[[np.ndarray, np.ndarray], tuple[Tensor, ...]]
"""Reads features: numbers of pairs in a split int [B], and their flips bool [B, 2] -> tensors [B, ...]."""


@dataclass(frozen=True)
class Features:
    """A batch of images that is given by the output of an encoder's first blocks, which is read when it is needed."""

    numbers: np.ndarray  # int [B], of pairs in their split
    flips: np.ndarray  # bool [B, 2]: left-right, upside-down
    read_features: ReadFeatures
    device: torch.device

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, part: slice) -> "Features":
        return replace(self, numbers=self.numbers[part], flips=self.flips[part])

    def flipped(self, direction: int, chosen: Tensor) -> "Features":
        """Returns the batch with the chosen images, bool [B], flipped: left-right (0) or upside-down (1)."""
        flips = self.flips.copy()
        flips[:, direction] ^= chosen.cpu().numpy()
        return replace(self, flips=flips)

    def read(self) -> tuple[Tensor, ...]:
        """Reads the tensors, on the device."""
        return tuple(tensor.to(self.device) for tensor in self.read_features(self.numbers, self.flips))


@dataclass(frozen=True)
class Split:
    """Some of a dataset's pairs, resized. ``images`` and ``masks`` belong to the whole dataset; ``indices`` select.

    With ``read_features`` a batch has ``Features`` instead of images (``bench.training.feature_cache``).
    """

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
    read_features: ReadFeatures | None = None

    def __len__(self) -> int:
        return len(self.indices)

    def batch(self, chosen: np.ndarray, device: torch.device) -> tuple[Tensor | Features, Tensor]:
        """Returns images uint8 [B, H, W, 3] and masks uint8 or int16 [B, H, W] of some pairs, on the device.

        chosen: numbers of pairs of this split, 0..n-1. The batch is copied as bytes, a quarter of its size as floats.
        """
        rows = self.indices[chosen]
        if self.read_features is not None:
            images = Features(chosen, np.zeros((len(chosen), 2), bool), self.read_features, device)
        else:
            images = torch.from_numpy(self.images[rows]).to(device)
        return images, torch.from_numpy(self.masks[rows]).to(device)

    def with_features(self, read_features: ReadFeatures) -> "Split":
        """Returns the same pairs with features instead of images."""
        return replace(self, read_features=read_features)

    def some(self, most: int) -> "Split":
        """Returns at most ``most`` pairs, evenly spaced and the same in every run. They have images, not features."""
        chosen = np.unique(np.linspace(0, len(self) - 1, min(most, len(self))).round().astype(int))
        names = tuple(self.names[i] for i in chosen)
        return replace(self, indices=self.indices[chosen], names=names, read_features=None)

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
    source_fingerprint: str
    """Hash of what the splits are drawn from. It is equal for all numbers of training images, and for all splits that
    ``split: by_seed`` draws."""
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
