"""The papers' benchmark: training on a task's training set, scores on each of its test sets, in any known layout.

Names, counts and layouts are those of ``catalogue.yaml``. ``python -m bench.data check ROOT`` lists the sets below a
folder.
"""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, model_validator

from bench.config.settings import TransformConfig
from bench.datasets import Data, DataError
from bench.datasets.core.assemble import Fraction, assemble, split
from bench.datasets.core.catalogue import TaskName, catalogue
from bench.datasets.core.find_sets import Found, find
from bench.datasets.core.pair_reader import PairSet
from bench.datasets.core.pairing import Matching, Pair, pairs_of
from bench.datasets.masks.reading import PairFiles
from bench.system.progress import Progress, silent
from models.core.paths import expanded
from models.core.registry import Missing, did_you_mean

Names = Annotated[list[str], Field(min_length=1)]


class Config(PairFiles):
    name: Literal["benchmark"] = "benchmark"
    task: TaskName = "salient"
    root: str = "data"
    """Folder with the sets, in any of their usual layouts."""
    train: Names | None = None
    """Names of the training sets, pooled; the task's by default."""
    test: Names | None = None
    """Names of the test sets in the order of the table; the task's by default."""
    val: Fraction = 0.0
    """Share of the training pairs that is held back for validation; upstream holds none back."""
    split_seed: NonNegativeInt = 0
    incomplete: Literal["error", "allow"] = "error"
    """``error`` refuses a set with another number of pairs than in the papers: its scores are not comparable."""
    single_value_masks: Literal["error", "allow"] = "allow"
    """``allow``: some benchmark sets contain masks that are all background."""

    @model_validator(mode="after")
    def _sets_are_known(self) -> "Config":
        known, named = catalogue().sets, [*(self.train or []), *(self.test or [])]
        for name in named:
            if name not in known:
                raise ValueError(f"no benchmark set '{name}'{did_you_mean(name, list(known))} See bench.data list")
            if named.count(name) > 1:
                raise ValueError(f"{name} stands here twice")
        return self

    def draws(self) -> bool:
        return self.val > 0 or self.train_images is not None

    def sets(self) -> tuple[list[str], list[str]]:
        """Returns the names of the training sets and of the test sets."""
        task = catalogue().tasks[self.task]
        return self.train or task.train, self.test or task.test

    def missing(self) -> Iterator[Missing]:
        if not expanded(self.root).is_dir():
            remedy = "give the folder that holds the benchmark sets, as in dataset.root=DIR"
            yield Missing("data", "root", f"{expanded(self.root)} is no folder", remedy)
            return
        there = {found.name for found in find(expanded(self.root))}
        train, test = self.sets()
        for name in (*train, *test):
            parts = catalogue().sets[name].parts
            if name not in there and not (parts and there.issuperset(parts)):
                what = f"{name} is nowhere under {self.root} in a known layout"
                get, check = f"python -m bench.data fetch {name}", f"bench.data check {self.root}"
                remedy = f"{get} prints its sources; {check} lists the sets that are there"
                yield Missing("data", "root", what, remedy)


def build(config: Config, transform: TransformConfig, progress: Progress = silent) -> Data:
    """Raises ``DataError`` with all errors in the sets and in their files."""
    found = find(expanded(config.root))
    notes: list[str] = []
    errors: list[str] = []
    train_names, test_names = config.sets()
    pool = [_pair_set(name, config, found, notes, errors) for name in train_names]
    tests = [_pair_set(name, config, found, notes, errors) for name in test_names]
    if errors:
        raise DataError(errors)
    where = ", ".join(each.name for each in pool)
    shares = {"val": config.val, "seed": config.split_seed, "train_images": config.train_images}
    splits = split(pool, tests, **shares, where=where)
    return assemble(pool, tests, splits, transform, notes, progress, redrawn=config.split == "by_seed")


def _pair_set(name: str, config: Config, found: list[Found], notes: list[str], errors: list[str]) -> PairSet:
    reading = catalogue().sets[name].reading(config.reading())
    return PairSet(name, _pairs(name, config, found, notes, errors), reading)


def _pairs(name: str, config: Config, found: list[Found], notes: list[str], errors: list[str]) -> list[Pair]:
    """Returns the pairs of a set, or of its parts; ``errors`` gets a line for each fault."""
    known, places = catalogue().sets[name], [f for f in found if f.name == name]
    if not places and known.parts:
        pairs = []
        for part in known.parts:
            pairs += _pairs(part, config, found, notes, errors)
        return pairs
    if len(places) != 1:
        where = " and ".join(str(place.images) for place in places) or "nowhere"
        errors.append(f"{name}: under {config.root} it is {where}. It must be there once: narrow dataset.root")
        return []
    (place,) = places
    try:
        matching = Matching(only=place.only, shared_masks=place.shared_masks)
        pairs = pairs_of(place.images, place.masks, notes, matching)
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
