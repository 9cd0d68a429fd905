"""Losses: ``train.loss: structure_loss`` is the entry ``structure_loss.py`` of this folder.

An entry has ``loss(logits, masks, counted) -> scalar`` and ``FOR_CLASSES``: whether masks hold a class for every pixel
(int64 [B, H, W]) or an object against background (float32 [B, 1, H, W], 0..1, possibly soft). ``counted`` has the shape
of the masks and is 1 for pixels that count, else 0; ``None`` means all pixels. Other pixels have no influence.
"""

from torch import Tensor


def mean_of_counted(values: Tensor, counted: Tensor) -> Tensor:
    """Averages over the pixels that count, then over the images; both [B, ..., H, W] -> scalar.

    The mean of each image comes first, so that the parts of a batch on several GPUs add up to the whole batch. An image
    without a pixel that counts, after resizing, adds 0.
    """
    values, counted = values.flatten(1), counted.flatten(1)
    return ((values * counted).sum(dim=1) / counted.sum(dim=1).clamp(min=1)).mean()
