"""SegFormer's all-MLP head (Xie et al., NeurIPS 2021, arXiv 2105.15203) on the encoder's maps.

The decoder is that of ``segmentation_models_pytorch``: a linear layer on each map, all resized to the finest one's
size, joined by a 1x1 convolution with batch normalisation.
"""

from typing import Annotated, Literal

from pydantic import Field
from segmentation_models_pytorch.decoders.segformer.decoder import SegformerDecoder

from models.core.registry import Config as Base
from models.decoders._pyramid import LEVELS, Pyramid
from models.decoders._smp_head import SmpHead


class Config(Base):
    name: Literal["segformer"] = "segformer"
    width: Annotated[int, Field(ge=8)] = 256
    """Channels of the head; 256 in the paper for B0 and B1, 768 for the larger ones."""


def build(config: Config, channels: tuple[int, ...], num_classes: int) -> SmpHead:
    pyramid = Pyramid(channels, config.width)
    decoder = SegformerDecoder((3, 0, *pyramid.channels), LEVELS, config.width)
    return SmpHead(pyramid, decoder, 2, config.width, num_classes)
