"""UPerNet (Xiao et al., ECCV 2018, arXiv 1807.10221): pyramid pooling on the coarsest map, then an FPN, then fusion.

The decoder is that of ``segmentation_models_pytorch``. Its pooling normalises single values over the batch, so training
needs at least two images in every batch, the last of an epoch included.
"""

from typing import Annotated, Literal

from pydantic import Field
from segmentation_models_pytorch.decoders.upernet.decoder import UPerNetDecoder

from models.core.registry import Config as Base
from models.decoders._pyramid import LEVELS, Pyramid
from models.decoders._smp_head import SmpHead


class Config(Base):
    name: Literal["upernet"] = "upernet"
    width: Annotated[int, Field(ge=8)] = 256
    """Channels of every level; smp's default, 512 in the paper."""


def build(config: Config, channels: tuple[int, ...], num_classes: int) -> SmpHead:
    pyramid = Pyramid(channels, config.width)
    decoder = UPerNetDecoder((0, 0, *pyramid.channels), LEVELS, config.width)
    return SmpHead(pyramid, decoder, 2, config.width, num_classes)
