"""Benchmark sets and tasks by name, from ``catalogue.yaml``."""

from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, PositiveInt

from bench.config.settings import PROTOCOLS
from bench.datasets.masks.reading import Reading
from models.core.registry import Config

TaskName = Literal["salient", "mirror", "camouflage", "marine", "polyp"]
PATH = Path(__file__).parent / "catalogue.yaml"


class Layout(Config):
    """Two folders that hold a set in some distribution of it, below the folder where it was unpacked."""

    pack: str
    images: str
    masks: str
    only: str | None = None
    """Glob of the file names that belong to the set, if the folder holds other files, too."""
    shared_masks: bool = False
    """Whether the mask folder also holds the masks of other sets."""


class File(Config):
    """A file that can be downloaded."""

    url: Annotated[str, Field(pattern=r"^https?://")]
    digest: Annotated[str, Field(pattern=r"^(md5:[0-9a-f]{32}|sha256:[0-9a-f]{64})$")] | None = None
    """Checksum; ``None`` if the source publishes none."""


class Source(Config):
    """A web page that offers a set: ``files`` can be downloaded by the command, other files by a person only."""

    page: str
    access: Literal["open", "ask"] = "open"
    """Access to the page; ``ask``: a person has to ask for it."""
    files: list[File] = []
    how: str = ""


class BenchmarkSet(Config):
    """A set of image and mask pairs that papers train or test on."""

    task: TaskName
    role: Literal["train", "test"]
    pairs: PositiveInt | None
    """Number of pairs; ``None`` if no source states it."""
    counted: str
    paper: str
    terms: str
    folders: list[str]
    """Names of the set's folder, as in ``MSD/train``; the folders in it follow any of the conventions."""
    layouts: list[Layout] = []
    masks: Literal["auto", "grey"] = "auto"
    """``grey``: levels of the masks are the confidence of the annotators, and above 128 is object."""
    parts: list[str] = []
    """Sets that together are this one, if it has no folder of its own."""
    sources: list[Source]

    def reading(self, reading: Reading) -> Reading:
        """Returns ``reading`` with this set's own rule for masks, if ``reading`` has ``auto``."""
        return reading._replace(foreground=self.masks) if reading.foreground == "auto" else reading


class Variant(Config):
    """Another combination of training and test sets of a task."""

    train: list[str]
    test: list[str]


class Task(Config):
    """A task with its usual sets, protocol, metrics and training recipe."""

    train: list[str]
    test: list[str]
    variants: list[Variant] = []
    protocol: PROTOCOLS.name_field()
    metrics: list[str]
    """Metrics in the order of the papers' tables."""
    recipe: dict[Literal["transform", "train"], dict[str, Any]]
    recipe_source: str


class Catalogue(Config):
    """The content of ``catalogue.yaml``."""

    conventions: dict[str, list[str]]
    """Names of the image folder and of the mask folder, by the distribution that uses them."""
    sets: dict[str, BenchmarkSet]
    tasks: dict[TaskName, Task]

    def layouts(self, name: str) -> list[Layout]:
        """Returns all layouts of a set: its own first, then its folders by every convention."""
        known = self.sets[name]
        layouts = [*known.layouts]
        for folder in known.folders:
            for pack, (images, masks) in self.conventions.items():
                layouts.append(Layout(pack=f"as {pack}", images=f"{folder}/{images}", masks=f"{folder}/{masks}"))
        return layouts


@cache
def catalogue() -> Catalogue:
    """Reads ``catalogue.yaml`` once in a process."""
    return Catalogue.model_validate(yaml.safe_load(PATH.read_text(encoding="utf-8")))
