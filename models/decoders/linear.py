"""A linear probe: a 1x1 convolution on the encoder's last map, resized bilinearly. It measures the features alone.

As in DINOv2 (Oquab et al., arXiv 2304.07193, section 7.4, "linear"), but without the batch normalisation before it.
"""

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from models.core.registry import Config as Base


class Config(Base):
    name: Literal["linear"] = "linear"


class Linear(nn.Module):
    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.head = nn.Conv2d(channels, num_classes, 1)

    def forward(self, features: tuple[Tensor, ...], size: tuple[int, int]) -> tuple[Tensor]:
        """features: any number of maps, of which the last is used; size (H, W) -> (logits [B, K, H, W],)."""
        return (F.interpolate(self.head(features[-1]), size=size, mode="bilinear", align_corners=False),)


def build(config: Config, channels: tuple[int, ...], num_classes: int) -> Linear:
    return Linear(channels[-1], num_classes)
