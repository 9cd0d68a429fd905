"""Resizing, flips and normalisation of images and masks; the defaults are those of upstream's dataset.py."""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from scipy.ndimage import distance_transform_edt
from torch import Generator, Tensor

from bench.config.settings import TransformConfig
from bench.datasets import IGNORED, Features
from models.core.size import height_width

NORMALISATIONS = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "sam3": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),  # sam3/model/sam3_image_processor.py
}
RESAMPLING = {"bicubic": Image.Resampling.BICUBIC, "nearest": Image.Resampling.NEAREST}


def resize_image(image: Image.Image, size: int | tuple[int, int]) -> np.ndarray:
    """Resizes an RGB image to uint8 [H, W, 3], bilinear with antialiasing as torchvision does on PIL images."""
    height, width = height_width(size)
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))


def resize_mask(mask: np.ndarray, size: int | tuple[int, int], resampling: str) -> np.ndarray:
    """Resizes a mask [h, w] to [H, W] of the same type: uint8, or int16 with IGNORED pixels.

    Before resizing, an ignored pixel gets the value of the nearest counted one, so that it does not soften outlines.
    """
    height, width = height_width(size)
    if mask.dtype == np.uint8:
        return np.asarray(Image.fromarray(mask).resize((width, height), RESAMPLING[resampling]))
    ignored = mask == IGNORED
    nearest = distance_transform_edt(ignored, return_distances=False, return_indices=True)
    resized = resize_mask(mask[tuple(nearest)].astype(np.uint8), size, resampling).astype(np.int16)
    resized[resize_mask(ignored.astype(np.uint8), size, "nearest") > 0] = IGNORED
    return resized


def flip(
    images: Tensor | Features, masks: Tensor, config: TransformConfig, draws: Generator
) -> tuple[Tensor | Features, Tensor]:
    """Flips each image [B, H, W, 3] with its mask [B, H, W], horizontally and vertically, by the configured chances.

    ``draws`` is a generator on the CPU, so that the flips do not depend on the device; each image takes two numbers.
    """
    chances = torch.rand(len(images), 2, generator=draws)
    for direction, (axis, probability) in enumerate(((2, config.hflip), (1, config.vflip))):
        chosen = (chances[:, direction] < probability).to(masks.device)
        if isinstance(images, Features):
            images = images.flipped(direction, chosen)
        else:
            images = torch.where(chosen.view(-1, 1, 1, 1), images.flip(axis), images)
        masks = torch.where(chosen.view(-1, 1, 1), masks.flip(axis), masks)
    return images, masks


def to_input(images: Tensor | Features, normalisation: str) -> Tensor | tuple[Tensor, ...]:
    """Normalises uint8 [B, H, W, 3] to float32 [B, 3, H, W]; the order of operations is torchvision's.

    Features are read; they are already normalised.
    """
    if isinstance(images, Features):
        return images.read()
    mean, deviation = (_filled(values, images.device).view(3, 1, 1) for values in NORMALISATIONS[normalisation])
    pixels = images.permute(0, 3, 1, 2).contiguous().float()
    return pixels.div_(255).sub_(mean).div_(deviation)


def _filled(values: Sequence[float], device: torch.device) -> Tensor:
    """Makes a tensor on the device. It is not copied from the CPU, which a GPU would wait for in every step."""
    tensor = torch.empty(len(values), device=device)
    for place, value in zip(tensor, values, strict=True):
        place.fill_(value)
    return tensor


def to_target(masks: Tensor, classes: bool = False) -> Tensor:
    """Converts masks [B, H, W] to float32 [B, 1, H, W], 0..1; with ``classes`` to class numbers int64 [B, H, W].

    Ignored pixels are below 0 in both.
    """
    return masks.long() if classes else masks.unsqueeze(1).float().div_(255)


def has_ignored(masks: Tensor) -> bool:
    """Whether some pixels of masks [B, H, W] may be ignored; the type tells it without reading values."""
    return masks.dtype == torch.int16
