"""Checks every file of the sets below a folder: unusable files, kinds of masks, and images that occur twice."""

import hashlib
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from bench.datasets import DataError
from bench.datasets.core.catalogue import catalogue
from bench.datasets.core.find_sets import Found, find
from bench.datasets.core.images import read_pair
from bench.datasets.core.pairing import Matching, Pair, content_of, matched, set_fingerprint
from bench.datasets.masks.mask import BINARY, to_mask
from bench.datasets.masks.reading import Reading
from bench.system.machine import cores
from bench.system.progress import Progress, silent
from bench.system.wording import some


@dataclass
class SetReport:
    """The result of checking one set."""

    name: str
    known: bool
    role: str | None
    pack: str
    images: str
    masks: str
    pairs: int
    expected: int | None
    fingerprint: str
    problems: list[str] = field(default_factory=list)
    """Faults without whose repair scores are not comparable."""
    notes: list[str] = field(default_factory=list)
    mask_kinds: dict[str, int] = field(default_factory=dict)
    """Number of masks by kind."""


class _PairReport(NamedTuple):
    """The result of checking one pair."""

    problems: list[str]
    kind: str | None
    single: str | None
    """``Mask.single``."""
    pixels: str | None
    """Hash of the decoded image."""


class _Member(NamedTuple):
    """A pair, by the number of its set and its stem."""

    set: int
    stem: str


def check(root: Path, reading: Reading = Reading(), progress: Progress = silent) -> list[SetReport]:
    """Reports on every set below ``root``, known sets first. Raises ``OSError`` for folders that cannot be read."""
    reports, places = [], defaultdict(list)
    for found in find(root):
        report, pairs = _report(found, reading, progress)
        for stem, pair in pairs:
            if pair.pixels:
                places[pair.pixels].append(_Member(len(reports), stem))
        reports.append(report)
    _note_duplicates(reports, list(places.values()))
    return reports


def as_json(reports: list[SetReport]) -> list[dict[str, Any]]:
    """Returns the reports as JSON values."""
    return [dict(vars(report)) for report in reports]


def _report(found: Found, reading: Reading, progress: Progress) -> tuple[SetReport, list[tuple[str, _PairReport]]]:
    """Returns the report on a set, and that on each pair with its stem."""
    known = catalogue().sets.get(found.name) if found.name else None
    if known:
        reading = known.reading(reading)
    notes: list[str] = []
    problems: list[str] = []
    matching = Matching(only=found.only, shared_masks=found.shared_masks)
    pairs = matched(found.images, found.masks, notes, problems, matching)
    with ThreadPoolExecutor(cores()) as pool:
        checked = list(progress(pool.map(lambda pair: _check_pair(pair, reading), pairs), len(pairs)))
    for pair_report in checked:
        problems += pair_report.problems
    expected = known.pairs if known else None
    if expected not in (None, len(pairs)):
        problems.insert(0, f"{len(pairs):,} pairs, but {expected:,} are expected ({known.counted})")
    for what in ("background", "object"):
        stems = [pair.stem for pair, one in zip(pairs, checked) if one.single == what]
        if stems:
            notes.append(f"{len(stems)} masks are all {what}: {some(stems)}")
    report = SetReport(
        name=found.name or str(found.images.parent),
        known=known is not None,
        role=known.role if known else None,
        pack=found.pack,
        images=str(found.images),
        masks=str(found.masks),
        pairs=len(pairs),
        expected=expected,
        fingerprint=set_fingerprint([content_of(pair) for pair in pairs]),
        problems=problems,
        notes=notes,
        mask_kinds=dict(Counter(one.kind for one in checked if one.kind).most_common()),
    )
    for kind, count in report.mask_kinds.items():
        if kind != BINARY:
            notes.append(f"{count} of {len(pairs)} masks are not binary: {kind}")
    return report, [(pair.stem, one) for pair, one in zip(pairs, checked)]


def _check_pair(pair: Pair, reading: Reading) -> _PairReport:
    try:
        image, drawn = read_pair(pair.image, pair.mask, reading.exif)
        mask = to_mask(drawn, pair.mask, reading)
    except DataError as error:
        return _PairReport(error.errors, None, None, None)
    pixels = hashlib.blake2b(repr(image.size).encode() + image.tobytes(), digest_size=16).hexdigest()
    problems = []
    height, width = mask.pixels.shape
    if image.size != (width, height):
        sizes = f"{image.width} x {image.height} and {width} x {height}"
        problems = [f"{pair.mask}: image and mask differ in size, {sizes}"]
    return _PairReport(problems, mask.how, mask.single, pixels)


def _note_duplicates(reports: list[SetReport], groups: list[list[_Member]]) -> None:
    """Adds lines on images with the same pixels: within a set, and in two sets, a problem if one is for training."""
    within: dict[int, list[str]] = defaultdict(list)
    between: dict[tuple[int, int], list[str]] = defaultdict(list)
    for members in groups:
        by_set: dict[int, list[str]] = defaultdict(list)
        for member in members:
            by_set[member.set].append(member.stem)
        for number, stems in by_set.items():
            if len(stems) > 1:
                within[number].append(" = ".join(stems))
        numbers = sorted(by_set)
        for i, a in enumerate(numbers):
            for b in numbers[i + 1 :]:
                between[a, b].append(f"{by_set[a][0]} = {by_set[b][0]}")
    for number, same in sorted(within.items()):
        reports[number].notes.append(f"{len(same)} images are there more than once: {some(same)}")
    for (a, b), same in sorted(between.items()):
        first, second = reports[a], reports[b]
        if first.name == second.name:
            continue  # the same set, unpacked twice
        line = f"{len(same)} images of {first.name} are also in {second.name}, pixel for pixel: {some(same)}"
        leak = {first.role, second.role} == {"train", "test"}
        (second.problems if leak else second.notes).append(f"{line}. Training has seen them" if leak else line)
