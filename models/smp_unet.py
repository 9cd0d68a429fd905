"""U-Net (Ronneberger et al., MICCAI 2015) with a ResNet-34 pre-trained on ImageNet, as in segmentation_models_pytorch.

With the defaults it has 24,436,369 parameters, all of them trained.
"""

from typing import Literal

from segmentation_models_pytorch import Unet

from models import _smp


class Config(_smp.Config):
    name: Literal["smp_unet"] = "smp_unet"
    backbone: str = "resnet34"


def build(config: Config, image_size: int, pretrained: bool) -> _smp.SmpNetwork:
    network = Unet(config.backbone, encoder_weights=None, classes=config.num_classes)
    return _smp.assemble(network, config, image_size, 1, pretrained)
