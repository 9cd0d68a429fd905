"""Mask files: which pixels are object, background or ignored, or which class each pixel has. All commands read here.

Nothing is guessed. Where the lightness of a colour or of a grey level would decide what the object is, the mask is
refused: the error lists the values that the mask holds and names the setting that decides.
"""

import argparse
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from PIL import Image
from pydantic import BeforeValidator, ValidationError, model_validator

from bench.config.yaml_file import BadYaml, parse
from bench.datasets import IGNORED, DataError
from bench.datasets.core.images import Rule, deep_values, to_8_bits
from bench.system.wording import some
from models.core.registry import Config, did_you_mean

OBJECT = 128  # py_sod_metrics: above it is object
BINARY = "0 and 255"
WAYS = ("auto", "grey", "nonzero")
LARGEST_VALUE = 65535
COLOUR_NOISE = 8  # lossy files give the channels of a grey pixel slightly different levels
LEVEL_NOISE = 16  # and levels near black and white where the mask has black and white
TRIMAP = (127, 128)  # the third level of masks that have a level for "unknown"
VOID = 255  # the number of PASCAL VOC's rim, which its scores leave out
LOSSY = ("JPEG", "MPO")
LISTED = 6  # values in an error
ON_COMMAND_LINES = "in bench.score and bench.data: --foreground and --ignore"


def _value(raw: Any) -> int | str:
    """A pixel's value as settings name it: a whole number, or a colour as ``#rrggbb`` or [red, green, blue]."""
    if isinstance(raw, list | tuple) and len(raw) == 3 and all(type(c) is int and 0 <= c <= 255 for c in raw):
        return "#{:02x}{:02x}{:02x}".format(*raw)
    if isinstance(raw, str) and re.fullmatch(r"#[0-9a-fA-F]{6}", raw):
        return raw.lower()
    if isinstance(raw, str) and raw.isdecimal():  # a key of a mapping that went through JSON
        raw = int(raw)
    if type(raw) is int and 0 <= raw <= LARGEST_VALUE:
        return raw
    allowed = f"a whole number from 0 to {LARGEST_VALUE}, or a colour such as [128, 0, 0] or '#800000'"
    raise ValueError(f"{raw!r} is no value of a pixel. Allowed: {allowed}")


def _foreground(raw: Any) -> str | tuple[int | str, ...]:
    if isinstance(raw, str) and not raw.startswith("#"):
        if raw not in WAYS:
            raise ValueError(f"unknown{did_you_mean(raw, list(WAYS))} Allowed: {', '.join(WAYS)}, or a list of values")
        return raw
    values = _values(raw)
    if not values:
        raise ValueError("the list is empty. Give the values or colours of the object, as in [1] or [[128, 0, 0]]")
    return values


def _values(raw: Any) -> tuple[int | str, ...]:
    """One value, or a list of them, without repetition."""
    return tuple(dict.fromkeys(map(_value, raw if isinstance(raw, list | tuple) else [raw])))


Value = Annotated[int | str, BeforeValidator(_value)]
Foreground = Annotated[str | tuple[int | str, ...], BeforeValidator(_foreground)]
Ignore = Annotated[tuple[int | str, ...], BeforeValidator(_values)]


class Reading(NamedTuple):
    """How the files of pairs are read; a part of the cache's key."""

    single_value_masks: Literal["error", "allow"] = "error"
    exif: Rule = "auto"
    num_classes: int = 1
    foreground: str | tuple[int | str, ...] = "auto"
    ignore: tuple[int | str, ...] = ()
    classes: tuple[tuple[int | str, int], ...] = ()


