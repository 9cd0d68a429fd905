"""float16: the scale of the loss, skipped steps, what a resumption restores, and on which cards a type is possible."""

import math

import pytest
import torch
from fake_cuda import FakeCuda
from torch import nn

from bench.config import lacking
from bench.config.trial import DATASETS
from bench.training import loop
from bench.training.data_parallel import Share
from bench.training.loop import Diverged, train
from bench.training.optimiser import make_optimiser
from bench.training.precision import MeanLoss, make_scaler, skipped_steps
from bench.training.training_state import TrainingStates
from bench.trial import run_trial
from models import MODELS

CPU = torch.device("cpu")


def trained(config, states=None, on_epoch=lambda epoch: None):
    data = DATASETS.build(config.dataset, config.transform)
    torch.manual_seed(config.seed)
    model = MODELS.build(config.model, config.transform.size, True)
    if states is not None:
        states.expect({})
    result = train(model, data, config.train, config.transform, CPU, seed=0, on_epoch=on_epoch, resume=states)
    return result, model.state_dict()


@pytest.fixture
def scale(monkeypatch):
    """``scale(x)`` lets the scale of the loss start at x."""

    def start(value):
        make = lambda device, precision: torch.amp.GradScaler(  # noqa: E731
            device.type, init_scale=value, enabled=precision == "float16"
        )
        monkeypatch.setattr(loop, "make_scaler", make)

    return start


def test_a_step_that_overflows_is_skipped_counted_and_not_a_divergence(tiny_with, scale):
    scale(2.0**24)
    config = tiny_with({"train.precision": "float16", "train.epochs": 8})
    result, state = trained(config)
    assert result.skipped is not None and 0 < result.skipped < result.steps
    assert all(torch.isfinite(value).all() for value in state.values() if value.is_floating_point())
    record = run_trial(config)
    assert record.status == "ok" and any("overflowed float16" in note for note in record.notes)
    assert trained(tiny_with({"train.precision": "bfloat16"}))[0].skipped is None


def test_a_resumed_training_has_the_scale_too(tiny_with, tmp_path, scale):
    scale(2.0**24)
    config = tiny_with({"train.precision": "float16", "train.epochs": 4})
    whole, expected = trained(config)

    class Cut(BaseException):
        pass

    def cut(epoch):
        if epoch.epoch == 3:
            raise Cut

    with pytest.raises(Cut):
        trained(config, TrainingStates(tmp_path, 0), on_epoch=cut)
    states = TrainingStates(tmp_path, 0)
    resumed, found = trained(config, states)
    assert states.resumed_from == [2] and resumed.curve == whole.curve and resumed.skipped == whole.skipped
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_training_has_diverged_where_the_scale_falls_below_one_or_no_loss_is_finite(tiny_with, scale):
    config = tiny_with({"train.precision": "float16"})
    scale(0.9)
    with pytest.raises(Diverged, match="overflow float16 up to step"):
        trained(config)
    scale(2.0**16)
    model = MODELS.build(config.model, config.transform.size, True)
    with torch.no_grad():
        next(model.decoder.parameters()).fill_(1e38)
    data = DATASETS.build(config.dataset, config.transform)
    with pytest.raises(Diverged, match="the loss became nan at step 1"):
        train(model, data, config.train, config.transform, CPU, seed=0)


def test_the_mean_loss_of_processes_is_that_of_their_finite_steps_and_each_of_them_asks_for_it():
    asked = []

    class Pair(Share):
        def mean(self, value):
            asked.append(value)
            return value / 2  # the other process had no finite loss

    losses = MeanLoss(CPU, overflows=True)
    for loss in (3.0, float("inf"), 1.0):
        losses.add(torch.tensor(loss))
    assert losses.mean(Pair(0, 2), 3) == 2 and len(asked) == 2
    nothing = MeanLoss(CPU, overflows=True)
    nothing.add(torch.tensor(float("inf")))
    assert math.isnan(nothing.mean(Pair(1, 2), 1)) and len(asked) == 4
    plain = MeanLoss(CPU, overflows=False)
    plain.add(torch.tensor(3.0))
    assert plain.mean(Share(), 1) == 3


def test_the_optimiser_counts_the_steps_that_were_taken():
    layer = nn.Linear(2, 1)
    optimiser = torch.optim.AdamW(layer.parameters())
    assert skipped_steps(optimiser, 3) == 3
    for value in (1.0, float("inf"), 1.0):
        scaler = make_scaler(CPU, "float16")
        scaler.scale(layer(torch.full((1, 2), value)).sum()).backward()
        scaler.step(optimiser)
        optimiser.zero_grad()
    assert skipped_steps(optimiser, 3) == 1


def test_a_bfloat16_residual_is_refused_under_float16(tiny_with):
    changes = {"train.precision": "float16", "model.encoder.residual": "bfloat16"}
    with pytest.raises(Exception, match="residual: bfloat16 is not the type of train.precision=float16"):
        tiny_with(changes)


@pytest.mark.parametrize(
    ("precision", "capability", "remedy"),
    [
        ("bfloat16", (8, 0), None),
        ("bfloat16", (7, 5), "float16"),
        ("float16", (7, 5), None),
        ("float16", (6, 1), "float32"),
        ("float32", (6, 1), None),
    ],
)
def test_a_type_needs_tensor_cores(precision, capability, remedy, monkeypatch):
    FakeCuda(monkeypatch, capability=capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    found = list(lacking.tensor_cores("cuda", precision))
    assert [item.remedy for item in found] == ([f"set train.precision={remedy}"] if remedy else [])
    assert not list(lacking.tensor_cores("cpu", precision))


def test_adamw_is_fused_on_a_gpu_only(tiny):
    model = MODELS.build(tiny.model, tiny.transform.size, False)
    assert not make_optimiser(model, tiny.train).defaults["fused"]
    assert make_optimiser(model, tiny.train, fused=True).defaults["fused"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no NVIDIA GPU")
def test_on_a_card_adamw_is_fused_and_float16_trains(tiny_with):
    model = MODELS.build(tiny_with({}).model, 32, False).cuda()
    assert make_optimiser(model, tiny_with({}).train).defaults["fused"]
    record = run_trial(tiny_with({"device": "cuda", "train.precision": "float16"}))
    assert record.status == "ok" and record.memory_conditions.fused_optimiser
