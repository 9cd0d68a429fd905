"""Mean cross-entropy over the pixels, for masks that hold a class for every pixel."""

from torch import Tensor
from torch.nn import functional as F

from bench.training.losses import mean_of_counted

FOR_CLASSES = True


def loss(logits: Tensor, masks: Tensor, counted: Tensor | None = None) -> Tensor:
    """logits [B, K, H, W], masks int64 [B, H, W] of classes 0..K-1 -> scalar."""
    if counted is None:
        return F.cross_entropy(logits, masks)
    return mean_of_counted(F.cross_entropy(logits, masks, reduction="none"), counted)
