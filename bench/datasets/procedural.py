"""The embedded data: painted scenes of two tasks, salient objects and mirrors. Nothing to download.

A third task, ``materials``, has a class for every pixel: a smoke test of the multi-class path and evidence of nothing,
since the tiny encoder was pre-trained to name the materials of scenes of just this kind.
"""

from typing import Annotated, ClassVar, Literal

import numpy as np
from PIL import Image
from pydantic import Field, NonNegativeInt

from bench.config.settings import TransformConfig
from bench.datasets import Data, Split
from bench.datasets.core import cache, scenes
from bench.datasets.core.transforms import resize_image, resize_mask
from bench.system.progress import Progress, silent
from models.core.registry import Config as Base
from models.core.size import LARGEST_SIDE


def _materials(rng: np.random.Generator, side: int) -> tuple[np.ndarray, np.ndarray]:
    """A scene and the material of each pixel, an index into ``scenes.MATERIALS``."""
    image, targets = scenes.materials(rng, side)
    return image, targets[..., 0]


TASKS = {"salient": scenes.salient, "mirror": scenes.mirror, "materials": _materials}
MOST_SCENES = 100_000  # of a split: hours of painting
SMALLEST_MASK = 0.02  # of the image; a scene whose object is hidden any further is painted again


class Config(Base):
    embedded: ClassVar[bool] = True

    name: Literal["procedural"] = "procedural"
    task: Literal["salient", "mirror", "materials"] = "salient"
    """``salient``: which object stands out. ``mirror``: which frame shows the scene itself, flipped.
    ``materials``: which of the 8 materials each pixel is made of."""
    train: Annotated[int, Field(ge=1, le=MOST_SCENES)] = 256
    val: Annotated[int, Field(ge=0, le=MOST_SCENES)] = 32
    test: Annotated[int, Field(ge=1, le=MOST_SCENES)] = 100
    side: Annotated[int, Field(ge=1, le=LARGEST_SIDE)] = 96
    """Pixels that a scene is painted at; the ground truth has this size."""
    seed: NonNegativeInt = 0

    @property
    def num_classes(self) -> int:
        return len(scenes.MATERIALS) if self.task == "materials" else 1


def paint(config: Config, split: int, index: int) -> tuple[np.ndarray, np.ndarray]:
    """Scene ``index`` of a split (0 train, 1 val, 2 test): image uint8 [side, side, 3] and mask uint8 [side, side].

    Scenes depend on nothing but the seed, the split and the index, so a longer split only adds scenes.
    """
    rng = np.random.default_rng([scenes.VERSION, config.seed, split, index])
    while True:
        image, mask = TASKS[config.task](rng, config.side)
        if config.num_classes > 1 or (mask > 0).mean() >= SMALLEST_MASK:
            return image, mask


def build(config: Config, transform: TransformConfig, progress: Progress = silent) -> Data:
    """Paints, resizes and caches all scenes. Raises ``DataError``."""
    sizes = (config.train, config.val, config.test)
    numbers = [(split, index) for split, count in enumerate(sizes) for index in range(count)]

    def read(i: int) -> cache.Pair:
        image, mask = paint(config, *numbers[i])
        small = resize_mask(mask, transform.size, transform.mask_resize)
        return resize_image(Image.fromarray(image), transform.size), small, None

    identity = {**config.model_dump(), "scenes": scenes.VERSION}
    key = {**identity, "mask_resize": transform.mask_resize}
    notes: list[str] = []
    images, masks, _ = cache.resized_pairs(key, len(numbers), transform.size, read, progress, notes)

    def ground_truth(i: int) -> np.ndarray:
        if transform.size == config.side:  # resizing to the same size changes nothing
            return masks[i]
        return paint(config, *numbers[i])[1]

    bounds = np.cumsum((0, *sizes))
    splits = [
        Split(
            images,
            masks,
            np.arange(bounds[split], bounds[split + 1]),
            tuple(f"{config.task}-{name}-{i:04d}" for i in range(sizes[split])),
            ground_truth,
        )
        for split, name in enumerate(("train", "val", "test"))
    ]
    return Data(*splits, fingerprint=cache.digest(identity), notes=tuple(notes))
