"""The loss of a batch: input, autocast, target, and the pixels that count."""

from torch import Tensor, nn

from bench.config.settings import LOSSES, TrainConfig, TransformConfig
from bench.datasets import Features
from bench.datasets.core.transforms import has_ignored, to_input, to_target
from bench.training.precision import autocast


def batch_loss(
    model: nn.Module, images: Tensor | Features, masks: Tensor, config: TrainConfig, transform: TransformConfig
) -> Tensor:
    """Computes the loss of a batch, images uint8 [B, H, W, 3] and masks [B, H, W]: the sum over all logits maps."""
    targets, counted = targets_of(masks, config)
    with autocast(masks.device.type, config.precision):
        outputs = model(to_input(images, transform.normalisation))
    loss = LOSSES.module(config.loss).loss
    return sum(loss(logits.float(), targets, counted) for logits in outputs)


def targets_of(masks: Tensor, config: TrainConfig) -> tuple[Tensor, Tensor | None]:
    """Returns the target of the loss, and which pixels count; ``None`` means all pixels."""
    targets = to_target(masks, LOSSES.module(config.loss).FOR_CLASSES)
    if not has_ignored(masks):
        return targets, None
    counted = targets >= 0
    return targets * counted, counted.float()
