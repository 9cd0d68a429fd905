"""The benchmark sets and tasks that are known by name, as ``catalogue.yaml`` states them."""

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
    """Where some pack keeps a set: two folders below wherever it was unpacked."""

    pack: str
    images: str
    masks: str
    only: str | None = None
    """Glob of the file names that belong to the set, where the folder holds more."""
    shared_masks: bool = False
    """The mask folder also holds the masks of other sets."""


class File(Config):
    url: Annotated[str, Field(pattern=r"^https?://")]
    digest: Annotated[str, Field(pattern=r"^(md5:[0-9a-f]{32}|sha256:[0-9a-f]{64})$")] | None = None
    """``None`` where the source publishes none."""


class Source(Config):
    """A place that people get a set from: ``files`` can be downloaded, the rest takes a person."""

    page: str
    access: Literal["open", "ask"] = "open"
    """``ask``: a person has to ask for access."""
    files: list[File] = []
    how: str = ""


class BenchmarkSet(Config):
    task: TaskName
    role: Literal["train", "test"]
    pairs: PositiveInt | None
    """``None`` where no source supports a count."""
    counted: str
    paper: str
    terms: str
    folders: list[str]
    """The set's own folder, in any of the conventions; ``MSD/train`` is a folder ``train`` in a folder ``MSD``."""
    layouts: list[Layout] = []
    masks: Literal["auto", "grey"] = "auto"
    """``grey``: levels of the masks mean how sure their authors were, and above 128 is object."""
    parts: list[str] = []
    """The sets that together make this one, if it is not there as such."""
    sources: list[Source]

    def reading(self, reading: Reading) -> Reading:
        """How this set's masks are read where ``reading`` leaves it to the set."""
        return reading._replace(foreground=self.masks) if reading.foreground == "auto" else reading


class Variant(Config):
    train: list[str]
    test: list[str]


class Task(Config):
    train: list[str]
    test: list[str]
    variants: list[Variant] = []
    """Other pairs of training and test sets of the same task."""
    protocol: PROTOCOLS.name_field()
    metrics: list[str]
    """In the order of the papers' tables."""
    recipe: dict[Literal["transform", "train"], dict[str, Any]]
    recipe_source: str


class Catalogue(Config):
    conventions: dict[str, list[str]]
    sets: dict[str, BenchmarkSet]
    tasks: dict[TaskName, Task]

    def layouts(self, name: str) -> list[Layout]:
        """All places that a set may lie in: the packs' own first, then its folder in every convention."""
        known = self.sets[name]
        usual = [
            Layout(pack=f"as {pack}", images=f"{folder}/{images}", masks=f"{folder}/{masks}")
            for folder in known.folders
            for pack, (images, masks) in self.conventions.items()
        ]
        return [*known.layouts, *usual]


@cache
def catalogue() -> Catalogue:
    return Catalogue.model_validate(yaml.safe_load(PATH.read_text(encoding="utf-8")))
