"""The metrics: this file says which, which way is better, and where they are from; ``bench.scoring.sod`` (py_sod_metrics) and
``bench.scoring.mirror`` do the arithmetic of one image.

The published tables use S-measure, mean E-measure and MAE for salient objects, weighted F and mean IoU for marine
animals, mean Dice for polyps: WZH0120/SAM3-UNet fdb21da, eval.py. Mirrors have their own protocol: bench/scoring/mirror.py.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bench.config.settings import ProtocolConfig
from bench.datasets import IGNORED
from bench.scoring import mirror


@dataclass(frozen=True)
class Metric:
    label: str  # as tables print it
    better: str  # "higher" or "lower"
    source: str
    mean_of_images: bool = True  # False where a set's score is no mean of its images': those are not bootstrapped
    shown: bool = True  # whether leaderboards have a column for it; leaderboard.csv has all metrics


# The order is that of the columns of leaderboards.
METRICS = {
    "s_measure": Metric("S", "higher", "Fan et al., Structure-measure, ICCV 2017, eq. 3, alpha 0.5"),
    "weighted_f_measure": Metric("wF", "higher", "Margolin et al., How to Evaluate Foreground Maps, CVPR 2014, beta 1"),
    "max_f_measure": Metric("maxF", "higher", "Achanta et al., CVPR 2009, beta^2 0.3, best of 256 thresholds", False),
    "mean_f_measure": Metric(
        "meanF", "higher", "Achanta et al., CVPR 2009, beta^2 0.3, mean of 256 thresholds", shown=False
    ),
    "adaptive_f_measure": Metric(
        "adpF", "higher", "Achanta et al., CVPR 2009, at twice the mean of the map", shown=False
    ),
    "max_e_measure": Metric(
        "maxE", "higher", "Fan et al., Enhanced-alignment, IJCAI 2018, best of 256 thresholds", False, shown=False
    ),
    "mean_e_measure": Metric("meanE", "higher", "Fan et al., Enhanced-alignment, IJCAI 2018, mean of 256 thresholds"),
    "iou": Metric("IoU", "higher", "HetNet, misc.py: mean over images of the IoU of the map at 127.5"),
    "f_of_means": Metric(
        "Fβ", "higher", "HetNet, misc.py: beta^2 0.3, of mean precision and mean recall, best of 256 thresholds", False
    ),
    "mae": Metric("MAE", "lower", "Perazzi et al., Saliency Filters, CVPR 2012, mean absolute error of the map"),
    "mean_iou": Metric("mIoU", "higher", "mean over 256 thresholds of the mean IoU of the images, as eval.py"),
    "mean_dice": Metric(
        "mDice", "higher", "mean over 256 thresholds of the mean Dice of the images, as eval.py", shown=False
    ),
    "ber": Metric("BER", "lower", "HetNet, misc.py: balanced error rate of the map at 127.5, a fraction"),
    "accuracy": Metric("Acc", "higher", "HetNet, misc.py: share of the object that is found at 127.5"),
    "mean_class_iou": Metric(
        "mIoU", "higher", "Everingham et al., PASCAL VOC, IJCV 2015: mean IoU of the classes, over all pixels", False
    ),
    "mean_class_dice": Metric(
        "mDice", "higher", "Dice, Ecology 1945: mean Dice of the classes, over all pixels", False
    ),
    "pixel_accuracy": Metric(
        "pixel acc", "higher", "Long et al., FCN, CVPR 2015: share of the pixels that are right", False
    ),
}

OF_PROTOCOL = {
    "sod": (
        "s_measure",
        "weighted_f_measure",
        "max_f_measure",
        "mean_f_measure",
        "adaptive_f_measure",
        "max_e_measure",
        "mean_e_measure",
        "mae",
        "mean_iou",
        "mean_dice",
    ),
    "mirror": ("iou", "f_of_means", "mae", "ber", "accuracy"),
}
"""The metrics of each protocol, its main one first."""
CLASS_METRICS = ("mean_class_iou", "mean_class_dice", "pixel_accuracy")
"""Those of masks that hold classes (``bench.scoring.classes``), the main one first."""
MAIN_METRICS = tuple(metrics[0] for metrics in (*OF_PROTOCOL.values(), CLASS_METRICS))
"""Those by which rows are placed on the front and in the figure: a table has one of them."""

Measured = Mapping[str, float | np.ndarray]
"""What is kept of one image: numbers, and curves over 256 thresholds."""


@dataclass(frozen=True)
class Scores:
    """Scores of a set of images (``overall``, by metric) and of each one (``images``: name and metrics, in order).

    The maximum over thresholds is taken of the mean curve, so the overall ``max_*`` are not means of the images'.
    """

    overall: dict[str, float]
    images: dict[str, list]


class NotFinite(ValueError):
    """A model's answer to an image, or a score of one, is NaN or infinite."""


