"""Masks: the meaning of the values that a mask file stores."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from bench.datasets import IGNORED, DataError
from bench.datasets.masks.reading import ON_COMMAND_LINES, Reading, listed
from bench.datasets.masks.stored import LISTED, OBJECT, Stored, stored
from bench.system.wording import some

BINARY = "0 and 255"
LEVEL_NOISE = 16
"""Largest distance from black and from white that is noise in a lossy file whose mask is black and white."""
TRIMAP = (127, 128)
"""Levels that mean "unknown" in masks of three levels."""
VOID = 255
"""Number of the rim in PASCAL VOC, which its scores leave out."""


class Mask(NamedTuple):
    """A mask that was read."""

    pixels: np.ndarray
    """[H, W]: grey levels, above ``OBJECT`` is object; or classes. uint8, or int16 if some pixels are IGNORED."""
    how: str
    """The kind of the mask and how it was read, in words."""
    stored: Stored

    @property
    def single(self) -> str | None:
        """``object`` or ``background`` if every counted pixel is; ``None`` for a mask that has both."""
        is_object = self.pixels[self.pixels != IGNORED] > OBJECT
        if is_object.all():
            return "object"
        return None if is_object.any() else "background"

    @property
    def held(self) -> str:
        """Describes a mask without object or without background."""
        values = self.stored.in_words()
        if (self.stored.numbers == self.stored.numbers[0, 0]).all():
            return f"the whole mask is {self.single}, every pixel has the value {values}"
        return f"every pixel that counts is {self.single} ({self.how}), though the file holds {values}"


def to_mask(image: Image.Image, path: Path, reading: Reading = Reading()) -> Mask:
    """Reads the mask in an image of any mode. Raises ``DataError`` for a mask that has more than one meaning."""
    if reading.num_classes > 1:
        image = _with_numbers(image, path, reading)
    values = stored(image, path)
    _check_exact(values, path, reading)
    ignored = values.has_any(reading.ignore, path)
    count = np.count_nonzero(~ignored)
    if not count:
        raise DataError([f"{path}: no pixel counts: dataset.ignore={listed(reading.ignore)} names all of them"])
    if count == 1 and reading.num_classes == 1:
        raise DataError([f"{path}: one pixel counts, and the E-measure divides by the pixels less one. At least 2"])
    if reading.num_classes > 1:
        pixels, how = _classes(values, ignored, path, reading)
    elif isinstance(reading.foreground, tuple):
        pixels = _as_mask(values.has_any(reading.foreground, path))
        how = f"values, {listed(reading.foreground)} is object"
    elif reading.foreground == "nonzero":
        pixels, how = _as_mask(values.numbers > 0), "values, all but 0 is object"
    else:
        pixels, how = _by_levels(values, ~ignored, path, reading)
    if reading.ignore:
        pixels = np.where(ignored, np.int16(IGNORED), pixels.astype(np.int16))
        how += f"; ignored are {listed(reading.ignore)}"
    return Mask(pixels, values.how + how, values)


def _with_numbers(image: Image.Image, path: Path, reading: Reading) -> Image.Image:
    """Returns a mask of classes in a mode that has numbers. Raises ``DataError`` for colours without ``classes``."""
    if image.mode == "1":
        return Image.fromarray(np.asarray(image).astype(np.uint8))
    if reading.classes or image.mode in ("L", "P") or image.mode.startswith("I"):
        return image
    kinds = "grey values or a palette's numbers"
    remedy = "Say which colour is which class, as in dataset.classes={'#000000': 0, '#800000': 1}"
    text = f"is of mode {image.mode}, but a mask of {reading.num_classes} classes holds {kinds}. {remedy}"
    raise DataError([f"{path}: {text}"])


def _check_exact(values: Stored, path: Path, reading: Reading) -> None:
    """Raises ``DataError`` if values are named for a lossy file, which does not hold the values that were drawn."""
    by_value = reading.ignore or reading.classes or reading.foreground not in ("auto", "grey")
    if values.lossy and (by_value or reading.num_classes > 1):
        remedy = "Save masks as PNG, or set dataset.foreground=grey, which takes levels above 128"
        raise DataError([f"{path}: is a JPEG file, which changes values, so values cannot be named. {remedy}"])


def _by_levels(values: Stored, counted: np.ndarray, path: Path, reading: Reading) -> tuple[np.ndarray, str]:
    """Returns grey levels uint8 [H, W], and how they were found.

    ``auto`` raises ``DataError`` if lightness would decide which pixels are the object.
    """
    auto = reading.foreground == "auto"
    if not values.is_grey:
        used = set(np.unique(values.numbers[counted]).tolist())
        black = values.kind == "palette" and values.palette.get(0, 0) == 0
        if auto and black and len(used | {0}) <= 2 and VOID not in used:
            return _as_mask(values.numbers > 0), "all but colour 0 is object: 0 and 255"
        raise _undecided(values, counted, path)
    levels = values.levels()
    shown = np.unique(levels[counted])
    if shown[-1] == 1:
        return levels * np.uint8(255), "0 and 1, read as 0 and 255"
    if set(shown.tolist()) <= {0, 255}:
        return levels, BINARY
    is_trimap = len(shown) == 3 and {0, 255} < set(shown.tolist()) and shown[1] in TRIMAP
    if auto and (0 < shown[-1] <= OBJECT or is_trimap or _has_areas_below_object(levels, counted)):
        raise _undecided(values, counted, path)
    return levels, f"grey levels, object above {OBJECT}, soft in training"


def _has_areas_below_object(levels: np.ndarray, counted: np.ndarray) -> bool:
    """Whether some 3 x 3 pixels share a level from 1 to 128, as labels do: a soft outline has no areas.

    Levels up to 16 are noise of a lossy file if the mask also has levels near, but not at, white.
    """
    shown = levels[counted]
    noisy = ((shown < 255) & (shown >= 255 - LEVEL_NOISE)).any()
    least = LEVEL_NOISE if noisy else 0
    labels = counted & (levels > least) & (levels <= OBJECT)
    height, width = levels.shape
    if height < 3 or width < 3 or not labels.any():
        return False
    centre = levels[1:-1, 1:-1]
    same = labels[1:-1, 1:-1].copy()
    for y in range(3):
        for x in range(3):
            same &= levels[y : height - 2 + y, x : width - 2 + x] == centre
    return bool(same.any())


def _classes(values: Stored, ignored: np.ndarray, path: Path, reading: Reading) -> tuple[np.ndarray, str]:
    """Returns class numbers uint8 [H, W], by ``classes`` or as they are stored. Raises ``DataError``."""
    if reading.classes:
        found = np.full(values.numbers.shape, IGNORED, np.int16)
        for value, number in reading.classes:
            found[values.has_any((value,), path)] = number
        unknown = (found == IGNORED) & ~ignored
        if unknown.any():
            held = values.in_words(unknown)
            raise DataError([f"{path}: holds {held}, which dataset.classes and dataset.ignore do not name"])
        return np.where(ignored, 0, found).astype(np.uint8), f"{reading.num_classes} classes by dataset.classes"
    beyond = (values.numbers >= reading.num_classes) & ~ignored
    if beyond.any():
        outside = [str(number) for number in np.unique(values.numbers[beyond])]
        allowed = f"dataset.num_classes={reading.num_classes} allows 0 to {reading.num_classes - 1}"
        leave_out = f"To leave pixels out: dataset.ignore=[{', '.join(outside[:LISTED])}]"
        raise DataError([f"{path}: holds {some(outside)}, but {allowed}. {leave_out}"])
    return np.where(ignored, 0, values.numbers).astype(np.uint8), f"{reading.num_classes} classes"


def _as_mask(is_object: np.ndarray) -> np.ndarray:
    """Returns bool [H, W] as uint8 0 and 255."""
    return is_object.astype(np.uint8) * np.uint8(255)


def _undecided(values: Stored, counted: np.ndarray, path: Path) -> DataError:
    """Returns the error for a mask whose object lightness would decide: its values, and the settings that decide."""
    what = {"grey": "grey levels", "palette": "palette numbers", "colour": "colours"}[values.kind]
    numbers, counts = np.unique(values.numbers[counted], return_counts=True)
    common = [number for number in numbers[np.argsort(-counts, kind="stable")].tolist() if number > 0]
    has_void = values.kind != "colour" and len(common) > 1 and VOID in common
    first = next(number for number in common if not has_void or number != VOID)
    if values.kind == "colour":
        named = f"[{first >> 16},{first >> 8 & 0xFF},{first & 0xFF}]"
    else:
        named = f"{first:g}"
    ways = [f"dataset.foreground=[{named}]"]
    if has_void:
        ways[0] += f" dataset.ignore=[{VOID}]"
    ways.append("dataset.foreground=nonzero where all but 0 is the object")
    if values.is_grey and common and max(common) > OBJECT:
        ways.append(f"dataset.foreground=grey where levels above {OBJECT} are")
    fault = f"holds {what} {values.in_words()}, and nothing says which of them is the object"
    return DataError([f"{path}: {fault}. Set {', or '.join(ways)} ({ON_COMMAND_LINES})"])
