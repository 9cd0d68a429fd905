"""Datasets: a file without a leading underscore is an entry with ``Config`` and ``build(config, transform, progress)
-> Data``. A ``Config`` whose masks hold classes has ``num_classes``; without it they hold objects.

Every image is decoded and resized once into a cache on disk that all trials of a machine map into memory.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

IGNORED = -1
"""Value of a mask's pixel that counts neither in the loss nor in the scores; such masks are int16."""


class DataError(Exception):
    """A dataset that cannot be used; ``errors`` has one line for each thing that is wrong."""

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
    """Some of a dataset's pairs, resized. ``images`` and ``masks`` belong to the whole set; ``indices`` select.

    With ``read_features`` a batch has ``Features`` instead of images (``bench.training.feature_cache``).
    """

    images: np.ndarray  # uint8 [N, H, W, 3]
    masks: np.ndarray  # uint8 [N, H, W], 0..255, soft where resizing made it so; or classes. int16 if some are IGNORED
    indices: np.ndarray  # int [n], ascending
    names: tuple[str, ...]  # of the n pairs
    read_ground_truth: Callable[
        [int], np.ndarray
    ]  # number of a pair in the whole set -> like masks, [H, W], original size
    read_features: ReadFeatures | None = None

    def __len__(self) -> int:
        return len(self.indices)

    def batch(self, chosen: np.ndarray, device: torch.device) -> tuple[Tensor | Features, Tensor]:
        """Images uint8 [B, H, W, 3] and masks uint8 or int16 [B, H, W] of some of the pairs 0..n-1, on the device.

        They travel as bytes, a quarter of what they are as floats.
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

    def ground_truth(self, i: int) -> np.ndarray:
        """The mask of pair ``i`` of this split at its original size [H, W]: above 128 is object; or classes. uint8, or
        int16 with IGNORED."""
        return self.read_ground_truth(int(self.indices[i]))


@dataclass(frozen=True)
class Data:
    """The three splits. ``train`` is learnt from, ``val`` is for whatever is chosen, ``test`` is scored once.

    A benchmark is scored on several test sets; ``test`` is the first of them.
    """

    train: Split
    val: Split
    test: Split
    fingerprint: str  # hash of the content of all pairs and of the way they are split
    notes: tuple[str, ...] = field(default=())  # what a user should know, e.g. files that are no images
    test_sets: dict[str, Split] = field(default_factory=dict)  # by name; empty where ``test`` is the only one
    set_fingerprints: dict[str, str] = field(default_factory=dict)  # of each set that the pairs come from
    changed: Callable[[], list[str]] = list  # a line for each pair whose files are no longer what was read
    almost_white: dict[str, list[str]] = field(default_factory=dict)  # by test set: pairs whose masks hold 129 to 254

    @property
    def tests(self) -> dict[str, Split]:
        """All test sets by name, in the order in which tables show them."""
        return self.test_sets or {"test": self.test}