class PairFiles(Config):
    """Settings of every dataset whose images and masks are files."""

    single_value_masks: Literal["error", "allow"] = "error"
    """A mask that is all object or all background is usually a mistake. ``allow`` where it is meant."""
    foreground: Foreground = "auto"
    """What the object is in a mask. ``auto``: 0/1 and 0/255 masks, soft masks (above 128), palettes of two numbers; all
    else is refused. ``nonzero``: all but 0 and black. ``grey``: levels above 128, whatever else there is. A list:
    grey levels, numbers of a palette, or colours as [red, green, blue]."""
    ignore: Ignore = ()
    """Values or colours of pixels that count neither in the loss nor in the scores, such as 255 in PASCAL VOC."""
    exif: Rule = "auto"
    """Which way up a pair is read: as viewers show the files, as they are stored, or as their sizes say."""

    @model_validator(mode="after")
    def _each_value_means_one_thing(self) -> "PairFiles":
        both = set(self.foreground) & set(self.ignore) if isinstance(self.foreground, tuple) else ()
        if both:
            raise ValueError(f"foreground and ignore both name {', '.join(map(str, sorted(both, key=str)))}")
        return self

    def reading(self) -> Reading:
        """These settings as the reader takes them."""
        return Reading(self.single_value_masks, self.exif, foreground=self.foreground, ignore=self.ignore)


class _Drawn(NamedTuple):
    """The values of a mask file, before it is decided what they mean."""

    kind: Literal["grey", "palette", "colour"]
    numbers: np.ndarray  # [H, W]: grey levels as stored (integers or floats), numbers of a palette, or 0xRRGGBB
    palette: dict[int, int]  # 0xRRGGBB of the palette's numbers that are used
    how: str  # what was done with the file, "" for the plain kinds
    lossy: bool

    @property
    def is_grey(self) -> bool:
        """Every pixel has a grey level: there are no colours."""
        return self.kind != "colour" and all(_is_grey(colour) for colour in self.palette.values())


class Mask(NamedTuple):
    pixels: np.ndarray  # uint8 [H, W]: 0..255, above ``OBJECT`` is object; or classes. int16 with IGNORED if some are
    how: str  # what kind of mask it was and how it was read
    drawn: _Drawn

    @property
    def single(self) -> str | None:
        """``object`` or ``background`` if every counted pixel is."""
        is_object = self.pixels[self.pixels != IGNORED] > OBJECT
        if is_object.all():
            return "object"
        return None if is_object.any() else "background"

    @property
    def held(self) -> str:
        """In words, what a mask without object or without background holds."""
        values = _in_words(self.drawn)
        if (self.drawn.numbers == self.drawn.numbers[0, 0]).all():
            return f"the whole mask is {self.single}, every pixel has the value {values}"
        return f"every pixel that counts is {self.single} ({self.how}), though the file holds {values}"


def to_mask(image: Image.Image, path: Path, reading: Reading = Reading()) -> Mask:
    """The mask in an image of any mode, as ``Reading`` says. Raises ``DataError`` for what cannot be read for sure."""
    if reading.num_classes > 1:
        image = _of_numbers(image, path, reading)
    drawn = _drawn(image, path)
    _check_exact(drawn, path, reading)
    ignored = _any_of(drawn, reading.ignore, path)
    count = np.count_nonzero(~ignored)
    if not count:
        raise DataError([f"{path}: no pixel counts: dataset.ignore={_listed(reading.ignore)} names all of them"])
    if count == 1 and reading.num_classes == 1:
        raise DataError([f"{path}: one pixel counts, and the E-measure divides by the pixels less one. At least 2"])
    if reading.num_classes > 1:
        pixels, how = _classes(drawn, ignored, path, reading)
    elif isinstance(reading.foreground, tuple):
        named = f"values, {_listed(reading.foreground)} is object"
        pixels, how = _as_mask(_any_of(drawn, reading.foreground, path)), named
    elif reading.foreground == "nonzero":
        pixels, how = _as_mask(drawn.numbers > 0), "values, all but 0 is object"
    else:
        pixels, how = _by_levels(drawn, ~ignored, path, reading)
    if reading.ignore:
        pixels = np.where(ignored, np.int16(IGNORED), pixels.astype(np.int16))
        how += f"; ignored are {_listed(reading.ignore)}"
    return Mask(pixels, drawn.how + how, drawn)


