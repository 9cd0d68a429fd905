"""A decoder of ``segmentation_models_pytorch`` on any encoder: pyramid, decoder, 1x1 convolution, resize."""

from segmentation_models_pytorch.base.initialization import initialize_decoder, initialize_head
from torch import Tensor, nn
from torch.nn import functional as F

from models.decoders._pyramid import Pyramid


class SmpHead(nn.Module):
    """``decoder`` takes smp's list of features: maps at 1 and 1/2 of the image's size, then the encoder's four maps.

    placeholders: number of the first two maps that it expects (2, the second alone, or none). They have no channels and
    only give a size.
    """

    def __init__(self, pyramid: Pyramid, decoder: nn.Module, placeholders: int, width: int, num_classes: int) -> None:
        super().__init__()
        self.pyramid = pyramid
        self.decoder = decoder
        self.placeholders = placeholders
        self.head = nn.Conv2d(width, num_classes, 1)
        initialize_decoder(self.decoder)  # as smp starts its models
        initialize_head(self.head)

    def forward(self, features: tuple[Tensor, ...], size: tuple[int, int]) -> tuple[Tensor]:
        """features: one map for all levels, or four from fine to coarse; size (H, W) -> (logits [B, K, H, W],)."""
        maps = self.pyramid(features)
        batch, _, height, width = maps[0].shape
        empty = [maps[0].new_empty(batch, 0, height * s, width * s) for s in (4, 2)[2 - self.placeholders :]]
        logits = self.head(self.decoder([*empty, *maps]))
        return (F.interpolate(logits, size=size, mode="bilinear", align_corners=False),)
