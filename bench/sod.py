"""The protocol of salient objects on one image, by py_sod_metrics: WZH0120/SAM3-UNet fdb21da, eval.py."""

import numpy as np

from models._partial import module_of

# py_sod_metrics/__init__ imports scikit-learn for measures that are not used here: a second in every process
maps, curves_of = module_of("py_sod_metrics", "sod_metrics"), module_of("py_sod_metrics", "fmeasurev2")


def measure(prediction: np.ndarray, mask: np.ndarray, minmax: bool) -> dict[str, float | np.ndarray]:
    """Prediction [H, W] (uint8 0..255, or float 0..1) and mask uint8 [H, W] -> scores of this image.

    The mask's object is what is above 128. With ``minmax`` the map is stretched exactly as ``prepare_data`` does. The
    curves [256] are for means over images: ``bench.scores.collect``.
    """
    truth = mask > 128
    values = prediction / 255 if prediction.dtype == np.uint8 else prediction
    if minmax and values.max() != values.min():
        values = (values - values.min()) / (values.max() - values.min())
    curves = {"with_adaptive": True, "with_dynamic": True}
    s, weighted, e, mae = maps.Smeasure(), maps.WeightedFmeasure(), maps.Emeasure(), maps.MAE()
    handlers = {
        "f": curves_of.FmeasureHandler(**curves, beta=0.3),
        "iou": curves_of.IOUHandler(**curves),
        "dice": curves_of.DICEHandler(**curves),
    }
    for metric in (s, weighted, e, mae, curves_of.FmeasureV2(handlers)):
        metric.step(pred=values, gt=truth, normalize=False)
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