# --- from the file to values ------------------------------------------------------------------------------------------


def _drawn(image: Image.Image, path: Path) -> _Drawn:
    lossy = image.format in LOSSY
    if image.mode.startswith("I") or image.mode == "F":
        words = "floats, scaled: " if image.mode == "F" else "16 or 32 bits, scaled to 8: "
        return _Drawn("grey", deep_values(image, path), {}, words, lossy)
    if image.mode == "P":
        numbers = np.asarray(image)
        table = image.getpalette("RGB")
        used = {n: _packed(table[3 * n : 3 * n + 3]) for n in np.unique(numbers).tolist()}
        words = "palette, " if all(map(_is_grey, used.values())) else "coloured palette, "
        return _Drawn("palette", numbers, used, words, lossy)
    words = ""
    if "A" in image.getbands() or "a" in image.getbands():
        alpha = np.asarray(image.getchannel(image.getbands()[-1]))
        if alpha.min() < alpha.max():
            plain = np.asarray(image.convert("RGB"))
            if (plain == plain[:1, :1]).all():
                return _Drawn("grey", alpha, {}, "drawn in the alpha channel: ", lossy)
            if not np.array_equal(np.asarray(image.convert("L")) > OBJECT, alpha > OBJECT):
                both = "its colours and its alpha channel both draw something, and not the same"
                raise DataError([f"{path}: {both}. Save the one that is the mask without the other"])
        words = "alpha dropped, "
    if image.mode not in ("1", "L", "LA", "La"):
        pixels = np.asarray(image.convert("RGB")).astype(np.int32)
        difference = pixels.max(axis=-1) - pixels.min(axis=-1)
        if difference.max() > COLOUR_NOISE:
            packed = pixels[..., 0] << 16 | pixels[..., 1] << 8 | pixels[..., 2]
            return _Drawn("colour", packed, {}, f"{words}colours, ", lossy)
        words += "colours by lightness, " if difference.any() else ""
    return _Drawn("grey", np.asarray(image.convert("L")), {}, words, lossy)


def _of_numbers(image: Image.Image, path: Path, reading: Reading) -> Image.Image:
    """A mask of classes, if its mode has room for numbers; colours need ``classes``. Raises ``DataError``."""
    if image.mode == "1":
        return Image.fromarray(np.asarray(image).astype(np.uint8))
    if reading.classes or image.mode in ("L", "P") or image.mode.startswith("I"):
        return image
    kinds = "grey values or a palette's numbers"
    remedy = "Say which colour is which class, as in dataset.classes={'#000000': 0, '#800000': 1}"
    text = f"is of mode {image.mode}, but a mask of {reading.num_classes} classes holds {kinds}. {remedy}"
    raise DataError([f"{path}: {text}"])


def _packed(colour: list[int]) -> int:
    red, green, blue = colour or (0, 0, 0)  # a file may use numbers beyond its palette
    return red << 16 | green << 8 | blue


def _is_grey(packed: int) -> bool:
    return packed % 0x010101 == 0


def _hex(packed: int) -> str:
    return f"#{packed:06x}"


# --- what the values mean ---------------------------------------------------------------------------------------------


