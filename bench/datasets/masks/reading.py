"""Settings of mask files: which values are the object, which are ignored, and which way up a pair is read."""

import argparse
import re
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BeforeValidator, ValidationError, model_validator

from bench.config.yaml_file import BadYaml, parse
from bench.datasets import DataError
from bench.datasets.core.draw import Draw
from bench.datasets.core.images import Rule
from models.core.registry import did_you_mean

WAYS = ("auto", "grey", "nonzero")
"""Values of ``foreground`` that are no values of pixels."""
LARGEST_VALUE = 65535
ON_COMMAND_LINES = "in bench.score and bench.data: --foreground and --ignore"


def _value(raw: Any) -> int | str:
    """Reads a pixel's value: a whole number, or a colour as ``#rrggbb`` or [red, green, blue]."""
    if isinstance(raw, list | tuple) and len(raw) == 3 and all(type(c) is int and 0 <= c <= 255 for c in raw):
        return "#{:02x}{:02x}{:02x}".format(*raw)
    if isinstance(raw, str) and re.fullmatch(r"#[0-9a-fA-F]{6}", raw):
        return raw.lower()
    if isinstance(raw, str) and raw.isdecimal():  # a key of a mapping that was written as JSON
        raw = int(raw)
    if type(raw) is int and 0 <= raw <= LARGEST_VALUE:
        return raw
    allowed = f"a whole number from 0 to {LARGEST_VALUE}, or a colour such as [128, 0, 0] or '#800000'"
    raise ValueError(f"{raw!r} is no value of a pixel. Allowed: {allowed}")


def _foreground(raw: Any) -> str | tuple[int | str, ...]:
    """Reads one of ``WAYS``, or a list of values that is not empty."""
    if isinstance(raw, str) and not raw.startswith("#"):
        if raw not in WAYS:
            raise ValueError(f"unknown{did_you_mean(raw, list(WAYS))} Allowed: {', '.join(WAYS)}, or a list of values")
        return raw
    values = _values(raw)
    if not values:
        raise ValueError("the list is empty. Give the values or colours of the object, as in [1] or [[128, 0, 0]]")
    return values


def _values(raw: Any) -> tuple[int | str, ...]:
    """Reads one value or a list of values; repeated values are left out."""
    return tuple(dict.fromkeys(map(_value, raw if isinstance(raw, list | tuple) else [raw])))


Value = Annotated[int | str, BeforeValidator(_value)]
Foreground = Annotated[str | tuple[int | str, ...], BeforeValidator(_foreground)]
Ignore = Annotated[tuple[int | str, ...], BeforeValidator(_values)]


class Reading(NamedTuple):
    """All settings that decide how the files of pairs are read. They are a part of the cache's key."""

    single_value_masks: Literal["error", "allow"] = "error"
    exif: Rule = "auto"
    num_classes: int = 1
    foreground: str | tuple[int | str, ...] = "auto"
    ignore: tuple[int | str, ...] = ()
    classes: tuple[tuple[int | str, int], ...] = ()

    @property
    def mask_settings(self) -> tuple[Any, ...]:
        """The settings that give the pixels of a mask their meaning; at their defaults, fingerprints leave them out."""
        return self.foreground, self.ignore, self.classes


class PairFiles(Draw):
    """Settings of every dataset whose images and masks are files."""

    single_value_masks: Literal["error", "allow"] = "error"
    """``error`` refuses a mask that is all object or all background, which is usually a mistake."""
    foreground: Foreground = "auto"
    """Object of a mask. ``auto`` reads 0/1 and 0/255 masks, soft masks (above 128) and palettes of two numbers, and
    refuses all others. ``nonzero``: all but 0 and black. ``grey``: levels above 128, with any other levels. A list: grey
    levels, numbers of a palette, or colours as [red, green, blue]."""
    ignore: Ignore = ()
    """Values or colours of pixels that count neither in the loss nor in the scores, such as 255 in PASCAL VOC."""
    exif: Rule = "auto"
    """Orientation of a pair: as viewers show the files, as they are stored, or as their sizes suggest."""

    @model_validator(mode="after")
    def _each_value_means_one_thing(self) -> "PairFiles":
        both = set(self.foreground) & set(self.ignore) if isinstance(self.foreground, tuple) else ()
        if both:
            raise ValueError(f"foreground and ignore both name {', '.join(map(str, sorted(both, key=str)))}")
        return self

    def reading(self) -> Reading:
        """Returns these settings as ``to_mask`` takes them."""
        return Reading(self.single_value_masks, self.exif, foreground=self.foreground, ignore=self.ignore)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds ``--foreground`` and ``--ignore`` to a command that has no sweep file."""
    parser.add_argument(
        "--foreground",
        default="auto",
        metavar="WHAT",
        help="the object in masks: auto (default), nonzero, grey, or values such as 1, '[1, 15]' or '[[128, 0, 0]]'",
    )
    parser.add_argument("--ignore", default="[]", metavar="VALUES", help="values of masks that do not count, e.g. 255")


def reading_of(options: argparse.Namespace) -> Reading:
    """Reads the options of ``add_options``. Raises ``DataError`` for a text that names no value."""
    found: dict[str, PairFiles] = {}
    for field in ("foreground", "ignore"):
        text = getattr(options, field)
        try:
            found[field] = PairFiles.model_validate({field: parse(text)})
        except BadYaml as error:
            raise DataError([f"--{field} {text}: {error}"]) from None
        except ValidationError as error:
            reason = error.errors()[0]["msg"].removeprefix("Value error, ")
            raise DataError([f"--{field} {text}: {reason}"]) from None
    return Reading(foreground=found["foreground"].foreground, ignore=found["ignore"].ignore)


def listed(values: tuple[int | str, ...]) -> str:
    """Returns values as they are written in a setting."""
    return "[" + ", ".join(map(str, values)) + "]"
