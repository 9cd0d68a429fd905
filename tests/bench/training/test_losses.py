import warnings

import pytest
import torch
from torch.nn import functional as F

from bench.config.settings import LOSSES
from bench.training.losses import cross_entropy, structure_loss, weighted_structure_loss

ENTRIES = {name: LOSSES.module(name) for name in LOSSES.names()}


def upstream_structure_loss(pred, mask):
    """The formula of WZH0120/SAM3-UNet fdb21da, train.py, called as there (``reduce='none'`` is truthy: a mean)."""
    weight = 1 + 5 * torch.abs(F.avg_pool2d(mask, kernel_size=31, stride=1, padding=15) - mask)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        bce = F.binary_cross_entropy_with_logits(pred, mask, reduce="none")
    bce = (weight * bce).sum(dim=(2, 3)) / weight.sum(dim=(2, 3))
    pred = torch.sigmoid(pred)
    inter = ((pred * mask) * weight).sum(dim=(2, 3))
    union = ((pred + mask) * weight).sum(dim=(2, 3))
    return (bce + 1 - (inter + 1) / (union - inter + 1)).mean()


@pytest.mark.parametrize("shape", [(2, 1, 40, 56), (1, 1, 20, 20), (3, 1, 96, 96)])
@pytest.mark.parametrize("soft", [False, True])
def test_structure_loss_and_its_gradient_are_upstreams(shape, soft):
    masks = torch.rand(shape) if soft else (torch.rand(shape) > 0.6).float()
    ours, theirs = (torch.randn(shape).mul_(3).requires_grad_() for _ in range(2))
    theirs.data.copy_(ours.data)
    a, b = structure_loss.loss(ours, masks), upstream_structure_loss(theirs, masks)
    torch.testing.assert_close(a, b)
    a.backward()
    b.backward()
    torch.testing.assert_close(ours.grad, theirs.grad)


def test_the_weighted_loss_is_the_formula_without_upstreams_slip():
    logits, masks = 3 * torch.randn(2, 1, 50, 40), (torch.rand(2, 1, 50, 40) > 0.6).float()
    weight = 1 + 5 * torch.abs(F.avg_pool2d(masks, kernel_size=31, stride=1, padding=15) - masks)
    bce = -(masks * F.logsigmoid(logits) + (1 - masks) * F.logsigmoid(-logits))
    bce = (weight * bce).sum(dim=(2, 3)) / weight.sum(dim=(2, 3))
    rest = structure_loss.loss(logits, masks) - F.binary_cross_entropy_with_logits(logits, masks)
    torch.testing.assert_close(weighted_structure_loss.loss(logits, masks), bce.mean() + rest)


@pytest.mark.parametrize("loss", [entry.loss for entry in ENTRIES.values() if not entry.FOR_CLASSES])
def test_losses_are_small_when_right_and_large_when_wrong(loss):
    masks = (torch.rand(2, 1, 32, 32) > 0.5).float()
    right, wrong = loss(20 * masks - 10, masks), loss(10 - 20 * masks, masks)
    assert right.ndim == 0 and right < 0.01 < 1 < wrong


def test_cross_entropy_is_minus_the_log_of_the_right_classes_share():
    logits, masks = torch.randn(2, 4, 5, 6), torch.randint(0, 4, (2, 5, 6))
    shares = logits.softmax(dim=1)
    right = torch.stack([shares[b, masks[b, y, x], y, x] for b in range(2) for y in range(5) for x in range(6)])
    torch.testing.assert_close(cross_entropy.loss(logits, masks), -right.log().mean())
    certain = 40.0 * F.one_hot(masks, 4).permute(0, 3, 1, 2)
    assert cross_entropy.loss(certain, masks) < 1e-3 < 10 < cross_entropy.loss(-certain, masks)
