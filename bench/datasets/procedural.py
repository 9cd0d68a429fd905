"""The embedded data: painted scenes of two tasks, salient objects and mirrors. Nothing is downloaded.

A third task, ``materials``, has a class for every pixel. It tests the multi-class path only: its scores prove nothing,
because the tiny encoder was pre-trained to name the materials of such scenes.
"""

from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from PIL import Image
from pydantic import Field, NonNegativeInt, model_validator

from bench.config.settings import TransformConfig
from bench.datasets import Data, Split
from bench.datasets.core import cache
from bench.datasets.core.draw import Draw
from bench.datasets.core.transforms import resize_image, resize_mask
from bench.datasets.scenes import tasks
from bench.datasets.scenes.surfaces import MATERIALS
from bench.datasets.scenes.tasks import VERSION
from bench.system.progress import Progress, silent
from models.core.size import LARGEST_SIDE


def _materials(rng: np.random.Generator, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Paints a scene; returns it and the material of each pixel, an index into ``MATERIALS``."""
    image, targets = tasks.materials(rng, side)
    return image, targets[..., 0]


TASKS = {"salient": tasks.salient, "mirror": tasks.mirror, "materials": _materials}
MOST_SCENES = 100_000
"""Scenes of a split at most; more would take many hours to paint."""
SMALLEST_MASK = 0.02
"""Share of the image that an object covers at least; a scene with less of it in sight is painted again."""


class Config(Draw):
    embedded: ClassVar[bool] = True
    seed_field: ClassVar[str] = "seed"

    name: Literal["procedural"] = "procedural"
    task: Literal["salient", "mirror", "materials"] = "salient"
    """``salient``: the object that stands out. ``mirror``: the frame that shows the scene itself, flipped.
    ``materials``: the material of each pixel, one of 8."""
    train: Annotated[int, Field(ge=1, le=MOST_SCENES)] = 256
    val: Annotated[int, Field(ge=0, le=MOST_SCENES)] = 32
    test: Annotated[int, Field(ge=1, le=MOST_SCENES)] = 100
    side: Annotated[int, Field(ge=1, le=LARGEST_SIDE)] = 96
    """Side of a painted scene and of its ground truth, in pixels."""
    seed: NonNegativeInt = 0

    @model_validator(mode="after")
    def _has_the_training_images(self) -> "Config":
        if self.train_images is not None and self.train_images > self.train:
            raise ValueError(
                f"train_images is {self.train_images}, but there are {self.train} training scenes (train). At most "
                f"{self.train}, or all"
            )
        return self

    @property
    def num_classes(self) -> int:
        return len(MATERIALS) if self.task == "materials" else 1

    def identity(self) -> dict[str, Any]:
        """Returns everything that decides the scenes. The first training scenes are those of a smaller ``train``."""
        known = self.model_dump(exclude={"train_images", "split"})
        return {**known, "train": self.train_images or self.train, "scenes": VERSION}

    def source(self) -> dict[str, Any]:
        """Returns the settings that all numbers of training images and all seeds of a trial have in common."""
        known = {**self.identity(), "train": self.train, "split": self.split}
        return known if self.split == "fixed" else {**known, "seed": None}


def paint(config: Config, split: int, index: int) -> tuple[np.ndarray, np.ndarray]:
    """Paints scene ``index`` of a split (0 train, 1 val, 2 test): image uint8 [side, side, 3], mask uint8 [side, side].

    A scene depends on the seed, the split and the index only, so a longer split has the same first scenes.
    """
    rng = np.random.default_rng([VERSION, config.seed, split, index])
    while True:
        image, mask = TASKS[config.task](rng, config.side)
        if config.num_classes > 1 or (mask > 0).mean() >= SMALLEST_MASK:
            return image, mask


class PaintedPairs:
    """Paints the pairs of a configuration, each by its number in the whole set."""

    def __init__(self, config: Config, transform: TransformConfig) -> None:
        self.config, self.transform = config, transform
        self.counts = {"train": config.train_images or config.train, "val": config.val, "test": config.test}
        """Pairs of each split."""
        self.numbers: list[tuple[int, int]] = []
        """Split and index within the split of each pair."""
        for split, count in enumerate(self.counts.values()):
            self.numbers += [(split, index) for index in range(count)]

    def read(self, i: int) -> cache.Pair:
        """Returns the image and the mask of pair ``i``, resized."""
        image, mask = paint(self.config, *self.numbers[i])
        small = resize_mask(mask, self.transform.size, self.transform.mask_resize)
        return resize_image(Image.fromarray(image), self.transform.size), small, None

    def ground_truth(self, i: int) -> np.ndarray:
        """Returns the mask of pair ``i`` as it was painted."""
        return paint(self.config, *self.numbers[i])[1]


def build(config: Config, transform: TransformConfig, progress: Progress = silent) -> Data:
    """Paints, resizes and caches all scenes. Raises ``DataError``."""
    pairs = PaintedPairs(config, transform)
    key = {**config.identity(), "mask_resize": transform.mask_resize}
    notes: list[str] = []
    images, masks, _ = cache.resized_pairs(key, len(pairs.numbers), transform.size, pairs.read, progress, notes)
    # resizing to the same size changes nothing
    ground_truth = masks.__getitem__ if transform.size == config.side else pairs.ground_truth
    # scenes of several seeds are different images of one table
    drawn = f"{config.task}-seed{config.seed}" if config.split == "by_seed" else config.task
    splits, first = [], 0
    for name, count in pairs.counts.items():
        names = tuple(f"{drawn}-{name}-{i:04d}" for i in range(count))
        splits.append(Split(images, masks, np.arange(first, first + count), names, ground_truth))
        first += count
    fingerprints = cache.digest(config.identity()), cache.digest(config.source())
    return Data(*splits, *fingerprints, notes=tuple(notes))
