"""Which of the encoder's own weights are trained: blocks, and norms or biases in them."""

import pytest
import torch
from torch import nn

from bench.training.checks import check_frozen, frozen_digests
from models import MODELS
from models.core.encoder_decoder import _chosen, layers_of, part_of
from models.core.registry import InvalidModel
from models.core.skeleton import skeleton

DEPTH = 4
ENCODER = {"name": "sam3_vit_tiny", "weights": "random", "depth": DEPTH, "dim": 16, "global_blocks": [1, 3]}
NORMS = {f"norm{i}.{kind}" for i in (1, 2) for kind in ("weight", "bias")}
BIASES = {"norm1.bias", "norm2.bias", "attn.qkv.bias", "attn.proj.bias", "mlp.fc1.bias", "mlp.fc2.bias"}
WEIGHTS = {"attn.qkv.weight", "attn.proj.weight", "mlp.fc1.weight", "mlp.fc2.weight"}


def config(**changes):
    raw = {"name": "sam3_unet", "encoder": ENCODER, "decoder": {"width": 8}, "adapter": {"placement": "none"}}
    return MODELS.parse({**raw, **changes})


def trained(model):
    """Trained weights of the encoder, as (block or None, name)."""
    names = [n.split(".") for n, p in model.named_parameters() if p.requires_grad and part_of(n) == "encoder"]
    return {(int(n[3]), ".".join(n[4:])) if n[2] == "blocks" else (None, ".".join(n[2:])) for n in names}


@pytest.mark.parametrize(("which", "names"), [("all", NORMS | BIASES | WEIGHTS), ("norms", NORMS), ("biases", BIASES)])
@pytest.mark.parametrize(("blocks", "numbers"), [("all", range(DEPTH)), ("last:2", (2, 3)), ([0], (0,))])
def test_these_weights_of_these_blocks_are_trained_and_no_others(which, names, blocks, numbers):
    model = MODELS.build(config(tuned_blocks=blocks, tuned_parameters=which), 32, False).train()
    assert trained(model) == {(i, name) for i in numbers for name in names}
    frozen = frozen_digests(model)
    before = {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(3):  # the blocks' stochastic depth may skip a step
        optimiser.zero_grad()
        model(torch.randn(2, 3, 32, 32))[0].square().mean().backward()
        optimiser.step()
    check_frozen(model, frozen)
    assert all(not torch.equal(p, before[n]) for n, p in model.named_parameters() if n in before)


def test_the_stem_is_trained_beside_norms_when_asked():
    model = skeleton(config(tuned_blocks="last:1", tuned_parameters="norms", tuned_stem=True), 32)
    stem = {(None, name) for name in ("pos_embed", "patch_embed.proj.weight", "ln_pre.weight", "ln_pre.bias")}
    assert trained(model) == stem | {(3, name) for name in NORMS}


@pytest.mark.parametrize("which", ["norms", "biases"])
def test_a_choice_of_weights_needs_tuned_blocks(which):
    message = "says which weights of the tuned blocks are trained, but tuned_blocks is none"
    with pytest.raises(InvalidModel, match=f"tuned_parameters: '{which}' {message}"):
        skeleton(config(tuned_parameters=which), 32)


def test_a_block_without_norms_cannot_have_them_tuned():
    with pytest.raises(InvalidModel, match="block 2 .Linear. has no norms to train"):
        _chosen(nn.Linear(2, 2), 2, "norms")
    with pytest.raises(InvalidModel, match="block 2 .Linear. has no biases to train"):
        _chosen(nn.Linear(2, 2, bias=False), 2, "biases")


def test_distances_from_the_decoder_are_those_of_the_sam3_package():
    """sam3's ViT numbers its layers after BEiT: 0 the stem, then the blocks."""
    model = skeleton(config(tuned_blocks="all", tuned_stem=True, adapter="bottleneck"), 32)
    trunk = model.encoder.trunk
    names = {id(p): n.removeprefix("encoder.trunk.") for n, p in model.named_parameters()}
    distances = {names[id(p)]: distance for p, distance in layers_of(model)}
    assert len(distances) == sum(p.requires_grad and part_of(n) == "encoder" for n, p in model.named_parameters())
    assert distances == {name: DEPTH + 1 - trunk.get_layer_id(name) for name in distances}
    assert set(distances.values()) == set(range(1, DEPTH + 2))


def test_only_an_encoder_of_blocks_has_layers():
    model = nn.Module()
    assert list(layers_of(model)) == []
    model.encoder = nn.Linear(2, 2)
    with pytest.raises(InvalidModel, match="an encoder without blocks"):
        list(layers_of(model))
