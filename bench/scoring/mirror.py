"""The mirror protocol on one image, in numpy: Catherine-R-He/HetNet 21d9541, eval.py and misc.py.

Where the script divides nothing by nothing (an empty mask) it prints NaN for the whole set. The rule here: **nothing
out of nothing is 1**. Nothing was to be found and nothing was missed, so an empty answer to an empty mask has IoU 1,
and a mask without object (or without background) has a rate of 1 on that side of BER and accuracy. Likewise a map of
one value other than 0, which the script cannot stretch, stays as it is. Every number the script does give is the same.
"""

import numpy as np

OBJECT = 255  # strictly: 254 is background
HALF = 127.5
BETA_SQUARED = 0.3
EPSILON = 1e-4  # of precision and recall


def measure(prediction: np.ndarray, mask: np.ndarray, minmax: bool) -> dict[str, float | np.ndarray]:
    """Prediction (uint8 0..255, or float 0..1) and mask (0..255) of one shape -> scores of this image.

    ``precisions`` and ``recalls`` [256] are for F, which is taken of their means over the images: ``f_measure``.
    """
    truth = mask == OBJECT
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


def f_measure(precisions: np.ndarray, recalls: np.ndarray) -> float:
    """The best over thresholds of F of mean precision and mean recall [256] each; beta^2 is 0.3."""
    return float(((1 + BETA_SQUARED) * precisions * recalls / (BETA_SQUARED * precisions + recalls)).max())


def _stretch(prediction: np.ndarray, minmax: bool) -> np.ndarray:
    """The map as float32 0..1. In single precision like the script, or its 256 levels would be cut off differently."""
    values = prediction.astype(np.float32)
    low, high = values.min(), values.max()
    if minmax and high > low:
        return (values - low) / (high - low)
    return values / np.float32(255) if prediction.dtype == np.uint8 else values


def _precision_recall(levels: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Precision and recall of ``levels > threshold`` for the thresholds 0..255."""

    def above(values: np.ndarray) -> np.ndarray:
        counts = np.bincount(values, minlength=256)
        return counts.sum() - np.cumsum(counts)

    hits, chosen = above(levels[truth]), above(levels.ravel())
    return (hits + EPSILON) / (chosen + EPSILON), (hits + EPSILON) / (np.count_nonzero(truth) + EPSILON)


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else 1.0
