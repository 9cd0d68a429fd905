"""Which parameter learns how fast."""

import pytest
from pydantic import ValidationError

from bench.config.settings import TrainConfig
from bench.training.optimiser import parameter_groups
from bench.trial import run_trial
from models import MODELS
from models.core.encoder_decoder import part_of

TINY = {
    "name": "sam3_unet",
    "encoder": {"name": "sam3_vit_tiny", "weights": "random", "depth": 4, "dim": 16, "global_blocks": [1, 3]},
    "decoder": {"width": 8},
}


def rates(train, **changes):
    """Learning rate of each trained parameter, by name."""
    model = MODELS.build(MODELS.parse({**TINY, **changes}), 32, False)
    config = TrainConfig(**train)
    names = {id(p): n for n, p in model.named_parameters()}
    groups = parameter_groups(model, config)
    found = {names[id(p)]: group.get("lr", config.lr) for group in groups for p in group["params"]}
    assert len(found) == sum(len(g["params"]) for g in groups) == sum(p.requires_grad for p in model.parameters())
    assert "lr" not in groups[0]  # the curve shows the first group's rate
    return found


def test_blocks_nearer_to_the_image_learn_slower():
    train = {"lr": 1e-2, "encoder_lr_scale": 0.5, "layer_decay": 0.8}
    for name, rate in rates(train, tuned_blocks="all", tuned_stem=True).items():
        parts = name.split(".")
        if "adapter" in parts or parts[0] == "decoder":
            assert rate == 1e-2
        elif "blocks" in parts:
            assert rate == pytest.approx(1e-2 * 0.5 * 0.8 ** (4 - int(parts[3]))), name
        else:
            assert rate == pytest.approx(1e-2 * 0.5 * 0.8**5), name


def test_without_decay_all_tuned_weights_learn_at_one_rate():
    found = rates({"lr": 1e-2, "encoder_lr_scale": 0.1}, tuned_blocks="last:2")
    assert set(found.values()) == {1e-2, 1e-2 * 0.1}
    assert {n for n, rate in found.items() if rate < 1e-2} == {n for n in found if part_of(n) == "encoder"}


def test_nothing_tuned_is_one_group_and_a_network_without_encoder_too():
    assert set(rates({"lr": 1e-2, "layer_decay": 0.5}).values()) == {1e-2}
    assert set(rates({"lr": 1e-2, "layer_decay": 0.5}, adapter={"placement": "none"}).values()) == {1e-2}
    model = MODELS.build(MODELS.parse({"name": "unet", "width": 2}), 32, False)
    assert len(parameter_groups(model, TrainConfig(layer_decay=0.5))) == 1


@pytest.mark.parametrize("value", [0, -0.5, 1.01])
def test_a_decay_lies_above_0_and_up_to_1(value):
    with pytest.raises(ValidationError):
        TrainConfig(layer_decay=value)


def test_a_trial_with_decay_and_norms_runs_and_differs(tiny_with):
    base = {"model.tuned_blocks": "all", "model.tuned_parameters": "norms"}
    plain = run_trial(tiny_with(base))
    decayed = run_trial(tiny_with({**base, "train.layer_decay": 0.5}))
    assert (plain.status, decayed.status) == ("ok", "ok"), plain.error + decayed.error
    assert plain.parameters == decayed.parameters and plain.curve != decayed.curve
    assert plain.parameters["trainable"] == plain.parameters["adapter"] + plain.parameters["decoder"] + 8 * 4 * 64


@pytest.mark.parametrize("name", ["ladder", "vera"])
def test_a_trial_of_an_unusual_adapter_passes_its_own_checks(tiny_with, name):
    """A module in the encoder's place, and shared buffers; test_adapters.py runs the checks on every method."""
    record = run_trial(tiny_with({"model.adapter": {"name": name}}))
    assert record.status == "ok", record.error
    assert record.parameters["adapter"] > 0
