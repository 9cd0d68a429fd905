"""``structure_loss`` as F3Net's paper defines it (Wei et al., AAAI 2020, eq. 4): outlines weigh in both halves."""

from torch import Tensor
from torch.nn import functional as F

from bench.training.losses.structure_loss import outline_weights, weighted_iou_loss

FOR_CLASSES = False


def loss(logits: Tensor, masks: Tensor, counted: Tensor | None = None) -> Tensor:
    """logits and masks [B, 1, H, W], masks 0..1 and possibly soft -> scalar."""
    weights = outline_weights(masks, counted)
    cross_entropy = F.binary_cross_entropy_with_logits(logits, masks, reduction="none")
    cross_entropy = (weights * cross_entropy).sum(dim=(2, 3)) / weights.sum(dim=(2, 3)).clamp(min=1)
    return cross_entropy.mean() + weighted_iou_loss(logits, masks, weights)
