"""Image files as they come: which are read, how each kind of pixel becomes 8 bits, and which way up a pair is read.

Nothing is guessed silently: what cannot be read for sure is a ``DataError`` with the file's name and a remedy.
"""

import io
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from bench.datasets import DataError, some

EXTENSIONS = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"}
FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP")  # by content; PIL would start other programs for some more
MOST_PIXELS = 89_478_485  # a quarter GiB of RGB: where PIL begins to warn of a decompression bomb
OBJECT = 128  # py_sod_metrics: above it is object
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


def read_image(path: Path) -> Image.Image:
    """An image in RGB, turned as viewers show it. Raises ``DataError``."""
    return to_rgb(_turned(_decoded(path)[0], shown=True), path)


def read_pair(image: Path, mask: Path, rule: Rule) -> tuple[Image.Image, Image.Image]:
    """Image in RGB, and mask in the mode that it is stored in, the same way up. Raises ``DataError``."""
    pixels, of_image = _decoded(image)
    drawn, of_mask = _decoded(mask)
    shown = read_as_shown(image, of_image, mask, of_mask, rule)
    return to_rgb(_turned(pixels, shown), image), _turned(drawn, shown)


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
    return ImageOps.exif_transpose(image) if shown else image


def to_rgb(image: Image.Image, path: Path) -> Image.Image:
    """Any mode to RGB as PIL converts it (alpha is dropped, as upstream does), but 16 bits are scaled, not clipped."""
    if image.mode.startswith("I") or image.mode == "F":
        return Image.fromarray(_to_8_bits(image, path)).convert("RGB")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")


class Mask(NamedTuple):
    image: Image.Image  # mode L, 0..255
    how: str  # what kind of mask it was and how it was read


BINARY = "0 and 255"


def to_mask(image: Image.Image, path: Path) -> Mask:
    """Any mode to grey, 0..255; above ``OBJECT`` is object. ``how`` says what was done."""
    grey, how = _grey(image, path)
    values = np.unique(grey)
    if values[-1] == 1:
        return Mask(Image.fromarray(grey * np.uint8(255)), f"{how}0 and 1, read as 0 and 255")
    binary = set(values.tolist()) <= {0, 255}
    levels = BINARY if binary else f"grey levels, object above {OBJECT}, soft in training"
    return Mask(Image.fromarray(grey), f"{how}{levels}")


def to_class_numbers(image: Image.Image, path: Path, num_classes: int) -> Image.Image:
    """A mask of class numbers (grey values, or a palette's numbers), unchanged, in mode L. Raises ``DataError``."""
    if not (image.mode in ("1", "L", "P") or image.mode.startswith("I")):
        kinds = "grey values or a palette's numbers"
        raise DataError([f"{path}: is of mode {image.mode}, but a mask of {num_classes} classes holds {kinds}"])
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() >= num_classes:
        outside = [str(v) for v in np.unique(values) if not 0 <= v < num_classes]
        raise DataError(
            [f"{path}: holds {some(outside)}, but dataset.num_classes={num_classes} allows 0 to {num_classes - 1}"]
        )
    return Image.fromarray(values.astype(np.uint8))


def _grey(image: Image.Image, path: Path) -> tuple[np.ndarray, str]:
    """Grey values uint8 [H, W] and where they came from, "" for the plain kinds."""
    if image.mode.startswith("I") or image.mode == "F":
        return _to_8_bits(image, path), "16 or 32 bits, scaled to 8: " if image.mode != "F" else "floats, scaled: "
    if image.mode == "P":
        indices = np.asarray(image)
        used, palette = np.unique(indices), image.getpalette("RGB")
        grey_palette = all(palette[3 * i] == palette[3 * i + 1] == palette[3 * i + 2] for i in used)
        if not grey_palette and len(used) <= 2 and palette[:3] == [0, 0, 0]:  # e.g. VOC's dark red for class 1
            return (indices > 0).astype(np.uint8) * np.uint8(255), "coloured palette, all but colour 0 is object: "
        return np.asarray(image.convert("RGB").convert("L")), "palette, " if grey_palette else "palette by lightness, "
    if image.mode in ("LA", "RGBA", "PA", "La", "RGBa"):
        alpha, grey = np.asarray(image.getchannel(image.getbands()[-1])), np.asarray(image.convert("L"))
        if grey.min() == grey.max() and alpha.min() < alpha.max():
            return alpha, "drawn in the alpha channel: "
        return grey, "alpha dropped, "
    if image.mode == "RGB":
        pixels = np.asarray(image)
        coloured = bool((pixels != pixels[..., :1]).any())
        return np.asarray(image.convert("L")), "colours by lightness, " if coloured else ""
    return np.asarray(image.convert("L")), ""


def _to_8_bits(image: Image.Image, path: Path) -> np.ndarray:
    """16 bit values to 0..255, floats of 0..1 too; values that are 0..255 already stay. Raises ``DataError``."""
    values = np.asarray(image)
    low, high = values.min(), values.max()
    if not (low >= 0 and high <= 65535):
        raise DataError([f"{path}: pixels from {low} to {high}. Known are 8 and 16 bits, and floats of 0 to 1"])
    if high > 255:
        return (values // 257).astype(np.uint8)
    if image.mode == "F" and high <= 1:
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
