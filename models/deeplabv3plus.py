"""DeepLabV3+ (Chen et al., ECCV 2018, arXiv 1802.02611) with a ResNet-50 pre-trained on ImageNet, as in
segmentation_models_pytorch, with output stride 16.

Its image pooling normalises single values over the batch, so training needs at least two images in every batch, also
in the last one of an epoch.
"""

from typing import Literal

from segmentation_models_pytorch import DeepLabV3Plus

from models import _smp

STRIDE = 16


class Config(_smp.Config):
    name: Literal["deeplabv3plus"] = "deeplabv3plus"
    backbone: str = "resnet50"


def build(config: Config, image_size: int, pretrained: bool) -> _smp.SmpNetwork:
    """Raises ``InvalidModel`` for sizes that are no multiple of the output stride."""
    network = DeepLabV3Plus(
        config.backbone, encoder_weights=None, encoder_output_stride=STRIDE, classes=config.num_classes
    )
    return _smp.assemble(network, config, image_size, STRIDE, pretrained)
