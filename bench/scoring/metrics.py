"""All metrics by name, and the scores of a set of images by a protocol.

Each protocol describes its own metrics and does the arithmetic of one image (``bench.scoring.protocols``).
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from bench.config.settings import PROTOCOLS, ProtocolConfig
from bench.scoring import classes
from bench.scoring.metric_types import Measured, Metric, NotFinite, Scores

OF_PROTOCOL: dict[str, tuple[str, ...]] = {}
"""Names of the metrics of each protocol, its main one first; the default protocol comes first."""
METRICS: dict[str, Metric] = {}
"""All metrics by name, in the order of the protocols; those of classes come last."""
for _protocol in sorted(PROTOCOLS.names(), key=lambda name: (name != ProtocolConfig().name, name)):
    OF_PROTOCOL[_protocol] = tuple(PROTOCOLS.module(_protocol).METRICS)
    METRICS |= PROTOCOLS.module(_protocol).METRICS
METRICS |= classes.METRICS
CLASS_METRICS = tuple(classes.METRICS)
"""Names of the metrics of masks that hold classes, the main one first."""
MAIN_METRICS = tuple(metrics[0] for metrics in (*OF_PROTOCOL.values(), CLASS_METRICS))
"""Metrics that rank rows and decide the front: a table has one of them."""


def _merged(orders: Iterable[Sequence[str]]) -> list[str]:
    """Merges orders: each metric comes before those that follow it in any of them."""
    merged: list[str] = []
    for order in orders:
        position = len(merged)
        for metric in reversed(order):
            if metric in merged:
                position = merged.index(metric)
            else:
                merged.insert(position, metric)
    return merged


SHOWN = tuple(name for name in _merged((*OF_PROTOCOL.values(), CLASS_METRICS)) if METRICS[name].shown)
"""Metrics with a column in tables, in an order that is the order of each protocol, too."""


def score(triples: Iterable[tuple[str, np.ndarray, np.ndarray]], protocol: ProtocolConfig = ProtocolConfig()) -> Scores:
    """Scores (name, prediction, mask) triples, [H, W] each: as ``measure`` takes them.

    Raises ``ValueError`` without triples, and ``NotFinite``.
    """
    names, measured = [], []
    for name, prediction, mask in triples:
        names.append(name)
        measured.append(measure(prediction, mask, protocol))
    return collect(names, measured, protocol)


def measure(prediction: np.ndarray, mask: np.ndarray, protocol: ProtocolConfig) -> Measured:
    """Measures one image: prediction [H, W], uint8 0..255 or float 0..1, and mask [H, W], uint8 0..255, or int16 in
    which IGNORED pixels do not count."""
    return PROTOCOLS.module(protocol.name).measure(prediction, mask, protocol.minmax)


def collect(names: Sequence[str], measured: Sequence[Measured], protocol: ProtocolConfig) -> Scores:
    """Returns the scores of a set from ``measure`` of its images.

    The images may have been measured in any process and in any order. Raises ``ValueError`` without images, and
    ``NotFinite``.
    """
    if not names:
        raise ValueError("there are no predictions to score")
    for name, image in zip(names, measured):
        wrong = [key for key, value in image.items() if not np.isfinite(value).all()]
        if wrong:
            raise NotFinite(f"{name}: {', '.join(wrong)} of this image is not a finite number")
    stacked = {}
    for key in measured[0]:
        stacked[key] = np.array([image[key] for image in measured])
    entry = PROTOCOLS.module(protocol.name)
    of_images = entry.of_images(stacked)
    overall: dict[str, float] = {}
    images: dict[str, list] = {"name": list(names)}
    for metric in entry.METRICS:
        overall[metric] = float(np.mean(of_images[metric]))
        images[metric] = [float(value) for value in of_images[metric]]
    return Scores(overall | entry.of_set(stacked), images)


def columns_of(tests: Mapping[str, Scores]) -> dict[str, list]:
    """Returns name, test set and metrics of every image, of all test sets one after the other."""
    columns: dict[str, list] = {"name": [], "set": []}
    for name, test in tests.items():
        columns["set"] += [name] * len(test.images["name"])
        for column, values in test.images.items():
            columns.setdefault(column, []).extend(values)
    return columns


def main_metric(present: Iterable[str]) -> str | None:
    """Returns the one of ``MAIN_METRICS`` that is present, ``None`` if none is."""
    known = set(present)
    return next((metric for metric in MAIN_METRICS if metric in known), None)
