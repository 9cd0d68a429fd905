"""SAM3-UNet (arXiv 2512.01789): frozen SAM3 encoder, a bottleneck adapter before each block, light U-Net decoder.

With the defaults it has 449,009,057 parameters, 2,771,361 of them trainable.
"""

from typing import ClassVar, Literal

from models.core import encoder_decoder
from models.core.encoder_decoder import ADAPTERS, DECODERS, ENCODERS, Upstream, build  # noqa: F401
from models.core.names import Names

NAMES = Names(
    prefixes=(
        ("encoder.trunk.", "sam3_vit."),
        *((f"decoder.reduce.{i}.", f"reduce{i + 1}.") for i in range(4)),
        *((f"decoder.up.{i}.", f"up{i + 1}.") for i in range(4)),
        ("decoder.head.", "head."),
    ),
    parts=((".adapter.", ".prompt_learn."),),
)


class Config(encoder_decoder.Config):
    upstream: ClassVar[Upstream] = Upstream(
        NAMES, "SAM3_UNET_WEIGHTS", "SAM3-UNet-20.pth", "https://github.com/WZH0120/SAM3-UNet"
    )

    name: Literal["sam3_unet"] = "sam3_unet"
    encoder: ENCODERS.field() = ENCODERS.parse("sam3_vit")
    adapter: ADAPTERS.field() = ADAPTERS.parse("bottleneck")
    decoder: DECODERS.field() = DECODERS.parse("light_unet")