def score(triples: Iterable[tuple[str, np.ndarray, np.ndarray]], protocol: ProtocolConfig = ProtocolConfig()) -> Scores:
    """Scores (name, prediction, mask) triples, [H, W] each: as ``measure`` takes them.

    Raises ``ValueError`` when there is nothing to score, and ``NotFinite``.
    """
    names, measured = [], []
    for name, prediction, mask in triples:
        names.append(name)
        measured.append(measure(prediction, mask, protocol))
    return collect(names, measured, protocol)


def measure(prediction: np.ndarray, mask: np.ndarray, protocol: ProtocolConfig) -> Measured:
    """One image by itself: prediction [H, W], uint8 0..255 or float 0..1, and mask [H, W]: uint8 0..255, or int16 in
    which IGNORED pixels do not count."""
    if protocol.name == "mirror":
        if mask.dtype != np.uint8:
            prediction, mask = prediction[mask != IGNORED], mask[mask != IGNORED]
        return mirror.measure(prediction, mask, protocol.minmax)
    from bench.scoring import sod  # most who import this file ask for names only, and it takes most of a second

    return sod.measure(prediction, mask, protocol.minmax)


def collect(names: Sequence[str], measured: Sequence[Measured], protocol: ProtocolConfig) -> Scores:
    """Scores of a set from those of its images, which may have been measured anywhere and in any order.

    Raises ``ValueError`` when there is nothing to score, and ``NotFinite``.
    """
    if not names:
        raise ValueError("there are no predictions to score")
    for name, image in zip(names, measured):
        wrong = [key for key, value in image.items() if not np.isfinite(value).all()]
        if wrong:
            raise NotFinite(f"{name}: {', '.join(wrong)} of this image is not a finite number")
    kept = {key: np.array([image[key] for image in measured]) for key in measured[0]}
    if protocol.name == "mirror":
        precisions, recalls = kept.pop("precisions"), kept.pop("recalls")
        images = {**kept, "f_of_means": [mirror.f_measure(p, r) for p, r in zip(precisions, recalls)]}
        maxima = {"f_of_means": mirror.f_measure(precisions.mean(axis=0), recalls.mean(axis=0))}
    else:
        curves = {name: kept.pop(name) for name in ("f_curve", "e_curve", "iou_curve", "dice_curve")}
        images = {
            **kept,
            "max_f_measure": curves["f_curve"].max(axis=1),
            "mean_f_measure": curves["f_curve"].mean(axis=1),
            "max_e_measure": curves["e_curve"].max(axis=1),
            "mean_e_measure": curves["e_curve"].mean(axis=1),
            "mean_iou": curves["iou_curve"].mean(axis=1),
            "mean_dice": curves["dice_curve"].mean(axis=1),
        }
        maxima = {f"max_{k}_measure": float(curves[f"{k}_curve"].mean(axis=0).max()) for k in ("f", "e")}
    order = OF_PROTOCOL[protocol.name]
    overall = {metric: float(np.mean(images[metric])) for metric in order} | maxima
    return Scores(overall, {"name": list(names), **{m: [float(v) for v in images[m]] for m in order}})


def main_metric(present: Iterable[str]) -> str | None:
    """The one of ``MAIN_METRICS`` that is present, ``None`` if there is none."""
    known = set(present)
    return next((metric for metric in MAIN_METRICS if metric in known), None)
