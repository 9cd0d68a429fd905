"""Folders of prediction maps and masks: paired by name, and all files are checked before the first is scored.

A map holds the probability of the object. Its scale follows from its type and from the range of all maps of the folder,
since a single map may be dark: 8 bits are 0..255, 16 bits 0..65535, floats 0..1. A folder of integers up to 1 holds 0
and 1.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image

from bench.datasets import DataError
from bench.datasets.core.images import as_stored
from bench.datasets.core.pairing import Matching, by_name, file_digest, suffix_that_pairs
from bench.datasets.masks.mask import Mask, to_mask
from bench.datasets.masks.reading import Reading
from bench.datasets.masks.stored import COLOUR_NOISE, OBJECT
from bench.system.wording import some

LISTED = 20
"""Names of files in one line at most."""
ROUNDING = 1e-6
"""Largest excess of a float above 1: the rounding of sums in single precision."""
Kind = Literal["8 bits", "16 bits", "floats"]
ALLOWED = "no probability. Allowed are floats from 0 to 1, and whole numbers from 0 to 255 or to 65535"


class Pair(NamedTuple):
    """A prediction map and its mask."""

    name: str
    prediction: Path
    mask: Path


class Inspection(NamedTuple):
    """The properties of a pair, or the error that makes it unusable."""

    kind: Kind = "8 bits"
    """Type of the map's values."""
    highest: float = 0.0
    """Largest value of the map."""
    empty: bool = False
    """Whether the mask has no object."""
    how: str = ""
    """How the mask was read (``Mask.how``)."""
    almost_white: bool = False
    """Whether the mask holds levels from 129 to 254: object in one protocol, background in another."""
    digests: tuple[str, str] = ("", "")
    """Digests of the map's file and of the mask's file."""
    error: str = ""


def find_pairs(predictions: Path, masks: Path, mask_suffix: str = "", recursive: bool = False) -> list[Pair]:
    """Pairs the files of two folders, in the order of their names. Raises ``DataError`` for files without a partner."""
    errors: list[str] = []
    for folder in (predictions, masks):
        if not folder.is_dir():
            raise DataError([f"{folder}: {'is no folder' if folder.exists() else 'does not exist'}"])
    of_prediction = by_name(predictions, Matching(recursive=recursive), [], errors)
    of_mask = by_name(masks, Matching(mask_suffix=mask_suffix, recursive=recursive), [], errors)
    missing, extra = sorted(of_mask.keys() - of_prediction.keys()), sorted(of_prediction.keys() - of_mask.keys())
    if not errors and (missing or extra):
        ending, count = suffix_that_pairs(of_prediction.keys(), missing)
        hint = ""
        if count > len(of_mask) - len(missing):
            hint = f". Give --mask-suffix={ending}, which would pair {count} of {len(of_prediction)}"
        if missing:
            fault = f"{len(missing)} of {len(of_mask)} predictions are missing: {some(missing, LISTED)}"
            errors.append(f"{predictions}: {fault}{hint}")
        if extra:
            errors.append(f"{predictions}: {len(extra)} predictions have no mask in {masks}: {some(extra, LISTED)}")
    if errors:
        raise DataError([error.replace("dataset.recursive=true", "--recursive") for error in errors])
    return [Pair(name, of_prediction[name], of_mask[name]) for name in sorted(of_mask)]


def inspect(pair: Pair, reading: Reading) -> Inspection:
    """Decodes both files of a pair. An error is returned, not raised, so that all pairs are inspected."""
    try:
        values, mask = _read(pair, reading)
        if values.shape != mask.pixels.shape:
            sizes = " and ".join(f"{width} x {height}" for height, width in (values.shape, mask.pixels.shape))
            raise DataError([f"{pair.prediction}: prediction and mask differ in size, {sizes}"])
        levels = mask.pixels[mask.pixels > OBJECT]
        return Inspection(
            _kind(values),
            float(values.max()),
            mask.single == "background",
            mask.how,
            bool((levels < 255).any()),
            (file_digest(pair.prediction), file_digest(pair.mask)),
        )
    except DataError as error:
        return Inspection(error="\n".join(error.errors))


def full_scales(found: Iterable[Inspection]) -> dict[Kind, int]:
    """Returns the value that means certainty, for the maps of each kind, from the highest value of all of them.

    Raises ``DataError`` for values above every known scale.
    """
    highest: dict[Kind, float] = {}
    for each in found:
        highest[each.kind] = max(highest.get(each.kind, 0), each.highest)
    scales = {}
    for kind, value in highest.items():
        known = {"8 bits": (1, 255), "16 bits": (1, 255, 65535), "floats": (1 + ROUNDING,)}[kind]
        fitting = [scale for scale in known if value <= scale]
        if not fitting:
            raise DataError([f"maps of {kind} reach {value:g}: {ALLOWED}"])
        scales[kind] = int(fitting[0])
    return scales


def read(pair: Pair, reading: Reading, scales: Mapping[Kind, int]) -> tuple[np.ndarray, np.ndarray]:
    """Reads the map [H, W] as uint8 0..255 or float32 0..1, and the mask (``Mask.pixels``). Raises ``DataError``.

    16 bits are truncated to 8 as in OpenCV, which the published scripts read maps with.
    """
    values, mask = _read(pair, reading)
    scale = scales[_kind(values)]
    if values.dtype.kind == "f":
        return np.clip(values, 0, 1).astype(np.float32), mask.pixels
    if scale == 65535:
        return (values >> 8).astype(np.uint8), mask.pixels
    return (values * (255 // scale)).astype(np.uint8), mask.pixels


def _read(pair: Pair, reading: Reading) -> tuple[np.ndarray, Mask]:
    """Reads the map's values as stored, and the mask. Raises ``DataError``."""
    drawn, mask = as_stored(pair.prediction, pair.mask, reading.exif)
    return _values(drawn, pair.prediction), to_mask(mask, pair.mask, reading)


def _kind(values: np.ndarray) -> Kind:
    """Returns the kind of a map by the type of its values."""
    if values.dtype.kind == "f":
        return "floats"
    return "8 bits" if values.dtype == np.uint8 else "16 bits"


def _values(image: Image.Image, path: Path) -> np.ndarray:
    """Returns the values [H, W] of a map as stored. Raises ``DataError`` for values that are no probabilities."""
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image)
        if not np.isfinite(values).all():
            count = np.count_nonzero(~np.isfinite(values))
            raise DataError([f"{path}: {count} of {values.size} values are NaN or infinite"])
        low, high = values.min(), values.max()
        if low < 0 or high > (1 + ROUNDING if image.mode == "F" else 65535):
            raise DataError([f"{path}: values from {low:g} to {high:g} are {ALLOWED}"])
        return values if image.mode == "F" else values.astype(np.uint16)
    if image.mode in ("1", "L"):
        return np.asarray(image.convert("L"))
    bands = np.asarray(image.convert("RGBA")).astype(np.int16)
    colours, alpha = bands[..., :3], bands[..., 3]
    if (colours.max(axis=-1) - colours.min(axis=-1)).max() > COLOUR_NOISE:
        raise DataError(
            [f"{path}: is a picture in colours, not a map of grey levels. Save the probabilities themselves"]
        )
    if alpha.min() != alpha.max():
        raise DataError([f"{path}: is partly transparent. Save the probabilities in grey levels without transparency"])
    return np.asarray(image.convert("L"))
