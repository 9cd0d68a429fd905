"""A folder of images and a folder of masks, paired by the stem of the file name and split by a seed.

``dataset.images=DIR dataset.masks=DIR`` is all that it takes. A separate test set may be given by two more folders;
otherwise the test split is taken from the pairs. With ``num_classes`` K the masks hold the class of each pixel, 0 to
K - 1, as grey values or as the numbers (not the colours) of a palette.
"""

import hashlib
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import numpy as np
from PIL import Image
from PIL import __version__ as PILLOW
from pydantic import Field, NonNegativeInt, model_validator

from bench.datasets import Data, DataError, Progress, Split, _cache, silent, some
from bench.datasets._images import EXTENSIONS, OBJECT, Rule, read_mask, read_pair, to_class_numbers, to_mask
from bench.transforms import TransformConfig, resize_image, resize_mask
from models._paths import expanded
from models._registry import Config as Base
from models._registry import Missing

LITTER = {"thumbs.db", "desktop.ini"}  # left behind by file browsers
TEST_FRACTION = 0.2
Fraction = Annotated[float, Field(ge=0, lt=1)]


class Config(Base):
    name: Literal["folder"] = "folder"
    images: str
    masks: str
    test_images: str | None = None
    test_masks: str | None = None
    val: Fraction = 0.1
    """Share of the pairs that is held back for whatever is chosen."""
    test: Fraction | None = None
    """Share of the pairs that is held back for the scores; 0.2 unless test folders are given."""
    split_seed: NonNegativeInt = 0
    """The split stays the same for all seeds of a trial."""
    single_value_masks: Literal["error", "allow"] = "error"
    """A mask that is all object or all background is usually a mistake. ``allow`` where it is meant."""
    num_classes: Annotated[int, Field(ge=1, le=256)] = 1
    """1: masks of objects. Above 1: masks of class numbers, of which an image may well have only one."""
    exif: Rule = "auto"
    """Which way up a pair is read: as viewers show the files, as they are stored, or as their sizes say."""

    @model_validator(mode="after")
    def _test_set_is_whole(self) -> "Config":
        if (self.test_images is None) != (self.test_masks is None):
            raise ValueError("test_images and test_masks go together")
        if self.test_images is not None and self.test is not None:
            raise ValueError("test is a share of the pairs, but test_images is a test set of its own. Leave one out")
        return self

    def folders(self) -> dict[str, Path]:
        """The folders that have to exist, by the field that names them."""
        named = {f: getattr(self, f) for f in ("images", "masks", "test_images", "test_masks")}
        return {field: expanded(path) for field, path in named.items() if path is not None}

    def missing(self) -> Iterator[Missing]:
        for field, path in self.folders().items():
            if not path.is_dir():
                what = "is no folder" if path.exists() else "does not exist"
                yield Missing("data", field, f"{path} {what}", self.how_to_get(field))

    def how_to_get(self, field: str) -> str:
        return f"give the folder, as in dataset.{field}=DIR"


class Pair(NamedTuple):
    stem: str
    image: Path
    mask: Path


class Reading(NamedTuple):
    """How files become pairs; a part of the cache's key."""

    single_value_masks: Literal["error", "allow"]
    exif: Rule
    num_classes: int = 1


def build(config: Config, transform: TransformConfig, progress: Progress = silent) -> Data:
    """Raises ``DataError`` with everything that is wrong with the folders, their files and the split."""
    notes: list[str] = []
    places = {field: str(path) for field, path in config.folders().items()}
    pool = pairs_of(places["images"], places["masks"], notes)
    tests = {"test": pairs_of(places["test_images"], places["test_masks"], notes)} if config.test_images else {}
    shares = {"val": config.val, "test": config.test, "seed": config.split_seed}
    splits = split(len(pool), sum(map(len, tests.values())), **shares, where=config.images)
    reading = Reading(config.single_value_masks, config.exif, config.num_classes)
    return assemble({"pairs": pool}, tests, splits, reading, transform, notes, progress)


