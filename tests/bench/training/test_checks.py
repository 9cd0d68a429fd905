import pytest
import torch
from torch import nn

from bench.training.checks import CheckFailed, GradientCheck, check_frozen, frozen_digests, tensor_digest


class Adapted(nn.Module):
    def __init__(self):
        super().__init__()
        self.block = nn.Linear(3, 3).requires_grad_(False)
        self.adapter = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 3))


@pytest.fixture
def model():
    return nn.Sequential(Adapted(), nn.Linear(3, 1))


def test_an_adapter_without_gradient_is_named(model):
    check = GradientCheck(model)
    model[1](model[0].block(torch.randn(4, 3)) + model[0].adapter[1].bias).sum().backward()
    check.update()
    with pytest.raises(CheckFailed) as error:
        check.check()
    assert str(error.value) == "no gradient ever reached 0.adapter.0.bias, 0.adapter.0.weight, 0.adapter.1.weight"


def test_a_gradient_of_zero_is_none_until_one_comes(model):
    """Zero-initialised adapters receive their first gradient some steps later; that is enough."""
    check = GradientCheck(model)
    for parameter in model[0].adapter.parameters():
        parameter.grad = torch.zeros_like(parameter)
    check.update()
    assert len(check.without_gradient) == 4
    for parameter in model[0].adapter.parameters():
        parameter.grad = torch.full_like(parameter, 1e-20)
    check.update()
    check.check()


@pytest.mark.parametrize("change", [1e-7, -0.0])
def test_a_frozen_weight_that_moved_by_one_bit_is_named(model, change):
    with torch.no_grad():
        model[0].block.weight[1, 2] = 0.0
    before = frozen_digests(model)
    assert set(before) == {"0.block.weight", "0.block.bias"}
    check_frozen(model, before)
    with torch.no_grad():
        model[0].block.weight[1, 2] = change
    with pytest.raises(CheckFailed, match="frozen, yet changed by training: 0.block.weight$"):
        check_frozen(model, before)


def test_trained_weights_may_move(model):
    before = frozen_digests(model)
    with torch.no_grad():
        model[1].weight += 1
    check_frozen(model, before)


def test_digests_take_every_dtype():
    for dtype in (torch.float32, torch.bfloat16, torch.int64, torch.bool):
        assert len(tensor_digest(torch.zeros(3, 2).to(dtype).t())) == 32
    assert len(tensor_digest(torch.zeros(()))) == 32
