"""Protocols: ``protocol.name: sod`` is the entry ``sod.py`` of this folder. An entry scores maps of an object.

An entry has

- ``METRICS``: its metrics by name, the main one first; tables show them in this order;
- ``OBJECT_ABOVE``: the largest grey level of a mask that is background;
- ``measure(prediction, mask, minmax) -> Measured``: the arithmetic of one image, of a prediction [H, W] (uint8 0..255,
  or float 0..1) and a mask [H, W] (uint8 0..255, or int16 in which IGNORED pixels do not count);
- ``of_images(measured)``: each metric of each image, [N], from ``Measured`` of N images, stacked;
- ``of_set(measured)``: the metrics of the whole set that are not the mean over its images.

An entry imports libraries of its own only when it measures, since all commands read the names of metrics.
"""

from bench.scoring.metric_types import Metric

MAE = Metric("MAE", "lower", "Perazzi et al., Saliency Filters, CVPR 2012, mean absolute error of the map")
"""Metric of both protocols."""