def assemble(
    pool: Mapping[str, list[Pair]],
    tests: Mapping[str, list[Pair]],
    splits: list[np.ndarray],
    reading: Reading,
    transform: TransformConfig,
    notes: list[str],
    progress: Progress,
) -> Data:
    """Reads, resizes and caches sets of pairs that were found.

    pool, tests: by the name of the set; splits: numbers of the train and val pairs, and of the test pairs of a pool
    without tests of its own, in the order of pool and tests. Raises ``DataError``.
    """
    sets = {**pool, **tests}
    pairs = [pair for each in sets.values() for pair in each]
    stamps = [_stamp(path) for pair in pairs for path in pair[1:]]
    contents = _cache.remembered({"contents": stamps}, lambda: [content_of(pair) for pair in pairs])

    def read(i: int) -> tuple[np.ndarray, np.ndarray]:
        image, mask = _open_pair(pairs[i], reading)
        return resize_image(image, transform.size), resize_mask(mask, transform.size, transform.mask_resize)

    files = [content.partition("/")[2] for content in contents]
    key = {"files": files, "mask_resize": transform.mask_resize, **reading._asdict(), "pillow": PILLOW}
    images, masks = _cache.resized_pairs(key, len(pairs), transform.size, read, progress, notes)

    def ground_truth(i: int) -> np.ndarray:
        return np.asarray(_open_mask(pairs[i], reading))

    def changed() -> list[str]:
        now = [_stamp_if_there(path) for pair in pairs for path in pair[1:]]
        moved = [i for i in range(len(pairs)) if now[2 * i : 2 * i + 2] != stamps[2 * i : 2 * i + 2]]
        return [f"{pairs[i].image} or its mask has changed since" for i in moved if content_of(pairs[i]) != contents[i]]

    bounds = np.cumsum([0, *map(len, sets.values())])
    ranges = {name: np.arange(low, high) for name, low, high in zip(sets, bounds, bounds[1:])}
    test_ranges = {name: ranges[name] for name in tests} or {"test": splits[2]}
    chosen = [*splits[:2], *test_ranges.values()]
    made = [Split(images, masks, rows, tuple(pairs[i].stem for i in rows), ground_truth) for rows in chosen]
    notes += _seen_twice(splits[0], test_ranges, pairs, files)
    return Data(
        *made[:3],
        fingerprint=_cache.digest([[contents[i] for i in rows] for rows in chosen]),
        notes=tuple(notes),
        test_sets=dict(zip(test_ranges, made[2:])),
        set_fingerprints={name: set_fingerprint([contents[i] for i in rows]) for name, rows in ranges.items()},
        changed=changed,
    )


def set_fingerprint(contents: list[str]) -> str:
    """32 hex digits over the names and bytes of a set's pairs, wherever they lie; ``bench.data check`` prints it."""
    return _cache.digest(sorted(contents))


def _seen_twice(train: np.ndarray, tests: Mapping[str, np.ndarray], pairs: list[Pair], files: list[str]) -> list[str]:
    """A line for each test set that shares image files with the training pairs."""
    images = [file.partition("/")[0] for file in files]
    learnt = {images[i] for i in train}
    shared = {name: [pairs[i].stem for i in rows if images[i] in learnt] for name, rows in tests.items()}
    return [
        f"{len(stems)} images of {name} are also trained on, byte for byte: {some(stems)}"
        for name, stems in shared.items()
        if stems
    ]


def pictures(folder: Path, only: str | None = None) -> tuple[list[Path], list[str]]:
    """The image files of a folder, and the names of whatever else lies there and is not a file browser's litter.

    only: glob of the file names that count.
    """
    files = [f for f in folder.iterdir() if not f.name.startswith(".") and f.name.lower() not in LITTER]
    files = [f for f in files if only is None or fnmatchcase(f.name, only)]
    found = [f for f in files if f.is_file() and f.suffix.lower() in EXTENSIONS]
    return found, sorted({f.name for f in files} - {f.name for f in found})


def pairs_of(
    images: str, masks: str, notes: list[str], *, only: str | None = None, shared_masks: bool = False
) -> list[Pair]:
    """``matched`` pairs, all of which are in order. Raises ``DataError`` with everything that is not."""
    errors: list[str] = []
    pairs = matched(images, masks, notes, errors, only=only, shared_masks=shared_masks)
    if errors:
        raise DataError(errors)
    return pairs


