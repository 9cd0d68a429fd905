"""Losses, by name: ``train.loss: structure_loss`` is the function of that name in this file."""

import torch
from torch import Tensor
from torch.nn import functional as F


def structure_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """Upstream's loss: binary cross-entropy plus a soft IoU that weighs pixels near an outline up to six times.

    logits and masks [B, 1, H, W], masks 0..1 and possibly soft -> scalar. From F3Net by way of PraNet; as in
    WZH0120/SAM3-UNet fdb21da, train.py. There the cross-entropy is called with ``reduce='none'``: the deprecated
    ``reduce`` is truthy, so it returns a *mean*, and the outline weights cancel out of that half. Kept.
    """
    return F.binary_cross_entropy_with_logits(logits, masks) + _weighted_iou_loss(
        logits, masks, _outline_weights(masks)
    )


def weighted_structure_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """``structure_loss`` as F3Net's paper means it (Wei et al., AAAI 2020, eq. 4): outlines weigh in both halves."""
    weights = _outline_weights(masks)
    cross_entropy = F.binary_cross_entropy_with_logits(logits, masks, reduction="none")
    cross_entropy = (weights * cross_entropy).sum(dim=(2, 3)) / weights.sum(dim=(2, 3))
    return cross_entropy.mean() + _weighted_iou_loss(logits, masks, weights)


def _weighted_iou_loss(logits: Tensor, masks: Tensor, weights: Tensor) -> Tensor:
    """Mean over the images of 1 - soft IoU, 1 added to both of its halves; all [B, 1, H, W] -> scalar."""
    predicted = torch.sigmoid(logits)
    intersection = (predicted * masks * weights).sum(dim=(2, 3))
    union = ((predicted + masks) * weights).sum(dim=(2, 3))
    return (1 - (intersection + 1) / (union - intersection + 1)).mean()


def _outline_weights(masks: Tensor) -> Tensor:
    """1 far from outlines, up to 6 on them; masks [B, 1, H, W] -> the same shape."""
    return 1 + 5 * (_neighbourhood_mean(masks) - masks).abs()


def _neighbourhood_mean(masks: Tensor) -> Tensor:
    """Mean over 31 x 31 pixels, zeros beyond the border: ``avg_pool2d(masks, 31, 1, 15)`` in two passes.

    On a CPU the square one was a third of a tiny training step and is twelve times slower.
    """
    rows = F.avg_pool2d(masks, kernel_size=(31, 1), stride=1, padding=(15, 0))
    return F.avg_pool2d(rows, kernel_size=(1, 31), stride=1, padding=(0, 15))


def bce_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """Mean binary cross-entropy; logits and masks [B, 1, H, W], masks 0..1 -> scalar."""
    return F.binary_cross_entropy_with_logits(logits, masks)


def cross_entropy(logits: Tensor, masks: Tensor) -> Tensor:
    """Mean cross-entropy over pixels; logits [B, K, H, W], masks int64 [B, H, W] of classes 0..K-1 -> scalar."""
    return F.cross_entropy(logits, masks)


LOSSES = {loss.__name__: loss for loss in (structure_loss, weighted_structure_loss, bce_loss, cross_entropy)}
CLASS_LOSSES = {"cross_entropy"}
"""Those that want a class for every pixel; the others want object against background."""
