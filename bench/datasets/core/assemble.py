"""From pairs of files to the splits of a dataset: split by a seed, read, resized and cached.

The way of an image: ``PairReader`` reads it, ``cache.resized_pairs`` keeps it, and a ``Split`` gives it out in batches.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple

import numpy as np
from pydantic import Field

from bench.config.settings import TransformConfig
from bench.datasets import Data, DataError, Split
from bench.datasets.core import cache
from bench.datasets.core.pair_reader import PairReader, PairSet
from bench.datasets.core.pairing import set_fingerprint
from bench.datasets.masks.mask import BINARY
from bench.datasets.masks.reading import Reading
from bench.system.progress import Progress
from bench.system.wording import some

TEST_FRACTION = 0.2
Fraction = Annotated[float, Field(ge=0, lt=1)]


def split(
    pool: list[PairSet],
    tests: list[PairSet],
    *,
    val: float,
    test: float | None = None,
    seed: int,
    train_images: int | None = None,
    where: str,
) -> list[np.ndarray]:
    """Splits pairs by a seed; returns the numbers of the train, val and test pairs, ascending.

    pool: the sets that are split; each share above zero gets at least one pair. tests: separate test sets, whose
    pairs follow those of the pool. train_images: number of training pairs that are kept, the first ones that were
    drawn; ``None`` keeps all. where: the place that an error names. Raises ``DataError``.
    """
    pairs, held_out = _pairs_in(pool), _pairs_in(tests)
    if held_out:
        test = 0.0
    elif test is None:
        test = TEST_FRACTION
    n_val, n_test = _count(val, pairs), _count(test, pairs)
    if n_val + n_test >= pairs:
        remedy = "Lower dataset.val" if held_out else "Lower dataset.val or dataset.test"
        line = f"{where}: {pairs} pairs cannot be split into train, {n_val} val and {n_test} test. {remedy}"
        raise DataError([line])
    if not n_test and not held_out:
        raise DataError(["dataset.test: 0 leaves nothing to score. Give a share or test_images and test_masks"])
    order = np.random.default_rng(seed).permutation(pairs)
    for_val, for_test, for_train = np.split(order, [n_val, n_val + n_test])
    if train_images is not None and train_images > len(for_train):
        there = f"{where} has {len(for_train)} training pairs"
        raise DataError([f"dataset.train_images: {train_images}, but {there}. At most {len(for_train)}, or all"])
    for_train = for_train[:train_images]
    if held_out:
        for_test = np.arange(pairs, pairs + held_out)
    return [np.sort(for_train), np.sort(for_val), np.sort(for_test)]


def _pairs_in(sets: list[PairSet]) -> int:
    return sum(len(each.pairs) for each in sets)


def _count(share: float, pairs: int) -> int:
    """Returns the number of pairs in a share, at least one if the share is above zero."""
    return max(1, round(share * pairs)) if share else 0


class _Rows(NamedTuple):
    """Numbers of the pairs, in the order of all sets."""

    of_set: dict[str, np.ndarray]
    train: np.ndarray
    val: np.ndarray
    tests: dict[str, np.ndarray]

    @property
    def splits(self) -> list[np.ndarray]:
        """Numbers of the pairs of each split: train, val and the test sets."""
        return [self.train, self.val, *self.tests.values()]


def assemble(
    pool: list[PairSet],
    tests: list[PairSet],
    splits: list[np.ndarray],
    transform: TransformConfig,
    notes: list[str],
    progress: Progress,
    *,
    redrawn: bool = False,
) -> Data:
    """Reads, resizes and caches the pairs of some splits.

    pool: the sets that train and val pairs are taken from. tests: the sets that are scored; without them the test pairs
    are taken from the pool, too. splits: numbers of the train, val and test pairs in the order of pool and tests
    (``split``); other pairs are not read. notes: gets what a user should know. redrawn: whether the split depends on the
    seed of a trial. Raises ``DataError``.
    """
    drawn_from = [_file_sizes(each) for each in pool]
    pool, tests, splits, whole = _used([*pool, *tests], len(pool), splits)
    sets = {each.name: each for each in (*pool, *tests)}
    rows = _rows(sets, tests, splits)
    reader = PairReader(list(sets.values()), transform)
    images, masks, facts = cache.resized_pairs(
        reader.cache_key(), len(reader.pairs), transform.size, reader.read, progress, notes, reader.mask_type
    )
    notes += _seen_twice(rows, reader)
    notes += _mask_notes(facts)
    if not any(facts[i]["object"] for i in rows.train):
        raise DataError([f"none of the {len(rows.train)} training masks holds an object: there is nothing to learn"])
    made = [Split(images, masks, chosen, reader.names(chosen), reader.ground_truth) for chosen in rows.splits]
    same_for_all = [*rows.tests.values()] if tests or not redrawn else []
    almost_white = {}
    for name, chosen in rows.tests.items():
        almost_white[name] = [reader.pairs[i].stem for i in chosen if facts[i]["almost_white"]]
    return Data(
        *made[:3],
        fingerprint=_fingerprint(rows.splits, reader),
        source_fingerprint=cache.digest([drawn_from, redrawn, _fingerprint(same_for_all, reader)]),
        notes=tuple(notes),
        test_sets=dict(zip(rows.tests, made[2:])),
        set_fingerprints={name: set_fingerprint(reader.contents_of(rows.of_set[name])) for name in whole},
        changed=reader.changed,
        almost_white=almost_white,
    )


def _used(
    sets: list[PairSet], pools: int, splits: list[np.ndarray]
) -> tuple[list[PairSet], list[PairSet], list[np.ndarray], list[str]]:
    """Leaves out the pairs that no split has.

    Returns the pool (the first ``pools`` sets), the test sets, the splits with the new numbers of their pairs, and the
    names of the sets of which every pair is used.
    """
    used = np.unique(np.concatenate(splits))
    kept, whole, first = [], [], 0
    for each in sets:
        chosen = used[(first <= used) & (used < first + len(each.pairs))] - first
        if len(chosen) == len(each.pairs):
            whole.append(each.name)
        kept.append(each._replace(pairs=[each.pairs[i] for i in chosen]))
        first += len(each.pairs)
    return kept[:pools], kept[pools:], [np.searchsorted(used, numbers) for numbers in splits], whole


def _file_sizes(of: PairSet) -> list[tuple[str, int, int]]:
    """Returns name and sizes in bytes of each pair, which identify a set whose files are not all read."""
    return [(pair.stem, pair.image.stat().st_size, pair.mask.stat().st_size) for pair in of.pairs]


def _rows(sets: Mapping[str, PairSet], tests: list[PairSet], splits: list[np.ndarray]) -> _Rows:
    of_set, first = {}, 0
    for name, each in sets.items():
        of_set[name] = np.arange(first, first + len(each.pairs))
        first += len(each.pairs)
    of_test = {each.name: of_set[each.name] for each in tests} or {"test": splits[2]}
    return _Rows(of_set, splits[0], splits[1], of_test)


def _fingerprint(splits: list[np.ndarray], reader: PairReader) -> str:
    """Returns 32 hex digits over the files of each split, and over the mask settings (object, ignored pixels, classes)."""
    content: list[Any] = [reader.contents_of(chosen) for chosen in splits]
    decided = [each.reading.mask_settings for each in reader.sets]
    if any(each != Reading().mask_settings for each in decided):
        content.append(decided)
    return cache.digest(content)


def _mask_notes(facts: list[dict[str, Any]]) -> list[str]:
    """Returns a line for each kind of mask whose values are not just 0 and 255."""
    kinds = Counter(fact["how"] for fact in facts)
    return [f"{count} of {len(facts)} masks: {how}" for how, count in kinds.most_common() if how != BINARY]


def _seen_twice(rows: _Rows, reader: PairReader) -> list[str]:
    """Returns a line for each test set that has image files of training pairs."""
    digests = reader.image_digests()
    trained = {digests[i] for i in rows.train}
    lines = []
    for name, chosen in rows.tests.items():
        stems = [reader.pairs[i].stem for i in chosen if digests[i] in trained]
        if stems:
            lines.append(f"{len(stems)} images of {name} are also trained on, byte for byte: {some(stems)}")
    return lines
