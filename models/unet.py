"""U-Net (Ronneberger et al., MICCAI 2015, arXiv 1505.04597), trained from scratch: the baseline without SAM.

As in the paper, but with padded convolutions and batch normalisation, so that the logits have the image's size.
"""

from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from models.core.registry import Config as Base

LEVELS = 5


class Config(Base):
    any_aspect: ClassVar[bool] = True

    name: Literal["unet"] = "unet"
    width: Annotated[int, Field(ge=1)] = 64
    """Channels of the first level; each of the four below doubles them. 64 in the paper (31 M parameters)."""
    num_classes: PositiveInt = 1


def _double_conv(channels_in: int, channels_out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(inplace=True),
        nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(inplace=True),
    )


class UNet(nn.Module):
    def __init__(self, width: int, num_classes: int) -> None:
        super().__init__()
        widths = [width << level for level in range(LEVELS)]
        self.contracting = nn.ModuleList(_double_conv(i, o) for i, o in zip([3, *widths], widths))
        self.expanding = nn.ModuleDict(
            {
                "up": nn.ModuleList(nn.ConvTranspose2d(2 * w, w, 2, stride=2) for w in reversed(widths[:-1])),
                "conv": nn.ModuleList(_double_conv(2 * w, w) for w in reversed(widths[:-1])),
                "head": nn.Conv2d(width, num_classes, 1),
            }
        )

    def forward(self, images: Tensor) -> tuple[Tensor]:
        """images [B, 3, H, W] of any size from 16 up -> (logits [B, num_classes, H, W],)."""
        skips = []
        x = images
        for level, block in enumerate(self.contracting):
            x = block(F.max_pool2d(x, 2) if level else x)
            skips.append(x)
        for up, block, skip in zip(self.expanding["up"], self.expanding["conv"], reversed(skips[:-1])):
            x = up(x)
            if x.shape[-2:] != skip.shape[-2:]:  # an odd size was halved on the way down
                x = F.interpolate(x, size=skip.shape[-2:], mode="bilinear", align_corners=False)
            x = block(torch.cat([skip, x], dim=1))
        return (self.expanding["head"](x),)


def build(config: Config, image_size: int | tuple[int, int], pretrained: bool) -> UNet:
    """Ignores ``image_size`` and ``pretrained``: any size works, and all weights are trained from scratch."""
    return UNet(config.width, config.num_classes)
