"""A folder of images and a folder of masks, paired by the stem of the file name and split by a seed.

``dataset.images=DIR dataset.masks=DIR`` is all that it takes. A separate test set may be given by two more folders;
otherwise the test split is taken from the pairs. With ``num_classes`` K the masks hold the class of each pixel, 0 to
K - 1, as grey values, as the numbers of a palette, or as ``classes`` maps values and colours.
"""

import hashlib
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from PIL import Image
from PIL import __version__ as PILLOW
from pydantic import Field, NonNegativeInt, model_validator

from bench.config.settings import TransformConfig
from bench.datasets import IGNORED, Data, DataError, Split
from bench.datasets.core import cache
from bench.datasets.core.images import EXTENSIONS, read_mask, read_pair
from bench.datasets.core.transforms import resize_image, resize_mask
from bench.datasets.masks.mask import BINARY, Mask, to_mask
from bench.datasets.masks.reading import PairFiles, Reading, Value
from bench.datasets.masks.stored import OBJECT
from bench.system.progress import Progress, silent
from bench.system.wording import some
from models.core.paths import expanded
from models.core.registry import Missing

LITTER = {"thumbs.db", "desktop.ini"}  # left behind by file browsers
TEST_FRACTION = 0.2
Fraction = Annotated[float, Field(ge=0, lt=1)]


class Config(PairFiles):
    name: Literal["folder"] = "folder"
    images: str
    masks: str
    test_images: str | None = None
    test_masks: str | None = None
    mask_suffix: Annotated[str, Field(pattern=r"^[^/\\]*$")] = ""
    """What the name of a mask has after the name of its image, as ``_mask`` in ``a.jpg`` and ``a_mask.png``."""
    recursive: bool = False
    """Whether folders within the folders are read. Pairs then have the same path below their folders."""
    val: Fraction = 0.1
    """Share of the pairs that is held back for whatever is chosen."""
    test: Fraction | None = None
    """Share of the pairs that is held back for the scores; 0.2 unless test folders are given."""
    split_seed: NonNegativeInt = 0
    """The split stays the same for all seeds of a trial."""
    num_classes: Annotated[int, Field(ge=1, le=256)] = 1
    """1: masks of objects. Above 1: masks of class numbers, of which an image may well have only one."""
    classes: dict[Value, NonNegativeInt] = {}
    """The class of each value or colour, for masks of classes that do not hold the numbers themselves."""

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


def build(config: Config, transform: TransformConfig, progress: Progress = silent) -> Data:
    """Raises ``DataError`` with everything that is wrong with the folders, their files and the split."""
    notes: list[str] = []
    names = {"mask_suffix": config.mask_suffix, "recursive": config.recursive}
    places = {field: str(path) for field, path in config.folders().items()}
    pool = pairs_of(places["images"], places["masks"], notes, **names)
    tests = {}
    if config.test_images:
        tests = {"test": pairs_of(places["test_images"], places["test_masks"], notes, **names)}
    shares = {"val": config.val, "test": config.test, "seed": config.split_seed}
    splits = split(len(pool), sum(map(len, tests.values())), **shares, where=config.images)
    readings = dict.fromkeys(("pairs", *tests), config.reading())
    return assemble({"pairs": pool}, tests, splits, readings, transform, notes, progress)


