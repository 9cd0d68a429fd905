"""``encoder.checkpointing: N``: the first N blocks are recomputed, with equal numbers, and memory lies between."""

from copy import deepcopy

import pytest
import torch
from pydantic import ValidationError

from bench.config.trial import recorded
from bench.memory.predicted_peak import predict_peak
from models import MODELS
from models.core.activation_checkpointing import Recomputed
from models.core.registry import InvalidModel
from models.core.skeleton import skeleton

SMALL = {"name": "sam3_vit_tiny", "weights": "random", "depth": 4, "dim": 16, "global_blocks": [1, 3], "drop_path": 0.5}


def model_of(checkpointing, encoder=SMALL, size=32):
    settings = {
        "name": "sam3_unet",
        "encoder": {**encoder, "checkpointing": checkpointing},
        "decoder": {"name": "linear"},
    }
    torch.manual_seed(0)
    return MODELS.build(MODELS.parse(settings), size, False).train()


def gradients(model, size=32):
    torch.manual_seed(2)  # of stochastic depth
    model(torch.randn(2, 3, size, size))[0].square().mean().backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("checkpointing", [True, 1, 3, 4])
def test_no_gradient_changes(checkpointing):
    expected, model = gradients(model_of(False)), model_of(checkpointing)
    for found in (gradients(model), gradients(deepcopy(model).requires_grad_(True))):
        assert all(torch.equal(found[name], expected[name]) for name in expected)


def recomputed(model):
    return [isinstance(block.__dict__.get("forward"), Recomputed) for block in model.encoder.blocks]


def test_the_first_blocks_are_recomputed_with_their_adapters():
    assert recomputed(model_of(3)) == [True, True, True, False]
    assert all(recomputed(model_of(True))) and not any(recomputed(model_of(False)))
    assert list(model_of(3).state_dict()) == list(model_of(False).state_dict())


@pytest.mark.parametrize(
    "encoder",
    [{"name": "timm_backbone", "model": "vit_tiny_patch16_224", "weights": "random"}, {"name": "sam2_hiera", "size": "tiny", "weights": "random"}],
    ids=lambda encoder: encoder["name"],
)  # fmt: skip
def test_every_encoder_has_it(encoder):
    expected, model = gradients(model_of(False, encoder, 64), 64), model_of(2, encoder, 64)
    found = gradients(model, 64)
    assert sum(recomputed(model)) == 2
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-6)


def test_more_blocks_than_there_are_and_none_at_all_are_refused():
    with pytest.raises(InvalidModel, match="encoder.checkpointing: 5, but the encoder has 4 blocks"):
        model_of(5)
    with pytest.raises(ValidationError, match="checkpointing"):
        model_of(0)


def test_one_block_is_another_trial_than_all_of_them_and_has_a_shape_of_its_own(tiny_with):
    """In Python 1 equals True."""
    one, every = tiny_with({"model.encoder.checkpointing": 1}), tiny_with({"model.encoder.checkpointing": True})
    assert one.trial_id != every.trial_id
    assert recorded(one.model_dump_json()).model.encoder.checkpointing is not True
    for config in (every, one, every):
        assert all(recomputed(skeleton(config.model, config.transform.size))) is (config is every)


def test_the_predicted_activations_lie_between_none_and_all(tiny_with):
    held = [
        predict_peak(tiny_with({"model.encoder.checkpointing": value})).parts["activations"]
        for value in (False, 2, 6, True)
    ]
    assert held == sorted(held, reverse=True) and len(set(held)) == 4
