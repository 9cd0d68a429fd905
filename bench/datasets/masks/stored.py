"""Values that a mask file stores: grey levels, numbers of a palette, or colours, before their meaning is decided."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image

from bench.datasets import DataError
from bench.datasets.core.images import deep_values, to_8_bits
from bench.system.wording import some

OBJECT = 128
"""Largest grey level of the background, as in py_sod_metrics."""
COLOUR_NOISE = 8
"""Largest difference between the channels of a grey pixel in a lossy file."""
LOSSY = ("JPEG", "MPO")
LISTED = 6
"""Number of values in an error."""


class Stored(NamedTuple):
    """The values of a mask file."""

    kind: Literal["grey", "palette", "colour"]
    numbers: np.ndarray
    """[H, W]: grey levels as stored (integers or floats), numbers of a palette, or 0xRRGGBB."""
    palette: dict[int, int]
    """0xRRGGBB of each number of the palette that is used."""
    how: str
    """How the file was read, in words; empty for plain grey levels."""
    lossy: bool

    @property
    def is_grey(self) -> bool:
        """Whether every pixel has a grey level."""
        return self.kind != "colour" and all(is_grey(colour) for colour in self.palette.values())

    def levels(self) -> np.ndarray:
        """Returns grey levels uint8 [H, W] of a mask without colours."""
        if self.kind == "palette":
            levels = np.zeros(256, np.uint8)
            for number, colour in self.palette.items():
                levels[number] = colour & 0xFF
            return levels[self.numbers]
        return to_8_bits(self.numbers)

    def has_any(self, values: tuple[int | str, ...], path: Path) -> np.ndarray:
        """Returns the pixels, bool [H, W], that have one of the values.

        Raises ``DataError`` for a number in a file of colours, where it has no meaning.
        """
        found = np.zeros(self.numbers.shape, bool)
        for value in values:
            if isinstance(value, str):
                for number in self._numbers_of(int(value[1:], 16)):
                    found |= self.numbers == number
            elif self.kind == "colour":
                remedy = "Name colours, as in [[128, 0, 0]]"
                raise DataError([f"{path}: holds colours ({self.in_words()}), and {value} is a number. {remedy}"])
            else:
                found |= self.numbers == value
        return found

    def _numbers_of(self, colour: int) -> Iterator[int]:
        """Yields the numbers in the file that show a colour."""
        if self.kind == "colour":
            yield colour
        elif self.kind == "palette":
            for number, shown in self.palette.items():
                if shown == colour:
                    yield number
        elif is_grey(colour):
            yield colour & 0xFF

    def in_words(self, where: np.ndarray | None = None) -> str:
        """Returns the values with the colours of a palette's numbers, as in ``0 #000000, 15 #c08080 and 4 more``.

        where: bool [H, W], the pixels whose values are listed; by default all.
        """
        numbers = np.unique(self.numbers if where is None else self.numbers[where]).tolist()
        if self.kind == "colour":
            return some([f"#{number:06x}" for number in numbers], LISTED)
        if self.is_grey:
            return some([f"{number:g}" for number in numbers], LISTED)
        return some([f"{number} #{self.palette[number]:06x}" for number in numbers], LISTED)


def stored(image: Image.Image, path: Path) -> Stored:
    """Reads the values of a mask of any mode. Raises ``DataError`` if colours and alpha draw different masks."""
    lossy = image.format in LOSSY
    if image.mode.startswith("I") or image.mode == "F":
        how = "floats, scaled: " if image.mode == "F" else "16 or 32 bits, scaled to 8: "
        return Stored("grey", deep_values(image, path), {}, how, lossy)
    if image.mode == "P":
        return _of_palette(image, lossy)
    how = ""
    if "A" in image.getbands() or "a" in image.getbands():
        alpha = np.asarray(image.getchannel(image.getbands()[-1]))
        if alpha.min() < alpha.max():
            colours = np.asarray(image.convert("RGB"))
            if (colours == colours[:1, :1]).all():
                return Stored("grey", alpha, {}, "drawn in the alpha channel: ", lossy)
            if not np.array_equal(np.asarray(image.convert("L")) > OBJECT, alpha > OBJECT):
                both = "its colours and its alpha channel both draw something, and not the same"
                raise DataError([f"{path}: {both}. Save the one that is the mask without the other"])
        how = "alpha dropped, "
    if image.mode not in ("1", "L", "LA", "La"):
        pixels = np.asarray(image.convert("RGB")).astype(np.int32)
        difference = pixels.max(axis=-1) - pixels.min(axis=-1)
        if difference.max() > COLOUR_NOISE:
            packed = pixels[..., 0] << 16 | pixels[..., 1] << 8 | pixels[..., 2]
            return Stored("colour", packed, {}, f"{how}colours, ", lossy)
        if difference.any():
            how += "colours by lightness, "
    return Stored("grey", np.asarray(image.convert("L")), {}, how, lossy)


def _of_palette(image: Image.Image, lossy: bool) -> Stored:
    numbers = np.asarray(image)
    table = image.getpalette("RGB")
    used = {}
    for number in np.unique(numbers).tolist():
        colour = table[3 * number : 3 * number + 3]
        red, green, blue = colour or (0, 0, 0)  # a file may use numbers beyond its palette
        used[number] = red << 16 | green << 8 | blue
    how = "palette, " if all(map(is_grey, used.values())) else "coloured palette, "
    return Stored("palette", numbers, used, how, lossy)


def is_grey(packed: int) -> bool:
    """Whether the three channels of 0xRRGGBB are equal."""
    return packed % 0x010101 == 0
