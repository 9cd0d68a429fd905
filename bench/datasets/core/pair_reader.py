"""Pairs of files as the cache and the scores need them: resized, and at their original size."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from PIL import __version__ as PILLOW

from bench.config.settings import TransformConfig
from bench.datasets import IGNORED, DataError
from bench.datasets.core import cache
from bench.datasets.core.images import read_mask, read_pair
from bench.datasets.core.pairing import Pair, content_of
from bench.datasets.core.transforms import resize_image, resize_mask
from bench.datasets.masks.mask import Mask, to_mask
from bench.datasets.masks.reading import Reading
from bench.datasets.masks.stored import OBJECT

Stamp = tuple[str, int, int]
"""Path, size and time of modification of a file."""


class PairSet(NamedTuple):
    """A set of pairs that are read alike."""

    name: str
    pairs: list[Pair]
    reading: Reading


class PairReader:
    """Reads the pairs of several sets by their number, which counts the pairs of all sets in their order."""

    def __init__(self, sets: list[PairSet], transform: TransformConfig) -> None:
        """Raises ``DataError`` for a file that cannot be read."""
        self.sets, self.transform = sets, transform
        self.pairs: list[Pair] = []
        self.readings: list[Reading] = []
        for each in sets:
            self.pairs += each.pairs
            self.readings += [each.reading] * len(each.pairs)
        self._stamps = [_stamps(pair) for pair in self.pairs]
        stamps: list[Stamp] = []
        for both in self._stamps:
            stamps += both
        self.contents: list[str] = cache.remembered({"contents": stamps}, self._read_contents)
        """``content_of`` each pair."""

    def _read_contents(self) -> list[str]:
        return [content_of(pair) for pair in self.pairs]

    def contents_of(self, numbers: np.ndarray) -> list[str]:
        """Returns the contents of some pairs."""
        return [self.contents[i] for i in numbers]

    @property
    def mask_type(self) -> type[np.integer]:
        """Type of the masks' values: int16 if some may be IGNORED."""
        return np.int16 if any(each.reading.ignore for each in self.sets) else np.uint8

    def image_digests(self) -> list[str]:
        """Returns the digest of each pair's image file."""
        return [content.split("/")[-2] for content in self.contents]

    def names(self, numbers: np.ndarray) -> tuple[str, ...]:
        """Returns the names of some pairs."""
        return tuple(self.pairs[i].stem for i in numbers)

    def cache_key(self) -> dict[str, Any]:
        """Returns everything that decides the content of the cache, as JSON."""
        files = [content.partition("/")[2] for content in self.contents]
        readings = [(len(each.pairs), each.reading) for each in self.sets]
        resize = self.transform.mask_resize
        return {"files": files, "mask_resize": resize, "readings": readings, "pillow": PILLOW}

    def read(self, i: int) -> cache.Pair:
        """Returns image and mask of pair ``i``, resized, and facts about the mask. Raises ``DataError``."""
        image, mask = self._open(self.pairs[i], self.readings[i])
        small = resize_mask(mask.pixels, self.transform.size, self.transform.mask_resize)
        return resize_image(image, self.transform.size), small, _facts(mask, self.readings[i].num_classes)

    def _open(self, pair: Pair, reading: Reading) -> tuple[Image.Image, Mask]:
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

    def ground_truth(self, i: int) -> np.ndarray:
        """Returns the mask of pair ``i`` at its original size [H, W]: ``Mask.pixels``. Raises ``DataError``."""
        pair, reading = self.pairs[i], self.readings[i]
        return to_mask(read_mask(pair.mask, pair.image, reading.exif), pair.mask, reading).pixels

    def changed(self) -> list[str]:
        """Returns a line for each pair whose files have another content than when they were read."""
        lines = []
        for pair, stamps, content in zip(self.pairs, self._stamps, self.contents):
            if _stamps_if_there(pair) != stamps and content_of(pair) != content:
                lines.append(f"{pair.image} or its mask has changed since")
        return lines


def _facts(mask: Mask, num_classes: int) -> dict[str, Any]:
    """Returns facts about a mask that the cache keeps with it: how it was read, and which values it has."""
    counted = mask.pixels[mask.pixels != IGNORED]
    return {
        "how": mask.how,
        "object": bool((counted > (OBJECT if num_classes == 1 else 0)).any()),
        "almost_white": bool(((counted > OBJECT) & (counted < 255)).any()),
    }


def _stamp(path: Path) -> Stamp:
    status = path.stat()
    return str(path.resolve()), status.st_size, status.st_mtime_ns


def _stamps(pair: Pair) -> list[Stamp]:
    return [_stamp(pair.image), _stamp(pair.mask)]


def _stamps_if_there(pair: Pair) -> list[Stamp] | None:
    """Returns the stamps of both files; ``None`` if one is gone."""
    return _stamps(pair) if pair.image.exists() and pair.mask.exists() else None
