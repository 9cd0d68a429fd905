"""A folder of images and a folder of masks, paired by the stem of the file name and split by a seed.

``dataset.images=DIR dataset.masks=DIR`` is all that it takes. A separate test set may be given by two more folders;
otherwise the test split is taken from the pairs. With ``num_classes`` K the masks hold the class of each pixel, 0 to
K - 1, as grey values or as the numbers (not the colours) of a palette.
"""

import hashlib
import io
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from pydantic import Field, NonNegativeInt, model_validator

from bench.datasets import Data, DataError, Progress, Split, _cache, silent
from bench.transforms import TransformConfig, resize_image, resize_mask
from models._registry import Config as Base
from models._registry import Missing

EXTENSIONS = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"}
LITTER = {"thumbs.db", "desktop.ini"}  # left behind by file browsers
TEST_FRACTION = 0.2
OBJECT = 128  # py_sod_metrics: above it is object
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

    @model_validator(mode="after")
    def _test_set_is_whole(self) -> "Config":
        if (self.test_images is None) != (self.test_masks is None):
            raise ValueError("test_images and test_masks go together")
        if self.test_images is not None and self.test is not None:
            raise ValueError("test is a share of the pairs, but test_images is a test set of its own. Leave one out")
        return self

    def folders(self) -> dict[str, str]:
        """The folders that have to exist, by the field that names them."""
        named = {f: getattr(self, f) for f in ("images", "masks", "test_images", "test_masks")}
        return {field: path for field, path in named.items() if path is not None}

    def missing(self) -> Iterator[Missing]:
        for field, path in self.folders().items():
            if not Path(path).is_dir():
                what = "is no folder" if Path(path).exists() else "does not exist"
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
    pool = _pairs(config.images, config.masks, notes)
    held_out = _pairs(config.test_images, config.test_masks, notes) if config.test_images else []
    splits = _split(config, len(pool), len(held_out))
    pairs = pool + held_out

    def read(i: int) -> tuple[np.ndarray, np.ndarray]:
        image, mask = _open_pair(pairs[i], config)
        return resize_image(image, transform.size), resize_mask(mask, transform.size, transform.mask_resize)

    stamps = [_stamp(path) for pair in pairs for path in pair[1:]]
    key = {"files": stamps, "mask_resize": transform.mask_resize, "single_value": config.single_value_masks}
    key |= {"num_classes": config.num_classes}
    images, masks = _cache.resized_pairs(key, len(pairs), transform.size, read, progress)
    contents = _cache.remembered({"contents": stamps}, lambda: [_content(pair) for pair in pairs])

    def ground_truth(i: int) -> np.ndarray:
        return np.asarray(_open_mask(pairs[i].mask, config.num_classes))

    train, val, test = (
        Split(images, masks, indices, tuple(pairs[i].stem for i in indices), ground_truth) for indices in splits
    )
    fingerprint = _cache.digest([[contents[i] for i in indices] for indices in splits])
    return Data(train, val, test, fingerprint, tuple(notes))


def pictures(folder: Path) -> tuple[list[Path], list[str]]:
    """The image files of a folder, and the names of whatever else lies there and is not a file browser's litter."""
    files = [f for f in folder.iterdir() if not f.name.startswith(".") and f.name.lower() not in LITTER]
    found = [f for f in files if f.is_file() and f.suffix.lower() in EXTENSIONS]
    return found, sorted({f.name for f in files} - {f.name for f in found})


def _pairs(images: str, masks: str, notes: list[str]) -> list[Pair]:
    """All pairs of two folders in the order of their stems."""
    sides, errors = [], []
    for folder in (Path(images), Path(masks)):
        found, others = pictures(folder)
        if others:
            notes.append(f"{folder}: not used, because they are no images: {_some(others)}")
        twice = [stem for stem, n in Counter(f.stem for f in found).items() if n > 1]
        if twice:
            errors.append(f"{folder}: more than one file for {_some(sorted(twice))}")
        if not found:
            errors.append(f"{folder}: holds no images. Known are {', '.join(sorted(EXTENSIONS))}")
        sides.append({f.stem: f for f in found})
    of_image, of_mask = sides
    if of_image and of_mask:
        lone_images, lone_masks = sorted(of_image.keys() - of_mask.keys()), sorted(of_mask.keys() - of_image.keys())
        if lone_images:
            errors.append(f"{images}: {len(lone_images)} without a mask of the same stem: {_some(lone_images)}")
        if lone_masks:
            errors.append(f"{masks}: {len(lone_masks)} without an image of the same stem: {_some(lone_masks)}")
    if errors:
        raise DataError(errors)
    return [Pair(stem, of_image[stem], of_mask[stem]) for stem in sorted(of_image)]


