import numpy as np
import pytest
import torch
from PIL import Image

from bench.config.settings import TransformConfig
from bench.datasets.core.transforms import flip, resize_image, resize_mask, to_input, to_target


@pytest.fixture
def image():
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (37, 51, 3), dtype=np.uint8))


def test_equals_upstreams_torchvision_pipeline(image):
    """WZH0120/SAM3-UNet fdb21da, dataset.py, with torchvision doing the work as there."""
    functional = pytest.importorskip("torchvision.transforms.functional")
    bicubic = functional.InterpolationMode.BICUBIC
    expected = functional.to_tensor(functional.resize(image, (28, 28)))
    expected = functional.normalize(expected, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    got = to_input(torch.from_numpy(resize_image(image, 28)[None].copy()), "imagenet")[0]
    assert torch.equal(got, expected) and got.is_contiguous()
    mask = image.convert("L")
    expected = functional.to_tensor(functional.resize(mask, (28, 28), interpolation=bicubic))
    assert torch.equal(
        to_target(torch.from_numpy(resize_mask(np.asarray(mask), 28, "bicubic")[None].copy()))[0], expected
    )


def test_bicubic_masks_are_soft_and_nearest_ones_are_not():
    mask = np.zeros((50, 50), np.uint8)
    mask[10:31, 10:31] = 255
    assert len(np.unique(resize_mask(mask, 32, "bicubic"))) > 2
    assert set(np.unique(resize_mask(mask, 32, "nearest"))) == {0, 255}


def test_sam3_normalisation_is_minus_one_to_one():
    pixels = torch.tensor([[[[0, 255, 51]]]], dtype=torch.uint8)
    assert to_input(pixels, "sam3").flatten().tolist() == pytest.approx([-1, 1, -0.6])


def test_flips_turn_image_and_mask_alike_and_as_often_as_asked():
    images = torch.arange(4 * 4 * 3, dtype=torch.uint8).view(1, 4, 4, 3).repeat(400, 1, 1, 1)
    masks = images[..., 0].clone()
    draws = torch.Generator().manual_seed(0)
    turned, turned_masks = flip(images, masks, TransformConfig(), draws)
    assert torch.equal(turned[..., 0], turned_masks)
    left_right = (turned[:, 0, 0, 0] > turned[:, 0, -1, 0]).float().mean()
    upside_down = (turned[:, 0, 0, 0] > turned[:, -1, 0, 0]).float().mean()
    assert 0.4 < left_right < 0.6 and 0.4 < upside_down < 0.6
    always, _ = flip(images, masks, TransformConfig(hflip=1.0, vflip=0.0), draws)
    assert torch.equal(always, images.flip(2))
    always, _ = flip(images, masks, TransformConfig(hflip=0.0, vflip=1.0), draws)
    assert torch.equal(always, images.flip(1))
    never, _ = flip(images, masks, TransformConfig(hflip=0.0, vflip=0.0), draws)
    assert torch.equal(never, images)
