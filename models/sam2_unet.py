"""SAM2-UNet (Xiong et al., arXiv 2408.08870): frozen Hiera-L, a bottleneck adapter before each block, RFB decoder.

With the defaults it has 216,529,891 parameters, 4,380,595 of them trainable (110,848 of these idle, see
``decoders/rfb_unet.py``). Its adapters start as torch initialises them, SAM3-UNet's with a deviation of 0.02.

The recipe of WZH0120/SAM2-UNet 01598e5, train.py, differs from SAM3-UNet's in two numbers, which a sweep must set:
``transform.size: 352`` and ``train.lr: 1e-3``. The losses of the three outputs count equally.
"""

from typing import ClassVar, Literal

from models.core import encoder_decoder
from models.core.encoder_decoder import ADAPTERS, DECODERS, ENCODERS, Upstream, build  # noqa: F401
from models.core.names import Names

NAMES = Names(
    prefixes=(
        ("encoder.trunk.", "encoder."),
        *((f"decoder.rfb.{i}.", f"rfb{i + 1}.") for i in range(4)),
        *((f"decoder.up.{i}.", f"up{i + 1}.conv.double_conv.") for i in range(3)),
        ("decoder.idle.", "up4.conv.double_conv."),
        *((f"decoder.{name}.", f"{name}.") for name in ("side1", "side2", "head")),
    ),
    parts=(
        (".adapter.", ".prompt_learn."),
        (".mlp.fc1.", ".mlp.layers.0."),
        (".mlp.fc2.", ".mlp.layers.1."),
        *((f".branches.{i}.", f".branch{i}.") for i in range(4)),
    ),
)


class Config(encoder_decoder.Config):
    upstream: ClassVar[Upstream] = Upstream(
        NAMES, "SAM2_UNET_WEIGHTS", "SAM2-UNet.pth", "https://github.com/WZH0120/SAM2-UNet"
    )

    name: Literal["sam2_unet"] = "sam2_unet"
    encoder: ENCODERS.field() = ENCODERS.parse("sam2_hiera")
    adapter: ADAPTERS.field() = ADAPTERS.parse({"name": "bottleneck", "init": "default"})
    decoder: DECODERS.field() = DECODERS.parse("rfb_unet")
