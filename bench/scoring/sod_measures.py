"""The arithmetic of the protocol ``sod`` on one image, by py_sod_metrics: WZH0120/SAM3-UNet fdb21da, eval.py."""

import numpy as np

from bench.datasets import IGNORED
from models.core.partial_import import module_of

# py_sod_metrics/__init__ imports scikit-learn for measures that are not used here: a second in every process
maps, curves_of = module_of("py_sod_metrics", "sod_metrics"), module_of("py_sod_metrics", "fmeasurev2")


class _StructureMeasure(maps.Smeasure):
    """The S-measure of py_sod_metrics 1.6.2, also for quarters of the image without pixels and for ignored pixels.

    A mask whose object ends in the last row or column has quarters without pixels. Their weight is 0, and 1.6.2
    multiplies it by their SSIM, which is NaN.
    """

    def __init__(self, counted: np.ndarray | None) -> None:
        super().__init__()
        self.counted = counted

    def ssim(self, pred: np.ndarray, gt: np.ndarray) -> float:
        return super().ssim(pred, gt) if pred.size else 0.0

    def cal_sm(self, pred: np.ndarray, gt: np.ndarray) -> float:
        if self.counted is not None and len(np.unique(gt[self.counted])) == 1:
            return super().cal_sm(pred[self.counted], gt[self.counted])
        return super().cal_sm(pred, gt)

    def object(self, pred: np.ndarray, gt: np.ndarray) -> float:
        if self.counted is not None:
            pred, gt = pred[self.counted], gt[self.counted]
        return super().object(pred, gt)

    def region(self, pred: np.ndarray, gt: np.ndarray) -> float:
        """Returns the SSIM of the quarters around the centroid, weighted by counted pixels (Fan et al., eq. 5)."""
        if self.counted is None:
            return super().region(pred, gt)
        row, column = (int(centre.round()) + 1 for centre in np.argwhere(gt).mean(axis=0))
        total = 0.0
        for rows in (slice(None, row), slice(row, None)):
            for columns in (slice(None, column), slice(column, None)):
                counted = self.counted[rows, columns]
                values, truth = pred[rows, columns][counted], gt[rows, columns][counted]
                total += counted.sum() * self.ssim(values[None], truth[None])
        return total / self.counted.sum()


def measure(prediction: np.ndarray, mask: np.ndarray, minmax: bool) -> dict[str, float | np.ndarray]:
    """Measures a prediction [H, W] (uint8 0..255, or float 0..1) by a mask [H, W] (uint8, or int16 with IGNORED).

    Levels of the mask above 128 are object. ``minmax`` stretches the map exactly as ``prepare_data`` of py_sod_metrics
    does. Returns numbers, and curves [256] that are averaged over images. Ignored pixels do not count: sums leave them
    out, and in the weighted F-measure, whose errors spread over 7 x 7 pixels, their error is 0.
    """
    counted = None if mask.dtype == np.uint8 else mask != IGNORED
    truth = mask > 128
    values = prediction / 255 if prediction.dtype == np.uint8 else prediction
    shown = values if counted is None else values[counted]
    if minmax and shown.max() != shown.min():
        values = (values - shown.min()) / (shown.max() - shown.min())
    if counted is not None:
        values = np.where(counted, values, 0)
    flat = (values, truth) if counted is None else (values[counted][None], truth[counted][None])
    curves = {"with_adaptive": True, "with_dynamic": True}
    s, weighted, e, mae = _StructureMeasure(counted), maps.WeightedFmeasure(), maps.Emeasure(), maps.MAE()
    handlers = {
        "f": curves_of.FmeasureHandler(**curves, beta=0.3),
        "iou": curves_of.IOUHandler(**curves),
        "dice": curves_of.DICEHandler(**curves),
    }
    for metric in (s, weighted):
        metric.step(pred=values, gt=truth, normalize=False)
    for metric in (e, mae, curves_of.FmeasureV2(handlers)):
        metric.step(pred=flat[0], gt=flat[1], normalize=False)
    return {
        "s_measure": s.sms[0],
        "weighted_f_measure": weighted.weighted_fms[0],
        "adaptive_f_measure": handlers["f"].adaptive_results[0],
        "mae": mae.maes[0],
        "f_curve": handlers["f"].dynamic_results[0],
        "e_curve": e.changeable_ems[0],
        "iou_curve": handlers["iou"].dynamic_results[0],
        "dice_curve": handlers["dice"].dynamic_results[0],
    }
