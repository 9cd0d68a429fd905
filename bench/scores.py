"""The metrics: py_sod_metrics does the arithmetic, this file says which, which way is better, and where they are from.

The published tables use S-measure, mean E-measure and MAE for salient objects, weighted F and mean IoU for marine
animals, mean Dice for polyps. All thresholds and averages are those of WZH0120/SAM3-UNet fdb21da, eval.py.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import py_sod_metrics


@dataclass(frozen=True)
class Metric:
    label: str  # as tables print it
    better: str  # "higher" or "lower"
    source: str


METRICS = {
    "s_measure": Metric("S", "higher", "Fan et al., Structure-measure, ICCV 2017, eq. 3, alpha 0.5"),
    "weighted_f_measure": Metric("wF", "higher", "Margolin et al., How to Evaluate Foreground Maps, CVPR 2014, beta 1"),
    "max_f_measure": Metric("maxF", "higher", "Achanta et al., CVPR 2009, beta^2 0.3, best of 256 thresholds"),
    "mean_f_measure": Metric("meanF", "higher", "Achanta et al., CVPR 2009, beta^2 0.3, mean of 256 thresholds"),
    "adaptive_f_measure": Metric("adpF", "higher", "Achanta et al., CVPR 2009, at twice the mean of the map"),
    "max_e_measure": Metric("maxE", "higher", "Fan et al., Enhanced-alignment, IJCAI 2018, best of 256 thresholds"),
    "mean_e_measure": Metric("meanE", "higher", "Fan et al., Enhanced-alignment, IJCAI 2018, mean of 256 thresholds"),
    "mae": Metric("MAE", "lower", "Perazzi et al., Saliency Filters, CVPR 2012, mean absolute error of the map"),
    "mean_iou": Metric("mIoU", "higher", "mean over 256 thresholds of the mean IoU of the images, as eval.py"),
    "mean_dice": Metric("mDice", "higher", "mean over 256 thresholds of the mean Dice of the images, as eval.py"),
}

CLASS_METRICS = {
    "mean_class_iou": Metric("mIoU", "higher", "Everingham et al., PASCAL VOC, IJCV 2015: mean IoU of the classes"),
    "mean_class_dice": Metric("mDice", "higher", "Dice, Ecology 1945: mean Dice of the classes"),
    "pixel_accuracy": Metric("acc", "higher", "Long et al., FCN, CVPR 2015: share of the pixels that are right"),
}
"""Where masks hold classes: of one confusion matrix over all pixels of a split (``bench.class_scores``)."""

ALL_METRICS = {**METRICS, **CLASS_METRICS}
MAIN_METRICS = ("s_measure", "mean_class_iou")
"""By which rows are placed on the Pareto front: the first for objects, the second for classes."""


@dataclass(frozen=True)
class Scores:
    """Scores of a set of images (``overall``, by metric) and of each one (``images``: name and metrics, in order).

    The maximum over thresholds is taken of the mean curve, so the overall ``max_*`` are not means of the images'.
    """

    overall: dict[str, float]
    images: dict[str, list]


def score(triples: Iterable[tuple[str, np.ndarray, np.ndarray]]) -> Scores:
    """Scores (name, prediction, mask) triples, uint8 [H, W] each; prediction 0..255, mask above 128 is object.

    py_sod_metrics stretches every prediction to 0..1 once more. Raises ``ValueError`` when there is nothing to score.
    """
    curves = {"with_adaptive": True, "with_dynamic": True}
    s, weighted, e, mae = (
        py_sod_metrics.Smeasure(),
        py_sod_metrics.WeightedFmeasure(),
        py_sod_metrics.Emeasure(),
        py_sod_metrics.MAE(),
    )
    handlers = {
        "f": py_sod_metrics.FmeasureHandler(**curves, beta=0.3),
        "iou": py_sod_metrics.IOUHandler(**curves),
        "dice": py_sod_metrics.DICEHandler(**curves),
    }
    thresholded = py_sod_metrics.FmeasureV2(handlers)
    names = []
    for name, prediction, mask in triples:
        names.append(name)
        for metric in (s, weighted, e, mae, thresholded):
            metric.step(pred=prediction, gt=mask)
    if not names:
        raise ValueError("there are no predictions to score")

    f_curves, e_curves = np.array(handlers["f"].dynamic_results), np.array(e.changeable_ems)
    iou_curves, dice_curves = (np.array(handlers[h].dynamic_results) for h in ("iou", "dice"))
    images = {
        "s_measure": s.sms,
        "weighted_f_measure": weighted.weighted_fms,
        "max_f_measure": f_curves.max(axis=1),
        "mean_f_measure": f_curves.mean(axis=1),
        "adaptive_f_measure": handlers["f"].adaptive_results,
        "max_e_measure": e_curves.max(axis=1),
        "mean_e_measure": e_curves.mean(axis=1),
        "mae": mae.maes,
        "mean_iou": iou_curves.mean(axis=1),
        "mean_dice": dice_curves.mean(axis=1),
    }
    overall = {metric: float(np.mean(values)) for metric, values in images.items()}
    overall["max_f_measure"] = float(f_curves.mean(axis=0).max())
    overall["max_e_measure"] = float(e_curves.mean(axis=0).max())
    return Scores(overall, {"name": names, **{m: [float(v) for v in values] for m, values in images.items()}})
