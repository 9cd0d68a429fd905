"""Sample predictions of a trial: thumbnails of a few test images with their masks and what the model answered.

Which images: the best, median and worst ones by the main metric, and a fixed subset that all trials of the same data
share, chosen by the hash of the name and never by a result. All come from the first test set.

Memory is bounded by taking a second look: scores say which images these are only when all have been scored, so the
few are predicted once more, after the measured phases. No thumbnail is made of any other image, however many there are.
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
EACH = 2  # best, median and worst images
SHARED = 6
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
"""Of the Parquet file: the fields of a ``Sample``."""

Predict = Callable[[Split], Iterable[tuple[str, np.ndarray, np.ndarray]]]


@dataclass(frozen=True)
class Sample:
    """One test image of a trial. All three pictures have one size, at most ``LONG_SIDE`` on the longer side."""

    name: str
    why: tuple[str, ...]  # of ``REASONS``
    metric: str
    score: float  # of this image on ``metric``
    image: bytes  # JPEG in RGB, as the model saw it but for the shape
    mask: bytes  # PNG, grey; with a palette where the mask holds classes
    prediction: bytes  # PNG, likewise


def take(split: Split, scores: Mapping[str, Sequence], predict: Predict, num_classes: int = 1) -> dict[str, list]:
    """The samples of a scored split as columns, in the order of the split; no rows where no score is a number.

    scores: name and metrics of every image of the split, in its order. predict: the triples (name, prediction, mask)
    of another split, as ``bench.scoring.evaluate.predict`` gives them; it is asked about the chosen images only.
    """
    metric = main_metric(scores)
    why = choose(scores["name"], scores[metric], METRICS[metric].better)
    chosen = sorted(why)
    few = replace(split, indices=split.indices[chosen], names=tuple(split.names[i] for i in chosen))
    columns: dict[str, list] = {name: [] for name in Sample.__dataclass_fields__}
    for i, (name, prediction, mask) in zip(chosen, predict(few) if chosen else ()):
        size = thumbnail_size(mask.shape)
        image = Image.fromarray(np.asarray(split.images[split.indices[i]])).resize(size, Image.Resampling.LANCZOS)
        pictures = image, _answer(mask, size, num_classes), _answer(prediction, size, num_classes)
        values = name, why[i], metric, float(scores[metric][i]), *map(_encoded, pictures, ("JPEG", "PNG", "PNG"))
        for column, value in zip(columns.values(), values):
            column.append(value)
    return columns


def choose(names: Sequence[str], values: Sequence[float], better: str) -> dict[int, tuple[str, ...]]:
    """Which images, by number, and why each: at least one reason, in the order of ``REASONS``.

    Equal values are ordered by name. Images whose value is no number can only be shared.
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
    found = {i for numbers in picked.values() for i in numbers}
    return {i: tuple(reason for reason in REASONS if i in picked[reason]) for i in found}


def thumbnail_size(shape: tuple[int, int]) -> tuple[int, int]:
    """Width and height of the thumbnail of [H, W]: never larger than it, and at least a pixel wide and high."""
    height, width = shape
    scale = min(1.0, LONG_SIDE / max(height, width))
    return max(1, round(width * scale)), max(1, round(height * scale))


def load_samples(folder: Path, trial_id: str) -> list[Sample]:
    """A trial's samples in the order of its test set; none where there are none that can be used."""
    return read_samples(folder, trial_id)[0]


def read_samples(folder: Path, trial_id: str) -> tuple[list[Sample], str]:
    """``load_samples``, and a line if the file cannot be used."""
    path = folder / f"{trial_id}.samples.parquet"
    columns, line = parquet.read(path, COLUMNS, COLUMNS, parquet.READING)
    rows = [dict(zip(COLUMNS, values)) for values in zip(*((columns or {}).get(name, ()) for name in COLUMNS))]
    samples = [Sample(**{**row, "why": tuple(row["why"])}) for row in rows]
    if any(not set(sample.why) <= set(REASONS) or sample.metric not in METRICS for sample in samples):
        return [], f"{path}: cannot be used (it holds an unknown reason or metric)"
    return samples, line


def _answer(values: np.ndarray, size: tuple[int, int], num_classes: int) -> Image.Image:
    """A mask or prediction [H, W] (uint8, float 0..1, or int16 with IGNORED) as a small picture.

    Ignored pixels are grey, in masks of classes background.
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
    """Red, green and blue of every class, as PASCAL VOC draws them: the bits of its number, dealt out; 0 is black."""
    for number in range(num_classes):
        yield from (sum((number >> (3 * bit + channel) & 1) << (7 - bit) for bit in range(3)) for channel in range(3))


def _encoded(image: Image.Image, kind: str) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **({"quality": JPEG_QUALITY} if kind == "JPEG" else {"optimize": True}))
    return file.getvalue()
