"""Image files: which are read, how each kind of pixel becomes 8 bits, and which way up a pair is read.

Nothing is guessed silently: what cannot be read for sure is a ``DataError`` with the file's name and a remedy.
"""

import io
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from bench.datasets import DataError

EXTENSIONS = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"}
FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP")  # by content; PIL would start other programs for some more
MOST_PIXELS = 89_478_485  # a quarter GiB of RGB: where PIL begins to warn of a decompression bomb
ORIENTATION = 0x0112  # EXIF tag
QUARTER_TURNS = (5, 6, 7, 8)  # values of the tag that swap width and height

Rule = Literal["auto", "shown", "stored"]
"""How EXIF orientation is read: as viewers show the files, as the pixels are stored (upstream), or as the sizes say."""


class Header(NamedTuple):
    """What a file says of itself before its pixels are decoded."""

    width: int
    height: int
    orientation: int  # EXIF, 1 to 8; 1 is upright

    @property
    def stored(self) -> tuple[int, int]:
        return self.width, self.height

    @property
    def shown(self) -> tuple[int, int]:
        return (self.height, self.width) if self.orientation in QUARTER_TURNS else self.stored


def header(path: Path) -> Header:
    """Raises ``DataError`` for what is no readable image, is an animation, or is too large to be one."""
    with _opened(path) as image:
        return _header(image)


def read_image(path: Path, rule: Rule = "auto") -> Image.Image:
    """An image in RGB, as it is stored by ``stored`` and else turned as viewers show it. Raises ``DataError``."""
    return to_rgb(_turned(_decoded(path)[0], shown=rule != "stored"), path)


def read_pair(image: Path, mask: Path, rule: Rule) -> tuple[Image.Image, Image.Image]:
    """Image in RGB, and mask in the mode that it is stored in, the same way up. Raises ``DataError``."""
    pixels, drawn = as_stored(image, mask, rule)
    return to_rgb(pixels, image), drawn


def as_stored(first: Path, second: Path, rule: Rule) -> tuple[Image.Image, Image.Image]:
    """Two files of one scene in the modes that they are stored in, the same way up. Raises ``DataError``."""
    (one, of_one), (other, of_other) = _decoded(first), _decoded(second)
    shown = read_as_shown(first, of_one, second, of_other, rule)
    return _turned(one, shown), _turned(other, shown)


def read_mask(mask: Path, image: Path, rule: Rule) -> Image.Image:
    """The mask of ``read_pair`` without decoding the image."""
    drawn, of_mask = _decoded(mask)
    shown = rule == "shown" or rule == "auto" and read_as_shown(image, header(image), mask, of_mask, rule)
    return _turned(drawn, shown)


def read_as_shown(image: Path, of_image: Header, mask: Path, of_mask: Header, rule: Rule) -> bool:
    """Whether the two files of a pair are both turned as their EXIF data say, or both left as they are stored.

    ``auto``: whichever makes their sizes agree. A tag that only one of them carries and that leaves the size alone (a
    half turn, a flip, a square image) decides nothing: ``DataError``, for either reading may spoil the pair.
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
    """The image as it is stored, in whatever mode. Raises ``DataError``."""
    with _opened(path) as image:
        try:
            image.load()
            return image, _header(image)
        except (OSError, ValueError, SyntaxError, MemoryError) as error:
            raise DataError([f"{path}: cannot be read ({error})"]) from None


def _turned(image: Image.Image, shown: bool) -> Image.Image:
    if not shown:
        return image
    turned = ImageOps.exif_transpose(image)
    turned.format = image.format  # masks are read by it
    return turned


def to_rgb(image: Image.Image, path: Path) -> Image.Image:
    """Any mode to RGB as PIL converts it (alpha is dropped, as upstream does), but 16 bits are scaled, not clipped."""
    if image.mode.startswith("I") or image.mode == "F":
        return Image.fromarray(to_8_bits(deep_values(image, path))).convert("RGB")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")


def deep_values(image: Image.Image, path: Path) -> np.ndarray:
    """The values [H, W] of an image of 16 or 32 bits or of floats. Raises ``DataError`` for what is no grey level."""
    values = np.asarray(image)
    low, high = values.min(), values.max()
    if not (np.isfinite(values).all() and low >= 0 and high <= 65535):
        raise DataError([f"{path}: pixels from {low} to {high}. Known are 8 and 16 bits, and floats of 0 to 1"])
    return values


def to_8_bits(values: np.ndarray) -> np.ndarray:
    """Grey levels as uint8: 16 bits scaled, floats of 0..1 too; values that lie within 0..255 already stay."""
    high = values.max()
    if high > 255:
        return (values // 257).astype(np.uint8)
    if values.dtype.kind == "f" and high <= 1:
        values = values * 255
    return np.round(values).astype(np.uint8)


def _header(image: Image.Image) -> Header:
    turned_when_decoded = image.format == "TIFF"  # PIL does that itself, and gives the size after it
    orientation = 1 if turned_when_decoded else image.getexif().get(ORIENTATION, 1)
    return Header(*image.size, orientation if orientation in range(1, 9) else 1)


def _opened(path: Path) -> Image.Image:
    try:  # from bytes: PIL forgets to turn a TIFF file that it maps
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
    if frames > 1 and image.format != "MPO":  # a phone's JPEG with a preview behind it
        image.close()
        raise DataError([f"{path}: holds {frames} images. Save the one that is meant in a file of its own"])
    return image


def _bomb(path: Path, pixels: str) -> str:
    return f"{path}: {pixels} pixels, refused as a decompression bomb (at most {MOST_PIXELS:,}). Make it smaller"
