"""SegFormer (Xie et al., NeurIPS 2021, arXiv 2105.15203): a MiT-B2 pre-trained on ImageNet and an all-MLP head, as in
segmentation_models_pytorch.

smp requires multiples of 32. The network does not: its stages round up, and its head resizes every map to a quarter of
the image, so multiples of 4 give logits of the image's size. The check is switched off, for 336 pixels.
"""

from typing import Literal

from segmentation_models_pytorch import Segformer

from models import _smp


class Config(_smp.Config):
    name: Literal["segformer"] = "segformer"
    backbone: str = "mit_b2"


def build(config: Config, image_size: int, pretrained: bool) -> _smp.SmpNetwork:
    """Raises ``InvalidModel`` for sizes that are no multiple of 4."""
    network = Segformer(config.backbone, encoder_weights=None, classes=config.num_classes)
    network.requires_divisible_input_shape = False
    return _smp.assemble(network, config, image_size, 4, pretrained)