def assemble(
    pool: Mapping[str, list[Pair]],
    tests: Mapping[str, list[Pair]],
    splits: list[np.ndarray],
    readings: Mapping[str, Reading],
    transform: TransformConfig,
    notes: list[str],
    progress: Progress,
) -> Data:
    """Reads, resizes and caches sets of pairs that were found.

    pool, tests: by the name of the set; splits: numbers of the train and val pairs, and of the test pairs of a pool
    without tests of its own, in the order of pool and tests; readings: how each set is read, which may differ in what
    is the object. Raises ``DataError``.
    """
    sets = {**pool, **tests}
    pairs = [pair for each in sets.values() for pair in each]
    reading_of = [readings[name] for name, each in sets.items() for _ in each]
    stamps = [_stamp(path) for pair in pairs for path in pair[1:]]
    contents = cache.remembered({"contents": stamps}, lambda: [content_of(pair) for pair in pairs])

    def read(i: int) -> cache.Pair:
        image, mask = _open_pair(pairs[i], reading_of[i])
        small = resize_mask(mask.pixels, transform.size, transform.mask_resize)
        return resize_image(image, transform.size), small, _facts(mask, reading_of[i].num_classes)

    files = [content.partition("/")[2] for content in contents]
    how = [(len(each), readings[name]) for name, each in sets.items()]
    key = {"files": files, "mask_resize": transform.mask_resize, "readings": how, "pillow": PILLOW}
    kind = np.int16 if any(reading.ignore for reading in readings.values()) else np.uint8
    images, masks, facts = cache.resized_pairs(key, len(pairs), transform.size, read, progress, notes, kind)

    def ground_truth(i: int) -> np.ndarray:
        return _open_mask(pairs[i], reading_of[i]).pixels

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
    notes += _mask_notes(facts)
    if not any(facts[i]["object"] for i in splits[0]):
        raise DataError([f"none of the {len(splits[0])} training masks holds an object: there is nothing to learn"])
    content = [[contents[i] for i in rows] for rows in chosen]
    decided = [reading[3:] for reading in readings.values()]  # what is object, and what is left out
    if any(each != Reading()[3:] for each in decided):
        content.append(decided)
    return Data(
        *made[:3],
        fingerprint=cache.digest(content),
        notes=tuple(notes),
        test_sets=dict(zip(test_ranges, made[2:])),
        set_fingerprints={name: set_fingerprint([contents[i] for i in rows]) for name, rows in ranges.items()},
        changed=changed,
        almost_white={
            name: [pairs[i].stem for i in rows if facts[i]["almost_white"]] for name, rows in test_ranges.items()
        },
    )


def _facts(mask: Mask, num_classes: int) -> dict[str, Any]:
    """What the cache keeps of a mask beside its pixels."""
    counted = mask.pixels[mask.pixels != IGNORED]
    return {
        "how": mask.how,
        "object": bool((counted > (OBJECT if num_classes == 1 else 0)).any()),
        "almost_white": bool(((counted > OBJECT) & (counted < 255)).any()),
    }


def _mask_notes(facts: list[dict[str, Any]]) -> list[str]:
    """A line for each kind of mask that is not simply 0 and 255."""
    kinds = Counter(fact["how"] for fact in facts)
    return [f"{count} of {len(facts)} masks: {how}" for how, count in kinds.most_common() if how != BINARY]


def set_fingerprint(contents: list[str]) -> str:
    """32 hex digits over the names and bytes of a set's pairs, wherever they lie; ``bench.data check`` prints it."""
    return cache.digest(sorted(contents))


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


def pictures(folder: Path, only: str | None = None, recursive: bool = False) -> tuple[list[Path], list[str]]:
    """The image files of a folder, and the names of whatever else lies there and is not a file browser's litter.

    only: glob of the file names that count; recursive: files in folders within the folder count, too.
    """
    entries = folder.rglob("*") if recursive else folder.iterdir()
    files = [f for f in entries if not _is_hidden(f.relative_to(folder)) and f.name.lower() not in LITTER]
    files = [f for f in files if only is None or fnmatchcase(f.name, only)]
    if recursive:
        files = [f for f in files if not f.is_dir()]
    found = [f for f in files if f.is_file() and f.suffix.lower() in EXTENSIONS]
    return found, sorted({f.relative_to(folder).as_posix() for f in set(files) - set(found)})


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


class Names(NamedTuple):
    """How the files of a folder get the names by which they are paired."""

    only: str | None = None  # glob of the file names that count
    suffix: str = ""  # what a name has after that of its partner
    recursive: bool = False  # whether folders within the folder are read


def by_name(folder: Path, names: Names, notes: list[str], errors: list[str]) -> dict[str, Path]:
    """The image files of a folder by the name that pairs them: the path below the folder without the last extension.

    Names are compared in Unicode's composed form (NFC): macOS writes accents as two characters, others as one. Two
    files of one name and an empty folder go into ``errors``, files that are no images into ``notes``.
    """
    found, others = pictures(folder, names.only, names.recursive)
    nested = [name for name in others if (folder / name).is_dir() and pictures(folder / name, recursive=True)[0]]
    if plain := [name for name in others if name not in nested]:
        notes.append(f"{folder}: not used, because they are no images: {some(plain)}")
    remedy = "Set dataset.recursive=true to read them"
    if not found and nested:
        errors.append(f"{folder}: holds no images itself, but folders with images: {some(nested)}. {remedy}")
    elif not found:
        errors.append(f"{folder}: holds no images. Known are {', '.join(sorted(EXTENSIONS))}")
    elif nested:
        notes.append(f"{folder}: folders with images that are not read: {some(nested)}. {remedy}")
    files: dict[str, Path] = {}
    twice = set()
    for file in found:
        name = unicodedata.normalize("NFC", file.relative_to(folder).with_suffix("").as_posix())
        name = name.removesuffix(names.suffix)
        if name in files:
            twice.add(name)
        files[name] = file
    if twice:
        errors.append(f"{folder}: more than one file for {some(sorted(twice))}")
    return files