def _by_levels(drawn: _Drawn, counted: np.ndarray, path: Path, reading: Reading) -> tuple[np.ndarray, str]:
    """Grey levels uint8 [H, W], and how they were found. ``auto`` refuses what lightness would decide."""
    auto = reading.foreground == "auto"
    if not drawn.is_grey:
        used = set(np.unique(drawn.numbers[counted]).tolist())
        black = drawn.kind == "palette" and drawn.palette.get(0, 0) == 0
        if auto and black and len(used | {0}) <= 2 and VOID not in used:
            return _as_mask(drawn.numbers > 0), "all but colour 0 is object: 0 and 255"
        raise _undecided(drawn, counted, path)
    levels = _grey_levels(drawn)
    values = np.unique(levels[counted])
    if values[-1] == 1:
        return levels * np.uint8(255), "0 and 1, read as 0 and 255"
    if set(values.tolist()) <= {0, 255}:
        return levels, BINARY
    is_trimap = len(values) == 3 and {0, 255} < set(values.tolist()) and values[1] in TRIMAP
    if auto and (0 < values[-1] <= OBJECT or is_trimap or _has_areas_below_object(levels, counted)):
        raise _undecided(drawn, counted, path)
    return levels, f"grey levels, object above {OBJECT}, soft in training"


def _grey_levels(drawn: _Drawn) -> np.ndarray:
    """Grey levels uint8 [H, W] of a mask without colours."""
    if drawn.kind == "palette":
        levels = np.zeros(256, np.uint8)
        for number, colour in drawn.palette.items():
            levels[number] = colour & 0xFF
        return levels[drawn.numbers]
    return to_8_bits(drawn.numbers)


def _has_areas_below_object(levels: np.ndarray, counted: np.ndarray) -> bool:
    """Whether some 3 x 3 pixels share a level from 1 to 128, as labels do: a soft outline has no areas.

    Levels up to 16 are noise of a lossy file where there are levels near, but not at, white too.
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


def _classes(drawn: _Drawn, ignored: np.ndarray, path: Path, reading: Reading) -> tuple[np.ndarray, str]:
    """Class numbers uint8 [H, W]: by ``classes``, or the values themselves."""
    if reading.classes:
        found = np.full(drawn.numbers.shape, IGNORED, np.int16)
        for value, number in reading.classes:
            found[_any_of(drawn, (value,), path)] = number
        unknown = (found == IGNORED) & ~ignored
        if unknown.any():
            held = _in_words(drawn, unknown)
            raise DataError([f"{path}: holds {held}, which dataset.classes and dataset.ignore do not name"])
        return np.where(ignored, 0, found).astype(np.uint8), f"{reading.num_classes} classes by dataset.classes"
    beyond = (drawn.numbers >= reading.num_classes) & ~ignored
    if beyond.any():
        outside = [str(v) for v in np.unique(drawn.numbers[beyond])]
        allowed = f"dataset.num_classes={reading.num_classes} allows 0 to {reading.num_classes - 1}"
        leave_out = f"To leave pixels out: dataset.ignore=[{', '.join(outside[:LISTED])}]"
        raise DataError([f"{path}: holds {some(outside)}, but {allowed}. {leave_out}"])
    return np.where(ignored, 0, drawn.numbers).astype(np.uint8), f"{reading.num_classes} classes"


def _as_mask(is_object: np.ndarray) -> np.ndarray:
    return is_object.astype(np.uint8) * np.uint8(255)


# --- named values -----------------------------------------------------------------------------------------------------


def _any_of(drawn: _Drawn, values: tuple[int | str, ...], path: Path) -> np.ndarray:
    """Which pixels [H, W] have one of the values. A number means nothing in a picture of colours: ``DataError``."""
    found = np.zeros(drawn.numbers.shape, bool)
    for value in values:
        if isinstance(value, str):
            for number in _numbers_of(drawn, int(value[1:], 16)):
                found |= drawn.numbers == number
        elif drawn.kind == "colour":
            remedy = "Name colours, as in [[128, 0, 0]]"
            raise DataError([f"{path}: holds colours ({_in_words(drawn)}), and {value} is a number. {remedy}"])
        else:
            found |= drawn.numbers == value
    return found


def _numbers_of(drawn: _Drawn, colour: int) -> Iterator[int]:
    """The numbers in the file that show a colour."""
    if drawn.kind == "colour":
        yield colour
    elif drawn.kind == "palette":
        yield from (number for number, shown in drawn.palette.items() if shown == colour)
    elif _is_grey(colour):
        yield colour & 0xFF


def _check_exact(drawn: _Drawn, path: Path, reading: Reading) -> None:
    """A lossy file does not hold the values that were drawn, so none of them can be named."""
    by_value = reading.ignore or reading.classes or reading.foreground not in ("auto", "grey")
    if drawn.lossy and (by_value or reading.num_classes > 1):
        remedy = "Save masks as PNG, or set dataset.foreground=grey, which takes levels above 128"
        raise DataError([f"{path}: is a JPEG file, which changes values, so values cannot be named. {remedy}"])


# --- words ------------------------------------------------------------------------------------------------------------


def _undecided(drawn: _Drawn, counted: np.ndarray, path: Path) -> DataError:
    """The error for a mask whose object lightness would decide: the values that it holds, and the setting to decide."""
    what = {"grey": "grey levels", "palette": "palette numbers", "colour": "colours"}[drawn.kind]
    numbers, counts = np.unique(drawn.numbers[counted], return_counts=True)
    common = [n for n in numbers[np.argsort(-counts, kind="stable")].tolist() if n > 0]
    void = drawn.kind != "colour" and len(common) > 1 and VOID in common
    first = next(n for n in common if not void or n != VOID)
    named = f"[{first >> 16},{first >> 8 & 0xFF},{first & 0xFF}]" if drawn.kind == "colour" else f"{first:g}"
    ways = [f"dataset.foreground=[{named}]" + f" dataset.ignore=[{VOID}]" * void]
    ways.append("dataset.foreground=nonzero where all but 0 is the object")
    if drawn.is_grey and common and max(common) > OBJECT:
        ways.append(f"dataset.foreground=grey where levels above {OBJECT} are")
    fault = f"holds {what} {_in_words(drawn)}, and nothing says which of them is the object"
    return DataError([f"{path}: {fault}. Set {', or '.join(ways)} ({ON_COMMAND_LINES})"])


def _in_words(drawn: _Drawn, where: np.ndarray | None = None) -> str:
    """The values that a mask holds, with the colours of a palette's numbers: ``0 #000000, 15 #c08080 and 4 more``."""
    numbers = np.unique(drawn.numbers if where is None else drawn.numbers[where]).tolist()
    if drawn.kind == "colour":
        return some([_hex(number) for number in numbers], LISTED)
    if drawn.is_grey:
        return some([f"{number:g}" for number in numbers], LISTED)
    return some([f"{number} {_hex(drawn.palette[number])}" for number in numbers], LISTED)


