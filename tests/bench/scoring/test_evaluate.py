import numpy as np
import torch
from torch import nn

from bench.config.settings import ProtocolConfig, TransformConfig
from bench.datasets import Split
from bench.scoring.evaluate import predict

TRANSFORM = TransformConfig(size=8)


class Fixed(nn.Module):
    """Returns the same logits for every image."""

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


def run(logits, count=5, size=(8, 8), **protocol):
    config = ProtocolConfig(**protocol)
    return list(predict(Fixed(logits), split(count, size), TRANSFORM, torch.device("cpu"), 2, config))


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


def test_every_choice_of_the_protocol_changes_the_map():
    logits = torch.randn(1, 1, 8, 8)
    usual = run(logits, 1, (11, 9))[0][1]
    plain = run(logits, 1, (11, 9), minmax=False)[0][1]
    rounded = run(logits, 1, (11, 9), quantise="round")[0][1]
    exact = run(logits, 1, (11, 9), quantise="none")[0][1]
    assert plain.min() > 0 and plain.max() < 255
    assert set(np.unique(rounded.astype(int) - usual)) == {0, 1}
    assert exact.dtype == np.float32 and np.array_equal((exact * 255).astype(np.uint8), usual)
    for resize in ("bicubic", "nearest"):
        assert not np.array_equal(run(logits, 1, (11, 9), resize=resize)[0][1], usual)


def test_nearest_keeps_the_models_own_probabilities():
    logits = torch.randn(1, 1, 4, 4)
    ((_, answer, _),) = run(logits, 1, (8, 8), resize="nearest", minmax=False, quantise="none")
    expected = logits.sigmoid().numpy()[0, 0].repeat(2, axis=0).repeat(2, axis=1)
    assert np.allclose(answer, expected)
