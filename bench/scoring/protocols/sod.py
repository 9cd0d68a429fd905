"""Salient and camouflaged objects, polyps, marine animals: WZH0120/SAM3-UNet fdb21da, eval.py.

Its tables use S-measure, mean E-measure and MAE for salient objects, weighted F and mean IoU for marine animals, and
mean Dice for polyps. A maximum over thresholds is taken of the mean curve of the images.
"""

from collections.abc import Mapping

import numpy as np

from bench.scoring.metric_types import Measured, Metric
from bench.scoring.protocols import MAE

OBJECT_ABOVE = 128
ACHANTA, FAN = "Achanta et al., CVPR 2009, beta^2 0.3", "Fan et al., Enhanced-alignment, IJCAI 2018"
METRICS = {
    "s_measure": Metric("S", "higher", "Fan et al., Structure-measure, ICCV 2017, eq. 3, alpha 0.5"),
    "weighted_f_measure": Metric("wF", "higher", "Margolin et al., How to Evaluate Foreground Maps, CVPR 2014, beta 1"),
    "max_f_measure": Metric("maxF", "higher", f"{ACHANTA}, best of 256 thresholds", mean_of_images=False),
    "mean_f_measure": Metric("meanF", "higher", f"{ACHANTA}, mean of 256 thresholds", shown=False),
    "adaptive_f_measure": Metric(
        "adpF", "higher", "Achanta et al., CVPR 2009, at twice the mean of the map", shown=False
    ),
    "max_e_measure": Metric("maxE", "higher", f"{FAN}, best of 256 thresholds", mean_of_images=False, shown=False),
    "mean_e_measure": Metric("meanE", "higher", f"{FAN}, mean of 256 thresholds"),
    "mae": MAE,
    "mean_iou": Metric("mIoU", "higher", "mean over 256 thresholds of the mean IoU of the images, as eval.py"),
    "mean_dice": Metric(
        "mDice", "higher", "mean over 256 thresholds of the mean Dice of the images, as eval.py", shown=False
    ),
}


def measure(prediction: np.ndarray, mask: np.ndarray, minmax: bool) -> Measured:
    from bench.scoring import sod_measures  # py_sod_metrics takes most of a second, and few processes score

    return sod_measures.measure(prediction, mask, minmax)


def of_images(measured: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    f, e = measured["f_curve"], measured["e_curve"]
    return {
        **{name: measured[name] for name in ("s_measure", "weighted_f_measure", "adaptive_f_measure", "mae")},
        "max_f_measure": f.max(axis=1),
        "mean_f_measure": f.mean(axis=1),
        "max_e_measure": e.max(axis=1),
        "mean_e_measure": e.mean(axis=1),
        "mean_iou": measured["iou_curve"].mean(axis=1),
        "mean_dice": measured["dice_curve"].mean(axis=1),
    }


def of_set(measured: Mapping[str, np.ndarray]) -> dict[str, float]:
    return {
        "max_f_measure": float(measured["f_curve"].mean(axis=0).max()),
        "max_e_measure": float(measured["e_curve"].mean(axis=0).max()),
    }
