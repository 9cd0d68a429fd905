"""U-Net's expanding path (Ronneberger et al., MICCAI 2015, arXiv 1505.04597) on the encoder's maps.

The decoder is that of ``segmentation_models_pytorch``: nearest upsampling, skip, two 3x3 convolutions with batch
normalisation. It ends at twice the finest map's resolution.
"""

from typing import Annotated, Literal

from pydantic import Field
from segmentation_models_pytorch.decoders.unet.decoder import UnetDecoder

from models.core.registry import Config as Base
from models.decoders._pyramid import LEVELS, Pyramid
from models.decoders._smp_head import SmpHead


class Config(Base):
    name: Literal["unet"] = "unet"
    width: Annotated[int, Field(ge=8, multiple_of=8)] = 256
    """Channels of the coarsest level; each finer one has half. 256 in segmentation_models_pytorch."""


def build(config: Config, channels: tuple[int, ...], num_classes: int) -> SmpHead:
    pyramid = Pyramid(channels, config.width)
    widths = tuple(config.width >> level for level in range(LEVELS))
    decoder = UnetDecoder((0, *pyramid.channels), widths, n_blocks=LEVELS)
    return SmpHead(pyramid, decoder, 1, widths[-1], num_classes)
