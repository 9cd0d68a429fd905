"""Every setting of speed and memory trains the same: its loss curve is within a quarter of the spread of three seeds."""

import pytest

from bench.trial import run_trial

SETTINGS = {
    "bfloat16": {"train.precision": "bfloat16"},
    "float16": {"train.precision": "float16"},
    "bfloat16 weights and residual": {
        "train.precision": "bfloat16",
        "model.frozen_weights": "bfloat16",
        "model.encoder.residual": "bfloat16",
    },
    "micro-batches": {"train.accumulate": 2},
    "three blocks checkpointed": {"model.encoder.checkpointing": 3},
    "compiled": {"train.compile": "blocks"},
}


def curve(config):
    record = run_trial(config)
    assert record.status == "ok", record.error
    return [point.train_loss for point in record.curve]


@pytest.mark.slow
@pytest.mark.parametrize("name", SETTINGS)
def test_the_curve_is_that_of_plain_float32_within_the_noise_of_seeds(tiny_with, name):
    task = {"train.epochs": 4, "train.lr": 5e-3, "dataset.train": 16}
    plain = [curve(tiny_with({**task, "seed": seed})) for seed in (0, 1, 2)]
    found = curve(tiny_with({**task, **SETTINGS[name], "seed": 0}))
    assert plain[0][-1] < plain[0][0] - 0.03  # it learns
    for epoch, losses in enumerate(zip(*plain, strict=True)):
        assert abs(found[epoch] - losses[0]) <= (max(losses) - min(losses)) / 4, (epoch, found, plain)
