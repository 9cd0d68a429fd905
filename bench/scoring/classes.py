"""Scores of predictions that name a class for every pixel: IoU and Dice by class, their means, and pixel accuracy."""

from collections.abc import Iterable

import numpy as np

from bench.datasets import IGNORED
from bench.scoring.metric_types import Metric, Scores

METRICS = {
    "mean_class_iou": Metric(
        "mIoU",
        "higher",
        "Everingham et al., PASCAL VOC, IJCV 2015: mean IoU of the classes, over all pixels",
        mean_of_images=False,
    ),
    "mean_class_dice": Metric(
        "mDice", "higher", "Dice, Ecology 1945: mean Dice of the classes, over all pixels", mean_of_images=False
    ),
    "pixel_accuracy": Metric(
        "pixel acc", "higher", "Long et al., FCN, CVPR 2015: share of the pixels that are right", mean_of_images=False
    ),
}
"""Metrics of masks that hold classes, the main one first."""


def score_classes(triples: Iterable[tuple[str, np.ndarray, np.ndarray]], num_classes: int) -> Scores:
    """Scores (name, prediction, mask) triples, [H, W] each, of classes 0..num_classes-1; ignored pixels do not count.

    ``overall`` comes from one confusion matrix over all pixels, as in PASCAL VOC. Its means are over the classes that
    occur in the masks or in the predictions; only these classes have ``class_iou_N`` and ``class_dice_N``. ``images``
    has the means and the accuracy of each image, over its own classes. Raises ``ValueError`` without triples.
    """
    total = np.zeros((num_classes, num_classes), np.int64)
    images: dict[str, list] = {"name": []}
    for name, prediction, mask in triples:
        counted = mask != IGNORED
        pairs = mask[counted].astype(np.int64) * num_classes + prediction[counted]
        confusion = np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)
        total += confusion
        images["name"].append(name)
        for metric, value in _means(confusion).items():
            images.setdefault(metric, []).append(value)
    if not images["name"]:
        raise ValueError("there are no predictions to score")
    iou, dice = _by_class(total)
    overall = _means(total)
    overall |= {f"class_iou_{c}": float(v) for c, v in enumerate(iou) if not np.isnan(v)}
    overall |= {f"class_dice_{c}": float(v) for c, v in enumerate(dice) if not np.isnan(v)}
    return Scores(overall, images)


def _by_class(confusion: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns IoU and Dice [K] of a confusion matrix [true, predicted]; NaN for a class that occurs in neither."""
    right, true, predicted = np.diag(confusion), confusion.sum(1), confusion.sum(0)
    with np.errstate(invalid="ignore"):
        return right / (true + predicted - right), 2 * right / (true + predicted)


def _means(confusion: np.ndarray) -> dict[str, float]:
    """Returns the ``METRICS`` of a confusion matrix."""
    iou, dice = _by_class(confusion)
    accuracy = np.diag(confusion).sum() / confusion.sum()
    return {
        "mean_class_iou": float(np.nanmean(iou)),
        "mean_class_dice": float(np.nanmean(dice)),
        "pixel_accuracy": float(accuracy),
    }
