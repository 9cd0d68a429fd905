"""Upstream's loss: binary cross-entropy plus a soft IoU that weights pixels near an outline up to six times.

From F3Net by way of PraNet; as in WZH0120/SAM3-UNet fdb21da, train.py. There the cross-entropy is called with
``reduce='none'``: the deprecated ``reduce`` is truthy, so the call returns a *mean*, and the outline weights cancel out
of that half. This file keeps the quirk; ``weighted_structure_loss`` is the loss without it.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from bench.training.losses import bce_loss

FOR_CLASSES = False


def loss(logits: Tensor, masks: Tensor, counted: Tensor | None = None) -> Tensor:
    """logits and masks [B, 1, H, W], masks 0..1 and possibly soft -> scalar."""
    return bce_loss.loss(logits, masks, counted) + weighted_iou_loss(logits, masks, outline_weights(masks, counted))


def weighted_iou_loss(logits: Tensor, masks: Tensor, weights: Tensor) -> Tensor:
    """Averages 1 - soft IoU over the images, with 1 added to intersection and union; all [B, 1, H, W] -> scalar."""
    probabilities = torch.sigmoid(logits)
    intersection = (probabilities * masks * weights).sum(dim=(2, 3))
    union = ((probabilities + masks) * weights).sum(dim=(2, 3))
    return (1 - (intersection + 1) / (union - intersection + 1)).mean()


def outline_weights(masks: Tensor, counted: Tensor | None) -> Tensor:
    """Weights pixels: 1 far from outlines, up to 6 on them, 0 if they do not count; [B, 1, H, W] -> [B, 1, H, W]."""
    weights = 1 + 5 * (_neighbourhood_mean(masks) - masks).abs()
    return weights if counted is None else weights * counted


def _neighbourhood_mean(masks: Tensor) -> Tensor:
    """Averages over 31 x 31 pixels, zeros beyond the border: ``avg_pool2d(masks, 31, 1, 15)`` in two passes.

    On a CPU the pooling over a square took a third of a tiny training step and is twelve times slower.
    """
    rows = F.avg_pool2d(masks, kernel_size=(31, 1), stride=1, padding=(15, 0))
    return F.avg_pool2d(rows, kernel_size=(1, 31), stride=1, padding=(0, 15))
