"""Losses, by name: ``train.loss: structure_loss`` is the function of that name in this file.

Each takes logits, masks and ``counted``: which pixels count, 0 or 1 in the shape of the masks; ``None`` is all of them.
What the masks hold in other pixels has no influence.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def structure_loss(logits: Tensor, masks: Tensor, counted: Tensor | None = None) -> Tensor:
    """Upstream's loss: binary cross-entropy plus a soft IoU that weighs pixels near an outline up to six times.

    logits and masks [B, 1, H, W], masks 0..1 and possibly soft -> scalar. From F3Net by way of PraNet; as in
    WZH0120/SAM3-UNet fdb21da, train.py. There the cross-entropy is called with ``reduce='none'``: the deprecated
    ``reduce`` is truthy, so it returns a *mean*, and the outline weights cancel out of that half. Kept.
    """
    return bce_loss(logits, masks, counted) + _weighted_iou_loss(logits, masks, _outline_weights(masks, counted))


def weighted_structure_loss(logits: Tensor, masks: Tensor, counted: Tensor | None = None) -> Tensor:
    """``structure_loss`` as F3Net's paper means it (Wei et al., AAAI 2020, eq. 4): outlines weigh in both halves."""
    weights = _outline_weights(masks, counted)
    cross_entropy = F.binary_cross_entropy_with_logits(logits, masks, reduction="none")
    cross_entropy = (weights * cross_entropy).sum(dim=(2, 3)) / weights.sum(dim=(2, 3)).clamp(min=1)
    return cross_entropy.mean() + _weighted_iou_loss(logits, masks, weights)


def _weighted_iou_loss(logits: Tensor, masks: Tensor, weights: Tensor) -> Tensor:
    """Mean over the images of 1 - soft IoU, 1 added to both of its halves; all [B, 1, H, W] -> scalar."""
    predicted = torch.sigmoid(logits)
    intersection = (predicted * masks * weights).sum(dim=(2, 3))
    union = ((predicted + masks) * weights).sum(dim=(2, 3))
    return (1 - (intersection + 1) / (union - intersection + 1)).mean()


def _outline_weights(masks: Tensor, counted: Tensor | None) -> Tensor:
    """1 far from outlines, up to 6 on them, 0 where a pixel does not count; masks [B, 1, H, W] -> the same shape."""
    weights = 1 + 5 * (_neighbourhood_mean(masks) - masks).abs()
    return weights if counted is None else weights * counted


def _neighbourhood_mean(masks: Tensor) -> Tensor:
    """Mean over 31 x 31 pixels, zeros beyond the border: ``avg_pool2d(masks, 31, 1, 15)`` in two passes.

    On a CPU the square one was a third of a tiny training step and is twelve times slower.
    """
    rows = F.avg_pool2d(masks, kernel_size=(31, 1), stride=1, padding=(15, 0))
    return F.avg_pool2d(rows, kernel_size=(1, 31), stride=1, padding=(0, 15))


def bce_loss(logits: Tensor, masks: Tensor, counted: Tensor | None = None) -> Tensor:
    """Mean binary cross-entropy; logits and masks [B, 1, H, W], masks 0..1 -> scalar."""
    if counted is None:
        return F.binary_cross_entropy_with_logits(logits, masks)
    return _mean_of_counted(F.binary_cross_entropy_with_logits(logits, masks, reduction="none"), counted)


def cross_entropy(logits: Tensor, masks: Tensor, counted: Tensor | None = None) -> Tensor:
    """Mean cross-entropy over pixels; logits [B, K, H, W], masks int64 [B, H, W] of classes 0..K-1 -> scalar."""
    if counted is None:
        return F.cross_entropy(logits, masks)
    return _mean_of_counted(F.cross_entropy(logits, masks, reduction="none"), counted)


def _mean_of_counted(values: Tensor, counted: Tensor) -> Tensor:
    """Mean over the images of the mean over the pixels that count, both [B, ..., H, W] -> scalar.

    The mean of each image comes first, so that the parts of a batch on several GPUs add up to the whole batch. An image
    whose pixels that count have vanished in resizing adds 0.
    """
    values, counted = values.flatten(1), counted.flatten(1)
    return ((values * counted).sum(dim=1) / counted.sum(dim=1).clamp(min=1)).mean()


LOSSES = {loss.__name__: loss for loss in (structure_loss, weighted_structure_loss, bce_loss, cross_entropy)}
CLASS_LOSSES = {"cross_entropy"}
"""Those that want a class for every pixel; the others want object against background."""
