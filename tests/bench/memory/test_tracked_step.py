"""The tracked peak of a training step: exact, the same in every run, and what the prediction says."""

import pytest
import torch
from torch import nn

from bench.config.trial import with_value
from bench.memory.predicted_peak import predict_tensors
from bench.memory.tracked_step import TrackedStep
from bench.trial import run_trial


def test_the_peak_of_a_product_is_counted_by_hand():
    layer = nn.Linear(100, 50, bias=False)  # 20,000 bytes
    optimiser = torch.optim.SGD(layer.parameters(), lr=0.1)
    x = torch.ones(10, 100)  # made before the step, so that it does not count
    tracked = TrackedStep()
    with tracked(layer, optimiser):
        y = layer(x)  # 2,000 bytes, and it lives on
        y.sum().backward()
    # at the end of the backward pass: weight, its gradient, y, the sum (4), its gradient (4; expand takes no memory)
    assert 42_000 <= tracked.bytes <= 42_016
    assert y.shape == (10, 50)


def test_without_a_step_nothing_is_known():
    assert TrackedStep().bytes is None


def test_two_runs_agree_to_the_byte_and_the_prediction_to_a_percent(tiny_with):
    config = tiny_with({"train.epochs": 2})
    first, again = run_trial(config), run_trial(config)
    bytes_ = first.memory["training"].tensor_bytes
    assert bytes_ == again.memory["training"].tensor_bytes
    assert bytes_ == pytest.approx(predict_tensors(config), rel=0.01)
    assert first.memory["evaluation"].tensor_bytes is None


@pytest.mark.parametrize(
    ("changes", "more"), [({"train.batch_size": 4}, False), ({"model.decoder.width": 64}, True)], ids=str
)
def test_the_peak_moves_with_the_configuration(tiny_with, changes, more):
    base = tiny_with({"train.epochs": 2, "train.batch_size": 8, "dataset.train": 16, "model.decoder.width": 8})
    plain = run_trial(base).memory["training"].tensor_bytes
    changed = run_trial(with_value(base, changes)).memory["training"].tensor_bytes
    assert (changed > plain) is more and changed != plain


def test_tracking_changes_no_score(monkeypatch, tiny_with):
    config = tiny_with({"train.epochs": 2})
    tracked = run_trial(config)
    monkeypatch.setattr("bench.trial.TrackedStep.__call__", lambda *arguments: Nothing())
    plain = run_trial(config)
    assert plain.memory["training"].tensor_bytes is None
    assert plain.scores == tracked.scores and plain.curve == tracked.curve


class Nothing:
    def __enter__(self): ...

    def __exit__(self, *error): ...


def test_a_single_step_is_not_tracked(tiny_with):
    config = tiny_with({"train.epochs": 1, "train.batch_size": 8, "dataset.train": 8})
    record = run_trial(config)
    assert record.status == "ok" and record.memory["training"].tensor_bytes is None