def _split(config: Config, pool: int, held_out: int) -> list[np.ndarray]:
    """Numbers of the train, val and test pairs, ascending; a share above zero gets at least one pair."""
    fraction = 0.0 if held_out else TEST_FRACTION if config.test is None else config.test
    n_val, n_test = (max(1, round(share * pool)) if share else 0 for share in (config.val, fraction))
    if n_val + n_test >= pool:
        raise DataError([f"{config.images}: {pool} pairs cannot be split into train, {n_val} val and {n_test} test"])
    if not n_test and not held_out:
        raise DataError(["dataset.test: 0 leaves nothing to score. Give a share or test_images and test_masks"])
    order = np.random.default_rng(config.split_seed).permutation(pool)
    val, test, train = np.split(order, [n_val, n_val + n_test])
    if held_out:
        test = np.arange(pool, pool + held_out)
    return [np.sort(train), np.sort(val), np.sort(test)]


def _open_pair(pair: Pair, config: Config) -> tuple[Image.Image, Image.Image]:
    image, mask = open_image(pair.image).convert("RGB"), _open_mask(pair.mask, config.num_classes)
    reject_single_value = config.single_value_masks == "error" and config.num_classes == 1
    if image.size != mask.size:
        sizes = " and ".join(f"{i.width} x {i.height}" for i in (image, mask))
        raise DataError([f"{pair.mask}: image and mask differ in size, {sizes}"])
    is_object = np.asarray(mask) > OBJECT
    if reject_single_value and is_object.all() == is_object.any():
        what = "object" if is_object.all() else "background"
        allow = "dataset.single_value_masks=allow"
        raise DataError([f"{pair.mask}: the whole mask is {what}. Remove the pair, or set {allow} if it is meant"])
    return image, mask


def _open_mask(path: Path, num_classes: int = 1) -> Image.Image:
    """A mask as a grey image, 0..255. Masks of 0 and 1 are read as 0 and 255, 16 bit ones are brought down to 8."""
    image = open_image(path)
    if num_classes > 1:
        return _class_numbers(path, image, num_classes)
    if image.mode.startswith("I"):  # PIL would clip at 255 instead of scaling
        values = np.asarray(image)
        grey = (values // 257 if values.max() > 255 else values).astype(np.uint8)
    else:
        grey = np.asarray(image.convert("L"))
    return Image.fromarray(grey * np.uint8(255) if grey.max() == 1 else grey)


def _class_numbers(path: Path, image: Image.Image, num_classes: int) -> Image.Image:
    """A mask of class numbers, unchanged, as an 8-bit image. Raises ``DataError`` for any other number."""
    if not (image.mode in ("1", "L", "P") or image.mode.startswith("I")):
        kinds = "grey values or a palette's numbers"
        raise DataError([f"{path}: is of mode {image.mode}, but a mask of {num_classes} classes holds {kinds}"])
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() >= num_classes:
        outside = sorted({int(v) for v in np.unique(values) if not 0 <= v < num_classes})
        found = _some([str(v) for v in outside])
        raise DataError([f"{path}: holds {found}, but dataset.num_classes={num_classes} allows 0 to {num_classes - 1}"])
    return Image.fromarray(values.astype(np.uint8))


def open_image(path: Path) -> Image.Image:
    """The decoded image, turned as its EXIF data say. Raises ``DataError``."""
    try:
        with Image.open(path) as image:
            return ImageOps.exif_transpose(image)
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        reason = "not an image" if isinstance(error, UnidentifiedImageError) else error
        raise DataError([f"{path}: cannot be read ({reason})"]) from None


def _stamp(path: Path) -> tuple[str, int, int]:
    status = path.stat()
    return str(path.resolve()), status.st_size, status.st_mtime_ns


def _content(pair: Pair) -> str:
    digests = [hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest() for path in pair[1:]]
    return ":".join([pair.stem, *digests])


def _some(names: list[str], limit: int = 5) -> str:
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")
