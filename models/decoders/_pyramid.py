"""Four feature maps, each twice as large as the next, for heads that expect the stages of a convolutional network.

From one map: the simple feature pyramid of ViTDet (Li et al., ECCV 2022, arXiv 2203.16527, section 3): scales 4, 2, 1
and 1/2 by transposed convolutions and max pooling, then a 1x1 and a 3x3 convolution with layer normalisation on each.
Scales count from the encoder's own grid, so that patches of 14 or 16 pixels give strides of 3.5 or 4 to 28 or 32.
From four maps: they pass as they are, or are resized to these scales where all have the same size.
"""

import math

from torch import Tensor, nn
from torch.nn import functional as F

from models.core.partial_import import module_of
from models.core.registry import InvalidModel

LayerNorm2d = module_of("timm", "layers").LayerNorm2d

LEVELS = 4


class Pyramid(nn.Module):
    """One map or four -> four, fine to coarse, with ``channels``; maps made from one have ``width`` channels each."""

    def __init__(self, channels: tuple[int, ...], width: int) -> None:
        super().__init__()
        if len(channels) not in (1, LEVELS):
            raise InvalidModel(f"decoder: takes one feature map or {LEVELS}, but the encoder has {len(channels)}")
        self.levels = nn.ModuleList()
        self.channels = channels
        if len(channels) == 1:
            self.channels = (width,) * LEVELS
            self.levels.extend(_level(scaling, width) for scaling in _scalings(channels[0]))

    def forward(self, features: tuple[Tensor, ...]) -> list[Tensor]:
        """features -> maps of height 8n, 4n, 2n and n; a size that does not halve evenly is resized to the next one."""
        maps = [level(features[0]) for level in self.levels] if self.levels else list(features)
        flat = maps[0].shape[-2:] == maps[-1].shape[-2:]  # such as four depths of a plain ViT
        height, width = (math.ceil(side / (2 if flat else 8)) for side in maps[0].shape[-2:])
        sizes = [(height << k, width << k) for k in (3, 2, 1, 0)]
        return [m if m.shape[-2:] == s else _resize(m, s) for m, s in zip(maps, sizes)]


def _scalings(channels: int) -> list[tuple[nn.Sequential, int]]:
    """Makes the layers that resize a map to 4, 2, 1 and 1/2 of its size, each with its output channels."""
    half, quarter = max(1, channels // 2), max(1, channels // 4)
    four_times = nn.Sequential(
        nn.ConvTranspose2d(channels, half, 2, stride=2),
        LayerNorm2d(half),
        nn.GELU(),
        nn.ConvTranspose2d(half, quarter, 2, stride=2),
    )
    twice = nn.Sequential(nn.ConvTranspose2d(channels, half, 2, stride=2))
    halved = nn.Sequential(nn.MaxPool2d(2, ceil_mode=True))
    return [(four_times, quarter), (twice, half), (nn.Sequential(), channels), (halved, channels)]


def _level(scaling: tuple[nn.Sequential, int], width: int) -> nn.Sequential:
    scale, channels = scaling
    return nn.Sequential(
        *scale,
        nn.Conv2d(channels, width, 1, bias=False),
        LayerNorm2d(width),
        nn.Conv2d(width, width, 3, padding=1, bias=False),
        LayerNorm2d(width),
    )


def _resize(feature: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(feature, size=size, mode="bilinear", align_corners=False)