def _listed(values: tuple[int | str, ...]) -> str:
    return "[" + ", ".join(map(str, values)) + "]"


# --- on a command line ------------------------------------------------------------------------------------------------


def add_options(parser: argparse.ArgumentParser) -> None:
    """``--foreground`` and ``--ignore``: the settings of a dataset for commands that have no sweep file."""
    parser.add_argument(
        "--foreground",
        default="auto",
        metavar="WHAT",
        help="the object in masks: auto (default), nonzero, grey, or values such as 1, '[1, 15]' or '[[128, 0, 0]]'",
    )
    parser.add_argument("--ignore", default="[]", metavar="VALUES", help="values of masks that do not count, e.g. 255")


def reading_of(options: argparse.Namespace) -> Reading:
    """Raises ``DataError`` for what names no value."""
    found: dict[str, Any] = {}
    for field in ("foreground", "ignore"):
        text = getattr(options, field)
        try:
            found[field] = PairFiles.model_validate({field: parse(text)})
        except (BadYaml, ValidationError) as error:
            wrong = (
                error.errors()[0]["msg"].removeprefix("Value error, ") if isinstance(error, ValidationError) else error
            )
            raise DataError([f"--{field} {text}: {wrong}"]) from None
    return Reading(foreground=found["foreground"].foreground, ignore=found["ignore"].ignore)
