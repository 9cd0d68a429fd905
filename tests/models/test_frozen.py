"""Frozen weights in fewer bits: what is stored, how far it is off, and that the rest of the model does not notice."""

import pytest
import torch
from torch import nn

from models import MODELS
from models._encoder_decoder import parameter_counts
from models._frozen import NF4_BLOCK, NF4_LEVELS, StoredLinear, store_frozen
from models._skeleton import skeleton

STORAGES = ("bfloat16", "int8", "nf4")
BYTES = {"bfloat16": 2.0, "int8": 1 + 4 / 128, "nf4": 0.5 + 2 / 64}  # a weight of 128 inputs, scales included


@pytest.fixture
def linear():
    return nn.Linear(128, 96).requires_grad_(False)


def small(**changes):
    encoder = {"name": "sam3_vit_tiny", "weights": "random", "depth": 2, "global_blocks": [1]}
    return MODELS.parse(
        {"name": "sam3_unet", "encoder": encoder, "decoder": {"width": 16}, "adapter": {"rank": 4}, **changes}
    )


@pytest.mark.parametrize("storage", STORAGES)
def test_it_takes_the_bytes_that_it_promises(linear, storage):
    layer = StoredLinear(linear, storage)
    stored = layer.codes.nbytes + (0 if layer.scales is None else layer.scales.nbytes)
    assert stored == BYTES[storage] * linear.weight.numel()
    assert not [p for p in layer.parameters() if p.requires_grad]


@pytest.mark.parametrize("storage", STORAGES)
def test_each_weight_is_within_half_a_step(linear, storage):
    weight, unpacked = linear.weight, StoredLinear(linear, storage).weight
    if storage == "bfloat16":
        bound = weight.abs() * 2**-8
    elif storage == "int8":
        bound = (weight.abs().amax(1, keepdim=True) / 127 / 2).expand_as(weight)
    else:
        widest = max(b - a for a, b in zip(NF4_LEVELS, NF4_LEVELS[1:])) / 2 + 2**-11
        bound = (
            (weight.view(-1, NF4_BLOCK).abs().amax(1, keepdim=True) * widest).expand(-1, NF4_BLOCK).reshape_as(weight)
        )
    assert ((weight - unpacked).abs() <= bound * 1.001).all()
    assert torch.equal(StoredLinear(_with_weight(unpacked), storage).weight, unpacked) or storage == "int8"


def _with_weight(weight):
    layer = nn.Linear(weight.shape[1], weight.shape[0]).requires_grad_(False)
    layer.weight.copy_(weight)
    return layer


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_outputs_and_gradients_are_those_of_the_unpacked_weight(linear, storage, precision):
    layer = StoredLinear(linear, storage)
    plain = _with_weight(layer.unpacked(precision).float()).to(precision)
    plain.bias.copy_(linear.bias)
    x = torch.randn(3, 5, 128, dtype=precision)
    mine, reference = x.clone().requires_grad_(), x.clone().requires_grad_()
    out, expected = layer(mine), plain(reference)
    tolerance = {"rtol": 1e-5, "atol": 1e-6} if precision == torch.float32 else {"rtol": 2e-2, "atol": 2e-2}
    torch.testing.assert_close(out, expected, **tolerance)
    out.square().sum().backward()
    expected.square().sum().backward()
    torch.testing.assert_close(mine.grad, reference.grad, rtol=tolerance["rtol"] * 2, atol=tolerance["atol"] * 20)


def test_under_autocast_it_computes_as_a_linear_layer_does(linear):
    with torch.autocast("cpu", torch.bfloat16):
        assert StoredLinear(linear, "int8")(torch.randn(2, 128)).dtype == torch.bfloat16


def test_nothing_is_kept_for_the_backward_pass(linear):
    kept = []
    x = torch.randn(4, 128, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        StoredLinear(linear, "nf4")(x)
    assert kept == []


def test_a_row_of_zeros_stays_zero():
    for storage in STORAGES:
        layer = nn.Linear(64, 2).requires_grad_(False)
        layer.weight[0] = 0
        assert (StoredLinear(layer, storage).weight[0] == 0).all()


def test_only_frozen_linear_layers_are_replaced():
    part = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64), nn.Conv2d(3, 3, 1), nn.Linear(3, 5))
    part[0].requires_grad_(False)
    part[3].requires_grad_(False)
    store_frozen(part, "nf4")
    assert [type(layer) for layer in part] == [StoredLinear, nn.Linear, nn.Conv2d, nn.Linear]  # 15 weights are no block


@pytest.mark.parametrize("storage", STORAGES)
def test_a_model_counts_trains_and_has_a_skeleton_as_before(storage):
    plain, config = small(), small(frozen_weights=storage, tuned_blocks="last:1")
    torch.manual_seed(0)
    model = MODELS.build(config, 64, False).train()
    assert isinstance(model.encoder.blocks[0].block.mlp.fc1, StoredLinear)
    assert type(model.encoder.blocks[1].block.mlp.fc1) is nn.Linear
    counts = parameter_counts(model)
    assert counts["total"] == parameter_counts(MODELS.build(plain, 64, False))["total"]
    assert parameter_counts(skeleton(config, 64)) == counts
    sum(logits.square().mean() for logits in model(torch.randn(2, 3, 64, 64))).backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name


def test_a_model_in_eight_bits_answers_nearly_alike():
    images = torch.randn(2, 3, 64, 64)
    answers = {}
    for storage in ("float32", *STORAGES):
        torch.manual_seed(0)
        answers[storage] = MODELS.build(small(frozen_weights=storage), 64, False).eval()(images)[0]
    spread = answers["float32"].std()
    errors = {s: ((answers[s] - answers["float32"]).std() / spread).item() for s in STORAGES}
    assert errors["bfloat16"] < 0.02 and errors["int8"] < 0.04 and errors["nf4"] < 0.4, errors


def test_four_bits_are_torchaos(linear):
    """Parity with torchao's NF4 tensor, up to its scales, which it quantises once more."""
    nf4 = pytest.importorskip("torchao.quantization.quantize_.workflows.nf4.nf4_tensor")
    weight = torch.randn(128, 256)
    theirs = nf4.to_nf4(weight, block_size=64, scaler_block_size=256).get_original_weight()
    mine = StoredLinear(_with_weight(weight), "nf4").weight
    scale = weight.view(-1, 64).abs().amax(1, keepdim=True).expand(-1, 64).reshape_as(weight)
    assert ((mine - theirs).abs() / scale).median() < 0.005
    assert ((mine - theirs).abs() / scale > 0.02).float().mean() < 0.03  # weights between two levels
