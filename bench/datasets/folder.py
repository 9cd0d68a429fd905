"""A folder of images and a folder of masks, paired by the stem of the file name and split by a seed.

``dataset.images=DIR dataset.masks=DIR`` is all that is needed. Two more folders may hold a separate test set; without
them the test split is taken from the pairs. With ``num_classes`` K the masks hold the class of each pixel, 0 to K - 1:
as grey values, as the numbers of a palette, or as ``classes`` maps values and colours.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, model_validator

from bench.config.settings import TransformConfig
from bench.datasets import Data
from bench.datasets.core.assemble import Fraction, assemble, split
from bench.datasets.core.pair_reader import PairSet
from bench.datasets.core.pairing import Matching, pairs_of
from bench.datasets.masks.reading import PairFiles, Reading, Value
from bench.system.progress import Progress, silent
from models.core.paths import expanded
from models.core.registry import Missing


class Config(PairFiles):
    name: Literal["folder"] = "folder"
    images: str
    masks: str
    test_images: str | None = None
    test_masks: str | None = None
    mask_suffix: Annotated[str, Field(pattern=r"^[^/\\]*$")] = ""
    """Ending of a mask's name that its image's name lacks, as ``_mask`` in ``a.jpg`` and ``a_mask.png``."""
    recursive: bool = False
    """Whether folders within the folders are read. Pairs then have the same path below their folders."""
    val: Fraction = 0.1
    """Share of the pairs that is held back for validation."""
    test: Fraction | None = None
    """Share of the pairs that is held back for the scores; 0.2 unless test folders are given."""
    split_seed: NonNegativeInt = 0
    """The split stays the same for all seeds of a trial."""
    num_classes: Annotated[int, Field(ge=1, le=256)] = 1
    """1: masks of objects. Above 1: masks of class numbers; an image may have only one of the classes."""
    classes: dict[Value, NonNegativeInt] = {}
    """Class of each value or colour, for masks of classes that do not hold the class numbers."""

    @model_validator(mode="after")
    def _test_set_is_whole(self) -> "Config":
        if (self.test_images is None) != (self.test_masks is None):
            raise ValueError("test_images and test_masks go together")
        if self.test_images is not None and self.test is not None:
            raise ValueError("test is a share of the pairs, but test_images is a test set of its own. Leave one out")
        return self

    @model_validator(mode="after")
    def _masks_are_of_one_kind(self) -> "Config":
        if self.num_classes > 1 and self.foreground != "auto":
            raise ValueError("foreground is for masks of objects, and num_classes is above 1. Use classes instead")
        if self.classes and max(self.classes.values()) >= self.num_classes:
            beyond, last = max(self.classes.values()), self.num_classes - 1
            raise ValueError(
                f"classes names class {beyond}. With num_classes={self.num_classes} they go from 0 to {last}"
            )
        return self

    def reading(self) -> Reading:
        return super().reading()._replace(num_classes=self.num_classes, classes=tuple(self.classes.items()))

    def draws(self) -> bool:
        return self.test_images is None or self.val > 0 or self.train_images is not None

    def folders(self) -> dict[str, Path]:
        """Returns the folders that have to exist, by the field that names them."""
        named = {f: getattr(self, f) for f in ("images", "masks", "test_images", "test_masks")}
        return {field: expanded(path) for field, path in named.items() if path is not None}

    def missing(self) -> Iterator[Missing]:
        for field, path in self.folders().items():
            if not path.is_dir():
                what = "is no folder" if path.exists() else "does not exist"
                yield Missing("data", field, f"{path} {what}", self.how_to_get(field))

    def how_to_get(self, field: str) -> str:
        """Returns the remedy for the missing folder of a field."""
        return f"give the folder, as in dataset.{field}=DIR"


def build(config: Config, transform: TransformConfig, progress: Progress = silent) -> Data:
    """Raises ``DataError`` with all errors in the folders, in their files and in the split."""
    notes: list[str] = []
    folders = config.folders()
    matching = Matching(mask_suffix=config.mask_suffix, recursive=config.recursive)
    pool = [PairSet("pairs", pairs_of(folders["images"], folders["masks"], notes, matching), config.reading())]
    tests = []
    if config.test_images:
        test_pairs = pairs_of(folders["test_images"], folders["test_masks"], notes, matching)
        tests.append(PairSet("test", test_pairs, config.reading()))
    shares = {"val": config.val, "test": config.test, "seed": config.split_seed, "train_images": config.train_images}
    splits = split(pool, tests, **shares, where=config.images)
    return assemble(pool, tests, splits, transform, notes, progress, redrawn=config.split == "by_seed")
