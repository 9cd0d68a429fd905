"""Sample predictions of a trial: thumbnails of a few test images with their masks and predictions.

The images are the best, median and worst ones by the main metric, and a fixed subset that all trials of the same data
share: a hash of the name selects it, no result does. All come from the first test set.

The scores select the images only after all images are scored. To bound memory, the selected images are then predicted
a second time, after the measured phases, and no thumbnail of another image is made.
"""

import hashlib
import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from bench.datasets import IGNORED, Split
from bench.scoring.metrics import METRICS, main_metric
from bench.system import parquet

LONG_SIDE = 160
EACH = 2
"""Number of best, of median and of worst images."""
SHARED = 6
"""Number of images that all trials of the same data share."""
JPEG_QUALITY = 80
REASONS = ("best", "median", "worst", "shared")

COLUMNS = {
    "name": parquet.TEXT,
    "why": parquet.TEXTS,
    "metric": parquet.TEXT,
    "score": parquet.NUMBER,
    "image": parquet.BYTES,
    "mask": parquet.BYTES,
    "prediction": parquet.BYTES,
}
"""Columns of the Parquet file: the fields of a ``Sample``."""

Predict = Callable[[Split], Iterable[tuple[str, np.ndarray, np.ndarray]]]


@dataclass(frozen=True)
class Sample:
    """One test image of a trial. All three pictures have one size, at most ``LONG_SIDE`` on the longer side."""

    name: str
    why: tuple[str, ...]
    """``REASONS`` why the image was selected."""
    metric: str
    score: float
    """Score of this image on ``metric``."""
    image: bytes
    """JPEG in RGB: the input of the model in the shape of the mask."""
    mask: bytes
    """PNG in grey, or with a palette if the mask holds classes."""
    prediction: bytes
    """PNG as the mask."""


def take(split: Split, scores: Mapping[str, Sequence], predict: Predict, num_classes: int = 1) -> dict[str, list]:
    """Returns the samples of a scored split as columns, in the order of the split; no rows if no score is finite.

    scores: name and metrics of every image of the split, in its order. predict: yields (name, prediction, mask) of a
    split, as ``bench.scoring.evaluate.predict``; it gets a split of the selected images only.
    """
    metric = main_metric(scores)
    why = choose(scores["name"], scores[metric], METRICS[metric].better)
    chosen = sorted(why)
    few = replace(split, indices=split.indices[chosen], names=tuple(split.names[i] for i in chosen))
    columns: dict[str, list] = {name: [] for name in Sample.__dataclass_fields__}
    for i, (name, prediction, mask) in zip(chosen, predict(few) if chosen else ()):
        size = thumbnail_size(mask.shape)
        image = Image.fromarray(np.asarray(split.images[split.indices[i]])).resize(size, Image.Resampling.LANCZOS)
        pictures = image, _thumbnail(mask, size, num_classes), _thumbnail(prediction, size, num_classes)
        values = name, why[i], metric, float(scores[metric][i]), *map(_encoded, pictures, ("JPEG", "PNG", "PNG"))
        for column, value in zip(columns.values(), values):
            column.append(value)
    return columns


def choose(names: Sequence[str], values: Sequence[float], better: str) -> dict[int, tuple[str, ...]]:
    """Selects images; returns the reasons of each by its number, in the order of ``REASONS``.

    Equal values are ordered by name. An image without a finite value can only be shared.
    """
    sign = 1 if better == "lower" else -1
    ranked = sorted(
        (i for i, value in enumerate(values) if np.isfinite(value)), key=lambda i: (sign * values[i], names[i])
    )
    middle = max(0, (len(ranked) - EACH) // 2)
    picked = {
        "best": ranked[:EACH],
        "median": ranked[middle : middle + EACH],
        "worst": ranked[-EACH:],
        "shared": sorted(range(len(names)), key=lambda i: hashlib.sha256(names[i].encode()).digest())[:SHARED],
    }
    reasons: dict[int, tuple[str, ...]] = {}
    for reason in REASONS:
        for i in picked[reason]:
            reasons[i] = (*reasons.get(i, ()), reason)
    return reasons


def thumbnail_size(shape: tuple[int, int]) -> tuple[int, int]:
    """Returns width and height of the thumbnail of [H, W]: at most that size, and at least one pixel."""
    height, width = shape
    scale = min(1.0, LONG_SIDE / max(height, width))
    return max(1, round(width * scale)), max(1, round(height * scale))


def load_samples(folder: Path, trial_id: str) -> list[Sample]:
    """Reads the samples of a trial in the order of its test set; an empty list if there is no usable file."""
    return read_samples(folder, trial_id)[0]


def read_samples(folder: Path, trial_id: str) -> tuple[list[Sample], str]:
    """Returns ``load_samples``, and a line if the file cannot be used."""
    path = folder / f"{trial_id}.samples.parquet"
    columns, line = parquet.read(path, COLUMNS, COLUMNS, parquet.READING)
    if not columns:
        return [], line
    samples = []
    for values in zip(*(columns[name] for name in COLUMNS)):
        sample = Sample(*values)
        sample = replace(sample, why=tuple(sample.why))
        if not set(sample.why) <= set(REASONS) or sample.metric not in METRICS:
            return [], f"{path}: cannot be used (it holds an unknown reason or metric)"
        samples.append(sample)
    return samples, line


def _thumbnail(values: np.ndarray, size: tuple[int, int], num_classes: int) -> Image.Image:
    """Draws the thumbnail of a mask or prediction [H, W] (uint8, float 0..1, or int16 with IGNORED).

    Ignored pixels are grey; in masks of classes they have the colour of class 0.
    """
    if values.dtype == np.int16:
        values = np.where(values == IGNORED, 0 if num_classes > 1 else 128, values).astype(np.uint8)
    if num_classes > 1:
        image = Image.fromarray(values.astype(np.uint8)).resize(size, Image.Resampling.NEAREST)
        image.putpalette(bytes(palette(num_classes)))
        return image
    if values.dtype != np.uint8:
        values = np.round(np.clip(values, 0, 1) * 255).astype(np.uint8)
    return Image.fromarray(values).resize(size, Image.Resampling.BOX)


def palette(num_classes: int) -> Iterator[int]:
    """Yields red, green and blue of every class as in PASCAL VOC, from the bits of its number; class 0 is black."""
    for number in range(num_classes):
        for channel in range(3):
            yield sum((number >> (3 * bit + channel) & 1) << (7 - bit) for bit in range(3))


def _encoded(image: Image.Image, kind: str) -> bytes:
    """Returns the bytes of an image file of a kind."""
    file = io.BytesIO()
    image.save(file, kind, **({"quality": JPEG_QUALITY} if kind == "JPEG" else {"optimize": True}))
    return file.getvalue()
