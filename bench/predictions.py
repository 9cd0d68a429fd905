"""Folders of predictions and masks: paired by stem, checked before anything is scored, read as 8-bit grey."""

import io
from collections.abc import Iterable
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from PIL import Image

from bench.datasets import DataError, some
from bench.datasets._images import EXTENSIONS, FORMATS, MOST_PIXELS
from bench.datasets.folder import pictures

LISTED = 20  # names in one line; the count says how many there are
UNREADABLE = (OSError, ValueError, SyntaxError, MemoryError, Image.DecompressionBombError)
"""What PIL raises for files that are no images, or not whole."""


class Pair(NamedTuple):
    name: str
    prediction: Path
    mask: Path


def find_pairs(predictions: Path, masks: Path) -> list[Pair]:
    """Pairs of the two folders in the order of their stems. Raises ``DataError`` naming what is missing or extra."""
    of_prediction, of_mask = _images(predictions), _images(masks)
    missing, extra = sorted(of_mask.keys() - of_prediction.keys()), sorted(of_prediction.keys() - of_mask.keys())
    errors = []
    if missing:
        errors.append(
            f"{predictions}: {len(missing)} of {len(of_mask)} predictions are missing: {some(missing, LISTED)}"
        )
    if extra:
        errors.append(f"{predictions}: {len(extra)} predictions have no mask in {masks}: {some(extra, LISTED)}")
    if errors:
        raise DataError(errors)
    return [Pair(stem, of_prediction[stem], of_mask[stem]) for stem in sorted(of_mask)]


def check_sizes(pairs: Iterable[Pair]) -> None:
    """Raises ``DataError`` naming the predictions that are not as large as their masks. Nothing is resized."""
    wrong, unreadable = [], []
    for pair in pairs:
        try:
            with _opened(pair.prediction) as prediction, _opened(pair.mask) as mask:
                sizes = [f"{i.width}x{i.height}" for i in (prediction, mask)]
        except UNREADABLE:
            unreadable.append(pair.name)
            continue
        if sizes[0] != sizes[1]:
            wrong.append(f"{pair.name} ({sizes[0]}, mask {sizes[1]})")
    errors = [f"{len(wrong)} predictions have another size than their masks: {some(wrong, LISTED)}"] * bool(wrong)
    errors += [f"{len(unreadable)} pairs cannot be read: {some(unreadable, LISTED)}"] * bool(unreadable)
    if errors:
        raise DataError(errors)


def grey(content: bytes) -> np.ndarray:
    """A file's pixels as uint8 [H, W]; 16 bits are brought down to 8 as OpenCV does."""
    with _opened(io.BytesIO(content)) as image:
        if image.mode.startswith("I"):
            values = np.asarray(image)
            return (values >> 8 if values.max() > 255 else values).astype(np.uint8)
        return np.asarray(image.convert("L"))


def _opened(file: Path | IO[bytes]) -> Image.Image:
    """Raises one of ``UNREADABLE``, also for what would fill the memory, or start another program to be read."""
    image = Image.open(file, formats=FORMATS)
    if image.width * image.height > MOST_PIXELS:
        image.close()
        raise ValueError(f"{image.width} x {image.height} pixels, refused as a decompression bomb")
    return image


def _images(folder: Path) -> dict[str, Path]:
    """Image files of a folder by stem."""
    if not folder.is_dir():
        raise DataError([f"{folder}: {'is no folder' if folder.exists() else 'does not exist'}"])
    files, _ = pictures(folder)
    files.sort()
    found = {f.stem: f for f in files}
    twice = sorted({f.stem for f in files if found[f.stem] != f})
    if not found or twice:
        problem = (
            f"more than one file for {some(twice, LISTED)}"
            if twice
            else f"no images. Known: {', '.join(sorted(EXTENSIONS))}"
        )
        raise DataError([f"{folder}: {problem}"])
    return found
