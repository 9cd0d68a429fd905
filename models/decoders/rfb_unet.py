"""SAM2-UNet's decoder: a receptive field block (Liu et al., ECCV 2018) on every scale, then a U-Net with three outputs.

Upstream: WZH0120/SAM2-UNet 01598e5, SAM2UNet.py, classes ``RFB_modified``, ``Up`` and the second half of ``SAM2UNet``.
Kept on purpose:

- the branches of a block have no activation between their convolutions;
- the two coarser outputs are logits of the image's size too (deep supervision), and the finest, at a quarter of the
  image's resolution, is only stretched to it;
- upstream builds a fourth ``Up`` and never calls it. Its 110,848 parameters are part of the published model's count
  and of its checkpoints, so they are here as ``idle``: counted and saved, never used, never given a gradient.
"""

from collections import OrderedDict
from typing import Literal

import torch
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from models.core.registry import Config as Base

LEVELS = 4


class Config(Base):
    name: Literal["rfb_unet"] = "rfb_unet"
    width: PositiveInt = 64
    """Channels of every decoder level; 64 in the paper."""
    idle: bool = True
    """Keep upstream's unused fourth ``Up``; without it checkpoints of the released model do not fit."""


def _conv(channels_in: int, channels_out: int, kernel: tuple[int, int] = (1, 1), dilation: int = 1) -> nn.Sequential:
    padding = tuple(dilation * (side // 2) for side in kernel)
    convolution = nn.Conv2d(channels_in, channels_out, kernel, padding=padding, dilation=dilation, bias=False)
    return nn.Sequential(OrderedDict(conv=convolution, bn=nn.BatchNorm2d(channels_out)))


def _double_conv(channels_in: int, channels_out: int) -> nn.Sequential:
    middle = channels_in // 2
    return nn.Sequential(
        nn.Conv2d(channels_in, middle, 3, padding=1, bias=False),
        nn.BatchNorm2d(middle),
        nn.ReLU(inplace=True),
        nn.Conv2d(middle, channels_out, 3, padding=1, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(inplace=True),
    )


class ReceptiveFieldBlock(nn.Module):
    """[B, C_in, H, W] -> [B, C_out, H, W]: branches with receptive fields of 1, 9, 15 and 21 pixels, and a shortcut."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList([nn.Sequential(_conv(channels_in, channels_out))])
        for side in (3, 5, 7):
            self.branches.append(
                nn.Sequential(
                    _conv(channels_in, channels_out),
                    _conv(channels_out, channels_out, (1, side)),
                    _conv(channels_out, channels_out, (side, 1)),
                    _conv(channels_out, channels_out, (3, 3), dilation=side),
                )
            )
        self.conv_cat = _conv(4 * channels_out, channels_out, (3, 3))
        self.conv_res = _conv(channels_in, channels_out)

    def forward(self, x: Tensor) -> Tensor:
        joined = self.conv_cat(torch.cat([branch(x) for branch in self.branches], dim=1))
        return F.relu(joined + self.conv_res(x))


class RFBUNet(nn.Module):
    """Encoder features -> three logits maps of the image's size, the finest first."""

    def __init__(self, channels: tuple[int, ...], config: Config, num_classes: int = 1) -> None:
        super().__init__()
        width = config.width
        self.rfb = nn.ModuleList(ReceptiveFieldBlock(channels[min(i, len(channels) - 1)], width) for i in range(LEVELS))
        self.up = nn.ModuleList(_double_conv(2 * width, width) for _ in range(3))
        if config.idle:
            self.idle = _double_conv(2 * width, width)
        self.side1 = nn.Conv2d(width, num_classes, 1)
        self.side2 = nn.Conv2d(width, num_classes, 1)
        self.head = nn.Conv2d(width, num_classes, 1)

    @property
    def compiled_parts(self) -> list[nn.Module]:
        """Without the resizes, as in ``models.decoders.light_unet``."""
        return [*self.rfb, *self.up]

    def forward(self, features: tuple[Tensor, ...], size: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
        """features: one map for all levels, or four from fine to coarse; size (H, W) -> logits [B, num_classes, H, W].

        Levels lie at 1/4, 1/8, 1/16 and 1/32 of the image; maps of another size (a plain ViT's) are resized to them.
        """
        height, width = size
        levels = []
        for i, rfb in enumerate(self.rfb):
            level, scaled = rfb(features[min(i, len(features) - 1)]), (height // (4 << i), width // (4 << i))
            if level.shape[-2:] != scaled:
                level = F.interpolate(level, size=scaled, mode="bilinear", align_corners=False)
            levels.append(level)
        x, logits = levels[3], []
        for up, skip, head in zip(self.up, levels[2::-1], (self.side1, self.side2, self.head)):
            x = up(_joined(x, skip))
            logits.append(F.interpolate(head(x), size=size, mode="bilinear", align_corners=False))
        return logits[2], logits[0], logits[1]


def _joined(x: Tensor, skip: Tensor) -> Tensor:
    """The coarser map doubled, padded or cropped to the finer one, and put behind it."""
    x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
    dy, dx = skip.shape[2] - x.shape[2], skip.shape[3] - x.shape[3]
    return torch.cat([skip, F.pad(x, [dx // 2, dx - dx // 2, dy // 2, dy - dy // 2])], dim=1)


def build(config: Config, channels: tuple[int, ...], num_classes: int) -> RFBUNet:
    return RFBUNet(channels, config, num_classes)
