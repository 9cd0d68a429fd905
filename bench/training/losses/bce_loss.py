"""Mean binary cross-entropy over the pixels."""

from torch import Tensor
from torch.nn import functional as F

from bench.training.losses import mean_of_counted

FOR_CLASSES = False


def loss(logits: Tensor, masks: Tensor, counted: Tensor | None = None) -> Tensor:
    """logits and masks [B, 1, H, W], masks 0..1 -> scalar."""
    if counted is None:
        return F.binary_cross_entropy_with_logits(logits, masks)
    return mean_of_counted(F.binary_cross_entropy_with_logits(logits, masks, reduction="none"), counted)