def matched(
    images: str,
    masks: str,
    notes: list[str],
    errors: list[str],
    *,
    only: str | None = None,
    shared_masks: bool = False,
) -> list[Pair]:
    """All pairs of two folders in the order of their stems, which are compared in Unicode's composed form (NFC).

    only: glob of the file names that count; shared_masks: masks without an image belong to another set. Files without
    a partner and stems that two files share go into ``errors``, files that are no images into ``notes``.
    """
    sides = []
    for folder in (Path(images), Path(masks)):
        found, others = pictures(folder, only)
        if others:
            notes.append(f"{folder}: not used, because they are no images: {some(others)}")
        twice = [stem for stem, n in Counter(map(_stem, found)).items() if n > 1]
        if twice:
            errors.append(f"{folder}: more than one file for {some(sorted(twice))}")
        if not found:
            errors.append(f"{folder}: holds no images. Known are {', '.join(sorted(EXTENSIONS))}")
        sides.append({_stem(f): f for f in found})
    of_image, of_mask = sides
    if of_image and of_mask:
        lone_images, lone_masks = sorted(of_image.keys() - of_mask.keys()), sorted(of_mask.keys() - of_image.keys())
        if lone_images:
            errors.append(f"{images}: {len(lone_images)} without a mask of the same stem: {some(lone_images)}")
        if lone_masks and not shared_masks:
            errors.append(f"{masks}: {len(lone_masks)} without an image of the same stem: {some(lone_masks)}")
    return [Pair(stem, of_image[stem], of_mask[stem]) for stem in sorted(of_image.keys() & of_mask.keys())]


def _stem(path: Path) -> str:
    """The file name without its last extension; macOS writes accents as two characters, others as one."""
    return unicodedata.normalize("NFC", path.stem)


def split(
    pool: int, held_out: int, *, val: float, test: float | None = None, seed: int, where: str
) -> list[np.ndarray]:
    """Numbers of the train, val and test pairs, ascending; a share above zero gets at least one pair.

    held_out: number of test pairs that follow those of the pool, if it has a test set of its own. Raises ``DataError``.
    """
    fraction = 0.0 if held_out else TEST_FRACTION if test is None else test
    n_val, n_test = (max(1, round(share * pool)) if share else 0 for share in (val, fraction))
    if n_val + n_test >= pool:
        raise DataError([f"{where}: {pool} pairs cannot be split into train, {n_val} val and {n_test} test"])
    if not n_test and not held_out:
        raise DataError(["dataset.test: 0 leaves nothing to score. Give a share or test_images and test_masks"])
    order = np.random.default_rng(seed).permutation(pool)
    for_val, for_test, for_train = np.split(order, [n_val, n_val + n_test])
    if held_out:
        for_test = np.arange(pool, pool + held_out)
    return [np.sort(for_train), np.sort(for_val), np.sort(for_test)]


def _open_pair(pair: Pair, reading: Reading) -> tuple[Image.Image, Image.Image]:
    image, drawn = read_pair(pair.image, pair.mask, reading.exif)
    mask = _read_as(drawn, pair.mask, reading)
    if image.size != mask.size:
        sizes = " and ".join(f"{i.width} x {i.height}" for i in (image, mask))
        raise DataError([f"{pair.mask}: image and mask differ in size, {sizes}"])
    is_object = np.asarray(mask) > OBJECT
    must_vary = reading.single_value_masks == "error" and reading.num_classes == 1
    if must_vary and is_object.all() == is_object.any():
        what = "object" if is_object.all() else "background"
        allow = "dataset.single_value_masks=allow"
        raise DataError([f"{pair.mask}: the whole mask is {what}. Remove the pair, or set {allow} if it is meant"])
    return image, mask


def _open_mask(pair: Pair, reading: Reading) -> Image.Image:
    return _read_as(read_mask(pair.mask, pair.image, reading.exif), pair.mask, reading)


def _read_as(drawn: Image.Image, path: Path, reading: Reading) -> Image.Image:
    if reading.num_classes > 1:
        return to_class_numbers(drawn, path, reading.num_classes)
    return to_mask(drawn, path).image


def _stamp(path: Path) -> tuple[str, int, int]:
    status = path.stat()
    return str(path.resolve()), status.st_size, status.st_mtime_ns


def _stamp_if_there(path: Path) -> tuple[str, int, int] | None:
    return _stamp(path) if path.exists() else None


def content_of(pair: Pair) -> str:
    """``stem/digest of the image file/digest of the mask file``; "gone" for a file that is not there."""
    digests = [_file_digest(path) if path.exists() else "gone" for path in pair[1:]]
    return "/".join([pair.stem, *digests])


def _file_digest(path: Path) -> str:
    try:
        return hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()
    except OSError as error:
        raise DataError([f"{path}: cannot be read ({error})"]) from None
