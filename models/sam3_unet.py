"""SAM3-UNet (arXiv 2512.01789): frozen SAM3 encoder, a bottleneck adapter before each block, light U-Net decoder.

With the defaults it has 449,009,057 parameters, 2,771,361 of them trainable.
"""

from typing import Literal

from models import _encoder_decoder
from models._encoder_decoder import ADAPTERS, DECODERS, ENCODERS, build  # noqa: F401


class Config(_encoder_decoder.Config):
    name: Literal["sam3_unet"] = "sam3_unet"
    encoder: ENCODERS.field() = ENCODERS.parse("sam3_vit")
    adapter: ADAPTERS.field() = ADAPTERS.parse("bottleneck")
    decoder: DECODERS.field() = DECODERS.parse("light_unet")