def suffix_that_pairs(images: Collection[str], masks: Collection[str]) -> tuple[str, int]:
    """The ending that most masks' names have after the name of an image, and how many have it; 0 if none has."""
    endings = Counter(name[cut:] for name in masks for cut in range(1, len(name)) if name[:cut] in images)
    return endings.most_common(1)[0] if endings else ("", 0)


def pairs_of(
    images: str,
    masks: str,
    notes: list[str],
    *,
    only: str | None = None,
    shared_masks: bool = False,
    mask_suffix: str = "",
    recursive: bool = False,
) -> list[Pair]:
    """``matched`` pairs, all of which are in order. Raises ``DataError`` with everything that is not."""
    errors: list[str] = []
    how = {"only": only, "shared_masks": shared_masks, "mask_suffix": mask_suffix, "recursive": recursive}
    pairs = matched(images, masks, notes, errors, **how)
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
    mask_suffix: str = "",
    recursive: bool = False,
) -> list[Pair]:
    """All pairs of two folders in the order of their names (``by_name``).

    only: glob of the file names that count; shared_masks: masks without an image belong to another set; mask_suffix:
    what a mask's name has after its image's. Files without a partner go into ``errors``; if another suffix would pair
    more of them, the error proposes it.
    """
    of_image = by_name(Path(images), Names(only, "", recursive), notes, errors)
    of_mask = by_name(Path(masks), Names(only, mask_suffix, recursive), notes, errors)
    both = of_image.keys() & of_mask.keys()
    if of_image and of_mask:
        lone_images, lone_masks = sorted(of_image.keys() - both), sorted(of_mask.keys() - both)
        ending, count = suffix_that_pairs(of_image.keys(), lone_masks)
        hint = ""
        if count > len(both):
            hint = f". Set dataset.mask_suffix={ending}, which would pair {count} of {len(of_image)}"
        if lone_images:
            errors.append(f"{images}: {len(lone_images)} without a mask of the same stem: {some(lone_images)}{hint}")
        if lone_masks and not shared_masks:
            errors.append(f"{masks}: {len(lone_masks)} without an image of the same stem: {some(lone_masks)}")
    return [Pair(name, of_image[name], of_mask[name]) for name in sorted(both)]


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


def _open_pair(pair: Pair, reading: Reading) -> tuple[Image.Image, Mask]:
    image, drawn = read_pair(pair.image, pair.mask, reading.exif)
    mask = to_mask(drawn, pair.mask, reading)
    height, width = mask.pixels.shape
    if image.size != (width, height):
        sizes = f"{image.width} x {image.height} and {width} x {height}"
        raise DataError([f"{pair.mask}: image and mask differ in size, {sizes}"])
    if reading.single_value_masks == "error" and reading.num_classes == 1 and mask.single:
        allow = "dataset.single_value_masks=allow"
        raise DataError([f"{pair.mask}: {mask.held}. Remove the pair, or set {allow} if it is meant"])
    return image, mask


def _open_mask(pair: Pair, reading: Reading) -> Mask:
    return to_mask(read_mask(pair.mask, pair.image, reading.exif), pair.mask, reading)


def _stamp(path: Path) -> tuple[str, int, int]:
    status = path.stat()
    return str(path.resolve()), status.st_size, status.st_mtime_ns


def _stamp_if_there(path: Path) -> tuple[str, int, int] | None:
    return _stamp(path) if path.exists() else None


def content_of(pair: Pair) -> str:
    """``stem/digest of the image file/digest of the mask file``; "gone" for a file that is not there."""
    digests = [file_digest(path) if path.exists() else "gone" for path in pair[1:]]
    return "/".join([pair.stem, *digests])


def file_digest(path: Path) -> str:
    """32 hex digits over the bytes of a file. Raises ``DataError``."""
    try:
        return hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()
    except OSError as error:
        raise DataError([f"{path}: cannot be read ({error})"]) from None
