"""The segmentation head of Panoptic FPN (Kirillov et al., CVPR 2019, arXiv 1901.02446) on the encoder's maps.

The decoder is that of ``segmentation_models_pytorch``: lateral 1x1 convolutions summed from coarse to fine, each level
brought to the finest one's size by 3x3 convolutions with group normalisation, summed, dropout.
"""

from typing import Annotated, Literal

from pydantic import Field
from segmentation_models_pytorch.decoders.fpn.decoder import FPNDecoder

from models.core.registry import Config as Base
from models.decoders._pyramid import LEVELS, Pyramid
from models.decoders._smp_head import SmpHead


class Config(Base):
    name: Literal["fpn"] = "fpn"
    width: Annotated[int, Field(ge=64, multiple_of=64)] = 256
    """Channels of the pyramid; the segmentation branches have half. 256 and 128 in the paper."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Share of whole channels that is dropped before the last convolution; smp's default."""


def build(config: Config, channels: tuple[int, ...], num_classes: int) -> SmpHead:
    pyramid = Pyramid(channels, config.width)
    branch = config.width // 2
    decoder = FPNDecoder(pyramid.channels, LEVELS, config.width, branch, config.dropout)
    return SmpHead(pyramid, decoder, 0, branch, num_classes)
