"""Image files: their formats, the conversion of pixels to 8 bits, and the EXIF orientation of a pair.

A file that cannot be read without a guess is a ``DataError`` with the name of the file and a remedy.
"""

import io
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from bench.datasets import DataError

EXTENSIONS = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"}
FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP")
"""Formats that are decoded. PIL starts other programs for some further formats."""
MOST_PIXELS = 89_478_485
"""Pixels of an image at most: 0.25 GiB of RGB, above which PIL warns of a decompression bomb."""
ORIENTATION = 0x0112
"""EXIF tag."""
QUARTER_TURNS = (5, 6, 7, 8)
"""Values of the tag that swap width and height."""

Rule = Literal["auto", "shown", "stored"]
"""Use of the EXIF orientation: ``shown`` as in viewers, ``stored`` without it (upstream), ``auto`` by the sizes."""


class Header(NamedTuple):
    """The size and orientation of an image file, known before its pixels are decoded."""

    width: int
    height: int
    orientation: int
    """EXIF orientation, 1 to 8; 1 is upright."""

    @property
    def stored(self) -> tuple[int, int]:
        """Width and height as stored."""
        return self.width, self.height

    @property
    def shown(self) -> tuple[int, int]:
        """Width and height in a viewer."""
        return (self.height, self.width) if self.orientation in QUARTER_TURNS else self.stored


def header(path: Path) -> Header:
    """Reads the header. Raises ``DataError`` for a file that is no image, has several frames, or is too large."""
    with _opened(path) as image:
        return _header(image)


def read_image(path: Path, rule: Rule = "auto") -> Image.Image:
    """Reads an image in RGB: as stored with the rule ``stored``, else as viewers show it. Raises ``DataError``."""
    return to_rgb(_turned(_decoded(path)[0], shown=rule != "stored"), path)


def read_pair(image: Path, mask: Path, rule: Rule) -> tuple[Image.Image, Image.Image]:
    """Reads an image in RGB and a mask in its stored mode, in the same orientation. Raises ``DataError``."""
    pixels, drawn = as_stored(image, mask, rule)
    return to_rgb(pixels, image), drawn


def as_stored(first: Path, second: Path, rule: Rule) -> tuple[Image.Image, Image.Image]:
    """Reads two files of one scene in their stored modes, in the same orientation. Raises ``DataError``."""
    (one, of_one), (other, of_other) = _decoded(first), _decoded(second)
    shown = read_as_shown(first, of_one, second, of_other, rule)
    return _turned(one, shown), _turned(other, shown)


def read_mask(mask: Path, image: Path, rule: Rule) -> Image.Image:
    """Reads the mask of ``read_pair`` without decoding the image. Raises ``DataError``."""
    drawn, of_mask = _decoded(mask)
    shown = rule == "shown" or rule == "auto" and read_as_shown(image, header(image), mask, of_mask, rule)
    return _turned(drawn, shown)


def read_as_shown(image: Path, of_image: Header, mask: Path, of_mask: Header, rule: Rule) -> bool:
    """Whether both files of a pair are turned by their EXIF orientation; otherwise both are read as stored.

    ``auto`` decides by which reading their sizes agree. Raises ``DataError`` if the orientations differ and the sizes
    agree in both readings (a half turn, a flip, a square image), because either reading may be wrong.
    """
    if rule != "auto":
        return rule == "shown"
    if of_image.orientation == of_mask.orientation:
        return True
    as_shown, as_stored = of_image.shown == of_mask.shown, of_image.stored == of_mask.stored
    if as_shown and as_stored:
        tags = f"{of_image.orientation} for the image and {of_mask.orientation} for the mask {mask}"
        remedy = "dataset.exif=shown to turn each by its own, dataset.exif=stored to turn neither (as upstream)"
        raise DataError([f"{image}: the EXIF orientations differ, {tags}, and the sizes do not tell. Set {remedy}"])
    return as_shown or not as_stored


def _decoded(path: Path) -> tuple[Image.Image, Header]:
    """Decodes an image in its stored mode, and its header. Raises ``DataError``."""
    with _opened(path) as image:
        try:
            image.load()
            return image, _header(image)
        except (OSError, ValueError, SyntaxError, MemoryError) as error:
            raise DataError([f"{path}: cannot be read ({error})"]) from None


def _turned(image: Image.Image, shown: bool) -> Image.Image:
    """Returns the image in the orientation of viewers if ``shown``, else as it is stored."""
    if not shown:
        return image
    turned = ImageOps.exif_transpose(image)
    turned.format = image.format  # the reader of masks needs it
    return turned


def to_rgb(image: Image.Image, path: Path) -> Image.Image:
    """Converts any mode to RGB as PIL does (alpha is dropped, as in upstream), but scales 16 bits, not clips them."""
    if image.mode.startswith("I") or image.mode == "F":
        return Image.fromarray(to_8_bits(deep_values(image, path))).convert("RGB")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")


def deep_values(image: Image.Image, path: Path) -> np.ndarray:
    """Returns the grey levels [H, W] of an image of 16 or 32 bits or floats. Raises ``DataError`` for other values."""
    values = np.asarray(image)
    low, high = values.min(), values.max()
    if not (np.isfinite(values).all() and low >= 0 and high <= 65535):
        raise DataError([f"{path}: pixels from {low} to {high}. Known are 8 and 16 bits, and floats of 0 to 1"])
    return values


def to_8_bits(values: np.ndarray) -> np.ndarray:
    """Converts grey levels to uint8: 16 bits and floats of 0..1 are scaled, values within 0..255 are kept."""
    high = values.max()
    if high > 255:
        return (values // 257).astype(np.uint8)
    if values.dtype.kind == "f" and high <= 1:
        values = values * 255
    return np.round(values).astype(np.uint8)


def _header(image: Image.Image) -> Header:
    turned_when_decoded = image.format == "TIFF"  # PIL turns TIFF files itself and gives the size after that
    orientation = 1 if turned_when_decoded else image.getexif().get(ORIENTATION, 1)
    return Header(*image.size, orientation if orientation in range(1, 9) else 1)


def _opened(path: Path) -> Image.Image:
    """Opens an image without decoding its pixels. Raises ``DataError``."""
    try:  # from bytes, because PIL does not turn a TIFF file that it maps
        image = Image.open(io.BytesIO(path.read_bytes()), formats=FORMATS)
    except Image.DecompressionBombError:
        raise DataError([_bomb(path, f"more than {2 * MOST_PIXELS:,}")]) from None
    except UnidentifiedImageError:
        raise DataError([f"{path}: cannot be read (not an image)"]) from None
    except (OSError, ValueError, SyntaxError) as error:
        raise DataError([f"{path}: cannot be read ({error})"]) from None
    width, height = image.size
    if width * height > MOST_PIXELS:
        image.close()
        raise DataError([_bomb(path, f"{width} x {height} = {width * height:,}")])
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":  # MPO: a JPEG file with previews, as phones write it
        image.close()
        raise DataError([f"{path}: holds {frames} images. Save the one that is meant in a file of its own"])
    return image


def _bomb(path: Path, pixels: str) -> str:
    """Returns the error for an image with too many pixels."""
    return f"{path}: {pixels} pixels, refused as a decompression bomb (at most {MOST_PIXELS:,}). Make it smaller"
