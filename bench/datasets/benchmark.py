"""The papers' benchmark: train on a task's training set, score on each of its test sets, wherever they were unpacked.

Names, counts and layouts are those of ``catalogue.yaml``; ``python -m bench.data check ROOT`` shows what is there.
"""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, model_validator

from bench.config.settings import TransformConfig
from bench.datasets import Data, DataError
from bench.datasets.core.catalogue import TaskName, catalogue
from bench.datasets.core.packs import Found, find
from bench.datasets.folder import Fraction, Pair, assemble, pairs_of, split
from bench.datasets.masks.reading import PairFiles
from bench.system.progress import Progress, silent
from models.core.paths import expanded
from models.core.registry import Missing, did_you_mean

Names = Annotated[list[str], Field(min_length=1)]


class Config(PairFiles):
    name: Literal["benchmark"] = "benchmark"
    task: TaskName = "salient"
    root: str = "data"
    """Folder that holds the sets, in any of their usual layouts."""
    train: Names | None = None
    """Names of the training sets, pooled; the task's by default."""
    test: Names | None = None
    """Names of the test sets in the order of the table; the task's by default."""
    val: Fraction = 0.0
    """Share of the training pairs that is held back. None, as upstream: nothing is chosen by it."""
    split_seed: NonNegativeInt = 0
    incomplete: Literal["error", "allow"] = "error"
    """A set with another number of pairs than the papers have gives other numbers than theirs."""
    single_value_masks: Literal["error", "allow"] = "allow"
    """Masks that are all background belong to the benchmark where they are in it."""

    @model_validator(mode="after")
    def _sets_are_known(self) -> "Config":
        known, named = catalogue().sets, [*(self.train or []), *(self.test or [])]
        for name in named:
            if name not in known:
                raise ValueError(f"no benchmark set '{name}'{did_you_mean(name, list(known))} See bench.data list")
            if named.count(name) > 1:
                raise ValueError(f"{name} stands here twice")
        return self

    def sets(self) -> tuple[list[str], list[str]]:
        """Names of the training and of the test sets."""
        task = catalogue().tasks[self.task]
        return self.train or task.train, self.test or task.test

    def missing(self) -> Iterator[Missing]:
        if not expanded(self.root).is_dir():
            remedy = "give the folder that holds the benchmark sets, as in dataset.root=DIR"
            yield Missing("data", "root", f"{expanded(self.root)} is no folder", remedy)
            return
        there = {found.name for found in find(expanded(self.root))}
        for name in (name for names in self.sets() for name in names):
            parts = catalogue().sets[name].parts
            if name not in there and not (parts and there.issuperset(parts)):
                what = f"{name} is nowhere under {self.root} in a known layout"
                get, look = f"python -m bench.data fetch {name}", f"bench.data check {self.root}"
                remedy = f"{get} says where to get it; {look}, what is there"
                yield Missing("data", "root", what, remedy)


def build(config: Config, transform: TransformConfig, progress: Progress = silent) -> Data:
    """Raises ``DataError`` with everything that is wrong with the sets and their files."""
    found, notes, errors = find(expanded(config.root)), [], []
    pool, tests = ({name: _pairs(name, config, found, notes, errors) for name in names} for names in config.sets())
    if errors:
        raise DataError(errors)
    counts = [sum(map(len, sets.values())) for sets in (pool, tests)]
    splits = split(*counts, val=config.val, seed=config.split_seed, where=", ".join(pool))
    readings = {name: catalogue().sets[name].reading(config.reading()) for name in (*pool, *tests)}
    return assemble(pool, tests, splits, readings, transform, notes, progress)


def _pairs(name: str, config: Config, found: list[Found], notes: list[str], errors: list[str]) -> list[Pair]:
    """The pairs of a set, or of the sets that make it up; what is wrong goes into ``errors``."""
    known, places = catalogue().sets[name], [f for f in found if f.name == name]
    if not places and known.parts:
        return [pair for part in known.parts for pair in _pairs(part, config, found, notes, errors)]
    if len(places) != 1:
        where = " and ".join(str(place.images) for place in places) or "nowhere"
        errors.append(f"{name}: under {config.root} it is {where}. It must be there once: narrow dataset.root")
        return []
    (place,) = places
    try:
        pairs = pairs_of(str(place.images), str(place.masks), notes, only=place.only, shared_masks=place.shared_masks)
    except DataError as error:
        errors += error.errors
        return []
    if known.pairs not in (None, len(pairs)):
        line = f"{name}: {len(pairs):,} pairs in {place.images}, but the papers' set has {known.pairs:,}"
        if config.incomplete == "error":
            errors.append(f"{line} ({known.counted}). Get all of it, or set dataset.incomplete=allow")
        else:
            notes.append(f"{line}: scores are not comparable with theirs")
    return pairs
