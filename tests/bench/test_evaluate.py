import numpy as np
import torch
from torch import nn

from bench.datasets import Split
from bench.evaluate import predict
from bench.transforms import TransformConfig

TRANSFORM = TransformConfig(size=8)


class Fixed(nn.Module):
    """Answers the same logits for every image, whatever it sees."""

    def __init__(self, logits):
        super().__init__()
        self.logits = logits

    def forward(self, images):
        assert not self.training and not torch.is_grad_enabled()
        return (self.logits.expand(len(images), 1, *self.logits.shape[-2:]),)


def split(count, size):
    masks = np.zeros((count, *size), np.uint8)
    names = tuple(f"n{i}" for i in range(count))
    images = np.zeros((count, 8, 8, 3), np.uint8)
    return Split(images, np.zeros((count, 8, 8), np.uint8), np.arange(count), names, lambda i: masks[i])


def run(logits, count=5, size=(8, 8)):
    return list(predict(Fixed(logits), split(count, size), TRANSFORM, torch.device("cpu"), 2))


def test_every_image_once_in_order_at_the_masks_size():
    out = run(torch.randn(1, 1, 8, 8), size=(13, 21))
    assert [name for name, _, _ in out] == ["n0", "n1", "n2", "n3", "n4"]
    assert all(p.shape == m.shape == (13, 21) and p.dtype == np.uint8 for _, p, m in out)


def test_stretched_and_cut_off_as_upstreams_test_py():
    """WZH0120/SAM3-UNet fdb21da, test.py, written out with numpy."""
    logits = torch.randn(1, 1, 8, 8) * 3
    res = torch.nn.functional.interpolate(logits, size=(11, 9), mode="bilinear", align_corners=False)
    res = res.sigmoid().numpy().squeeze()
    res = (res - res.min()) / (res.max() - res.min() + 1e-8)
    expected = (res * 255).astype(np.uint8)
    assert np.array_equal(run(logits, 1, (11, 9))[0][1], expected)
    assert expected.min() == 0 and expected.max() >= 254


def test_a_constant_answer_is_black():
    assert not run(torch.full((1, 1, 8, 8), 2.0), 1)[0][1].any()
