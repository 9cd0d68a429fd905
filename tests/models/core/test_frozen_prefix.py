"""Encoders cut between their blocks: the two parts are the whole, to the bit, and only what never changes is kept."""

import pytest
import torch

from models import MODELS
from models.core.encoder_decoder import ENCODERS
from models.core.frozen_prefix import Continued, NoFrozenPrefix, frozen_prefix

TINY = {"name": "sam3_vit_tiny", "weights": "random", "depth": 4, "global_blocks": (1, 2), "drop_path": 0.0}
ENCODERS_AND_SIZES = [
    (TINY, 40),
    ({**TINY, "features": "global"}, 40),
    ({**TINY, "global_blocks": (1, 3), "checkpointing": True}, (40, 24)),
    ({"name": "sam2_hiera", "size": "tiny", "weights": "random"}, 64),
    ({"name": "timm_backbone", "model": "vit_tiny_patch16_224", "weights": "random"}, 32),
    ({"name": "timm_backbone", "model": "convnext_atto", "weights": "random"}, 32),
]
STILL = {"encoder": TINY, "decoder": {"width": 8}, "adapter": {"rank": 2, "placement": "none"}}


@pytest.mark.parametrize("config, size", ENCODERS_AND_SIZES)
@pytest.mark.parametrize("training", [True, False])
def test_the_parts_are_the_whole_to_the_bit(config, size, training):
    encoder = ENCODERS.build(ENCODERS.parse(config), size).requires_grad_(False).train(training)
    images = torch.randn(2, 3, *(size if isinstance(size, tuple) else (size, size)))
    whole = encoder(images)
    for cut in encoder.cuts:
        parts = encoder.run_from(encoder.run_to(images, cut), cut)
        assert [m.stride() for m in parts] == [m.stride() for m in whole]
        assert all(torch.equal(a, b) for a, b in zip(parts, whole, strict=True))


@pytest.mark.parametrize("config, size", ENCODERS_AND_SIZES[:4])
def test_gradients_behind_the_cut_are_those_of_the_whole(config, size):
    encoder = ENCODERS.build(ENCODERS.parse(config), size).requires_grad_(False).train()
    encoder.blocks[1].requires_grad_(True)
    images = torch.randn(1, 3, *(size if isinstance(size, tuple) else (size, size)))

    def gradients(maps):
        encoder.zero_grad()
        sum(m.square().mean() for m in maps).backward()
        return [p.grad for p in encoder.blocks[1].parameters()]

    whole = gradients(encoder(images))
    assert all(torch.equal(a, b) for a, b in zip(gradients(encoder.run_from(encoder.run_to(images, 1), 1)), whole))


def model(changes=None):
    return MODELS.build(MODELS.parse({"name": "sam3_unet", **STILL, **(changes or {})}), 40, False)


@pytest.mark.parametrize(
    "changes, kept",
    [
        ({}, 4),
        ({"adapter": {"rank": 2, "placement": "last:2"}}, 2),
        ({"adapter": {"name": "lora", "placement": [3]}}, 3),
        ({"tuned_blocks": [1]}, 1),
        ({"tuned_blocks": "last:1", "tuned_parameters": "norms"}, 3),
    ],
)
def test_kept_is_what_stands_before_anything_that_is_trained(changes, kept):
    assert frozen_prefix(model(changes)) == kept


@pytest.mark.parametrize(
    "changes, reason",
    [
        (
            {"adapter": {"rank": 2, "placement": "all"}},
            "only 0 of 4 blocks always give the same: in block 0 .* is trained",
        ),
        ({"tuned_stem": True}, "outside of the blocks .* is trained"),
        ({"adapter": {"name": "ladder"}}, "Ladder cannot be cut"),
        ({"encoder": {**TINY, "depth": 8, "drop_path": 0.1}}, r"only 1 of 8 .* DropPath is active .*drop_path=0 turns"),
    ],
)
def test_what_cannot_be_kept_says_why(changes, reason):
    with pytest.raises(NoFrozenPrefix, match=reason):
        frozen_prefix(model(changes))


def test_other_models_cannot_be_cut():
    with pytest.raises(NoFrozenPrefix, match="no frozen encoder with a decoder"):
        frozen_prefix(MODELS.build(MODELS.parse({"name": "unet", "width": 4}), 32, False))


def test_a_continued_model_is_the_model():
    whole = model({"adapter": {"rank": 2, "placement": "last:1"}}).eval()
    images = torch.randn(2, 3, 40, 40)
    rest = Continued(whole, 3, (40, 40))
    assert torch.equal(rest(whole.encoder.run_to(images.flip(0), 3))[0], whole(images.flip(0))[0])
    assert torch.equal(rest(images)[0], whole(images)[0])
    assert [n for n, _ in rest.named_parameters()] == [n for n, _ in whole.named_parameters()]
    assert {id(p) for p in rest.parameters()} == {id(p) for p in whole.parameters()}
