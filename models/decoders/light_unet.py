"""SAM3-UNet's light U-Net decoder.

Upstream: WZH0120/SAM3-UNet fdb21da, SAM3UNet.py, classes ``LightBlock``, ``Up`` and the second half of ``SAM3UNet``.
Kept by default, because the published numbers contain them; the fields of ``Config`` lift the last two:

- one feature map feeds all four scales, through four 1x1 convolutions and resizes to 1/4, 1/8, 1/16 and 1/32;
- the doubling comes *after* the concatenation, so that at 336 px (336/32 = 10.5) each finer map is *cropped* to twice
  the coarser one instead of the coarser one being resized;
- ``nn.BatchNorm2d(channels, 1)``: the 1 is ``eps``, not a momentum, in the two pointwise norms of every block.
"""

from typing import Annotated, Literal

import torch
from pydantic import Field, PositiveFloat
from torch import Tensor, nn
from torch.nn import functional as F

from models.core.registry import Config as Base


class Config(Base):
    name: Literal["light_unet"] = "light_unet"
    width: Annotated[int, Field(ge=8, multiple_of=8)] = 128
    """Channels of every decoder level; 128 in the paper. Blocks split them by 8."""
    skip_align: Literal["crop", "resize"] = "crop"
    """How two maps of unequal size meet: ``crop`` cuts the finer one, upstream's negative padding, which shifts it
    against the coarser one; ``resize`` stretches the coarser one to it."""
    pointwise_eps: PositiveFloat = 1.0
    """``eps`` of the two pointwise norms in every block; upstream's 1.0 is a slip, 1e-5 is usual."""


def _conv(channels_in: int, channels_out: int, kernel: int = 1, groups: int = 1, eps: float = 1e-5) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, kernel, padding=kernel // 2, groups=groups),
        nn.BatchNorm2d(channels_out, eps=eps),
        nn.GELU(),
    )


class LightBlock(nn.Module):
    """[B, C_in, H, W] -> [B, C_out, H, W] by pointwise convolutions around two depth-wise ones on a quarter of C_in."""

    def __init__(self, channels_in: int, channels_out: int, pointwise_eps: float) -> None:
        super().__init__()
        part = channels_in // 8
        self.conv_in = _conv(channels_in, channels_in // 4, eps=pointwise_eps)
        self.dw1 = _conv(part, part, kernel=3, groups=part)
        self.dw2 = _conv(part, part, kernel=3, groups=part)
        self.conv_out = _conv(channels_in // 2, channels_out, eps=pointwise_eps)

    def forward(self, x: Tensor) -> Tensor:
        kept, x1 = self.conv_in(x).chunk(2, dim=1)
        x2 = self.dw1(x1)
        x3 = self.dw2(x2)
        return self.conv_out(torch.cat([kept, x1, x2, x3], dim=1))


class Up(nn.Module):
    """Joins a coarse map with the skip of its scale, doubles the resolution, then convolves."""

    def __init__(self, channels_in: int, channels_out: int, config: Config) -> None:
        super().__init__()
        self.skip_align = config.skip_align
        self.conv = LightBlock(channels_in, channels_out, config.pointwise_eps)

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        """x [B, C, h, w] and skip [B, C, h', w'] -> [B, C_out, 2h, 2w], or [B, C_out, 2h', 2w'] where x is resized."""
        if skip is not None:
            if self.skip_align == "resize":
                if x.shape[2:] != skip.shape[2:]:
                    x = F.interpolate(x, size=skip.shape[2:], mode="bilinear", align_corners=False)
            else:
                dy, dx = x.shape[2] - skip.shape[2], x.shape[3] - skip.shape[3]
                skip = F.pad(skip, [dx // 2, dx - dx // 2, dy // 2, dy - dy // 2])
            x = torch.cat([x, skip], dim=1)
        x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)  # frees the smaller map
        return self.conv(x)


class LightUNet(nn.Module):
    """Encoder features -> one logits map of the image's size."""

    def __init__(self, channels: tuple[int, ...], config: Config, num_classes: int = 1) -> None:
        super().__init__()
        width = config.width
        levels = [channels[min(i, len(channels) - 1)] for i in range(4)]
        self.reduce = nn.ModuleList(nn.Conv2d(c, width, 1) for c in levels)
        self.up = nn.ModuleList(Up(inputs, width, config) for inputs in (2 * width, 2 * width, 2 * width, width))
        self.head = nn.Conv2d(width, num_classes, 1)

    @property
    def compiled_parts(self) -> list[nn.Module]:
        """Without the resizes: torch's compiler makes their gradients of atomic additions, five times as slow (on an
        H200, batch 12, 336 px: 5.8 ms of a step of 66 ms)."""
        return [up.conv for up in self.up]

    def forward(self, features: tuple[Tensor, ...], size: tuple[int, int]) -> tuple[Tensor]:
        """features: one map for all levels, or four from fine to coarse; size (H, W) -> (logits [B, K, H, W],)."""
        height, width = size
        levels = []
        for i, reduce in enumerate(self.reduce):
            feature = features[min(i, len(features) - 1)]
            scaled = (height // (4 << i), width // (4 << i))
            levels.append(F.interpolate(reduce(feature), size=scaled, mode="bilinear", align_corners=False))
        x = self.up[3](levels[3])
        for i in (2, 1, 0):
            x = self.up[i](x, levels[i])
        return (F.interpolate(self.head(x), size=size, mode="bilinear", align_corners=False),)


def build(config: Config, channels: tuple[int, ...], num_classes: int) -> LightUNet:
    return LightUNet(channels, config, num_classes)
