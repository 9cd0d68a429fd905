"""Mirrors: Catherine-R-He/HetNet 21d9541, eval.py and misc.py.

Where the script divides 0 by 0 (an empty mask) it prints NaN for the whole set. The rule here: **0 of 0 is 1**. An
empty prediction of an empty mask has nothing to find and misses nothing, so its IoU is 1. A mask without object (or
without background) has a rate of 1 on that side of BER and accuracy. A map of one value other than 0, which the script
cannot stretch, stays as it is. Every number that the script does print is the same here.
"""

from collections.abc import Mapping

import numpy as np

from bench.datasets import IGNORED
from bench.scoring.metric_types import Measured, Metric
from bench.scoring.protocols import MAE

OBJECT_ABOVE = 254
HALF = 127.5
BETA_SQUARED = 0.3
EPSILON = 1e-4
"""Added to numerator and denominator of precision and recall."""
METRICS = {
    "iou": Metric("IoU", "higher", "HetNet, misc.py: mean over images of the IoU of the map at 127.5"),
    "f_of_means": Metric(
        "Fβ",
        "higher",
        "HetNet, misc.py: beta^2 0.3, of mean precision and mean recall, best of 256 thresholds",
        mean_of_images=False,
    ),
    "mae": MAE,
    "ber": Metric("BER", "lower", "HetNet, misc.py: balanced error rate of the map at 127.5, a fraction"),
    "accuracy": Metric("Acc", "higher", "HetNet, misc.py: share of the object that is found at 127.5"),
}


def measure(prediction: np.ndarray, mask: np.ndarray, minmax: bool) -> Measured:
    """Returns metrics of one image, and ``precisions`` and ``recalls`` [256], whose means over images F is taken of."""
    if mask.dtype != np.uint8:
        prediction, mask = prediction[mask != IGNORED], mask[mask != IGNORED]
    truth = mask > OBJECT_ABOVE
    grey = prediction if prediction.dtype == np.uint8 else prediction * np.float32(255)
    found = grey >= HALF
    stretched = _stretch(prediction, minmax)
    both, either = np.count_nonzero(found & truth), np.count_nonzero(found | truth)
    objects = np.count_nonzero(truth)
    background = truth.size - objects
    sensitivity = _ratio(both, objects)
    specificity = _ratio(truth.size - either, background)
    precisions, recalls = _precision_recall((255 * stretched).astype(np.uint8), truth)
    return {
        "iou": _ratio(both, either),
        "ber": 1 - (sensitivity + specificity) / 2,
        "accuracy": sensitivity,
        "mae": float(np.abs(stretched - truth.astype(np.float32)).mean(dtype=np.float64)),
        "precisions": precisions,
        "recalls": recalls,
    }


def of_images(measured: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    f = [_f_measure(p, r) for p, r in zip(measured["precisions"], measured["recalls"])]
    return {**{name: measured[name] for name in ("iou", "mae", "ber", "accuracy")}, "f_of_means": np.array(f)}


def of_set(measured: Mapping[str, np.ndarray]) -> dict[str, float]:
    return {"f_of_means": _f_measure(measured["precisions"].mean(axis=0), measured["recalls"].mean(axis=0))}


def _f_measure(precisions: np.ndarray, recalls: np.ndarray) -> float:
    """Returns the largest F over thresholds, from precision and recall [256]."""
    return float(((1 + BETA_SQUARED) * precisions * recalls / (BETA_SQUARED * precisions + recalls)).max())


def _stretch(prediction: np.ndarray, minmax: bool) -> np.ndarray:
    """Returns the map as float32 0..1, in single precision as in the script: double gives other 8-bit levels."""
    values = prediction.astype(np.float32)
    low, high = values.min(), values.max()
    if minmax and high > low:
        return (values - low) / (high - low)
    return values / np.float32(255) if prediction.dtype == np.uint8 else values


def _precision_recall(levels: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns precision and recall [256] of ``levels > threshold`` for the thresholds 0..255."""

    def above(values: np.ndarray) -> np.ndarray:
        """Returns the number of values above each threshold."""
        counts = np.bincount(values, minlength=256)
        return counts.sum() - np.cumsum(counts)

    hits, chosen = above(levels[truth]), above(levels.ravel())
    return (hits + EPSILON) / (chosen + EPSILON), (hits + EPSILON) / (np.count_nonzero(truth) + EPSILON)


def _ratio(part: int, whole: int) -> float:
    """Returns part / whole; 0 of 0 is 1."""
    return part / whole if whole else 1.0
