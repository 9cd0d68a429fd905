"""Frozen weights in fewer bits: what is stored, how far it is off, and that the rest of the model does not notice."""

import copy
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError

import pytest
import torch
from torch import nn

from models import MODELS
from models.core import frozen
from models.core.encoder_decoder import parameter_counts
from models.core.frozen import NF4_BLOCK, FrozenLinear, StoredLinear, store_frozen
from models.core.skeleton import skeleton

STORAGES = ("bfloat16", "int8", "nf4")
ROWS, COLUMNS = 96, 128
SCALES = ROWS * COLUMNS // NF4_BLOCK  # of 64 weights each: 192, which share factors by 64
BYTES = {
    "bfloat16": 2 * ROWS * COLUMNS,
    "int8": ROWS * COLUMNS + ROWS * (4 + 1),  # a scale and torchao's zero point
    "nf4": ROWS * COLUMNS // 2 + SCALES + SCALES // 64 * 4 + 4 + 16 * 4,  # factors, the scales' mean, the levels
}
NF4_LEVELS = (  # QLoRA (Dettmers et al., NeurIPS 2023), appendix E
    -1.0,
    -0.6961928009986877,
    -0.5250730514526367,
    -0.39491748809814453,
    -0.28444138169288635,
    -0.18477343022823334,
    -0.09105003625154495,
    0.0,
    0.07958029955625534,
    0.16093020141124725,
    0.24611230194568634,
    0.33791524171829224,
    0.44070982933044434,
    0.5626170039176941,
    0.7229568362236023,
    1.0,
)


@pytest.fixture
def linear():
    return nn.Linear(COLUMNS, ROWS).requires_grad_(False)


def small(**changes):
    encoder = {"name": "sam3_vit_tiny", "weights": "random", "depth": 2, "global_blocks": [1]}
    return MODELS.parse(
        {"name": "sam3_unet", "encoder": encoder, "decoder": {"width": 16}, "adapter": {"rank": 4}, **changes}
    )


@pytest.mark.parametrize("storage", STORAGES)
def test_it_takes_the_bytes_that_it_promises(linear, storage):
    layer = StoredLinear(linear, storage)
    without = 0 if hasattr(layer, "zero_point") or storage != "int8" else ROWS  # torchao 0.16 has no zero point
    parts = [part for name, part in layer.named_parameters() if name != "bias"]
    assert sum(part.untyped_storage().nbytes() for part in parts) == BYTES[storage] - without
    assert not [p for p in layer.parameters() if p.requires_grad]
    assert [(b.dtype, len(b)) for b in layer.buffers()] == [(torch.bfloat16, ROWS)]  # the bias once more
    assert "bias_in_bfloat16" not in layer.state_dict()


def half_step(weight, storage):
    """How far a stored weight may be off: half a step of its format, where it is widest."""
    if storage == "bfloat16":
        return weight.abs() * 2**-8
    if storage == "int8":  # 255 steps from -127.5 to 127.5 scales, and nothing beyond 127
        return (weight.abs().amax(1, keepdim=True) / 127.5 / 2).expand_as(weight)
    scales = weight.reshape(-1, NF4_BLOCK).abs().amax(1, keepdim=True)
    widest = max(b - a for a, b in zip(NF4_LEVELS, NF4_LEVELS[1:])) / 2 + 1e-4
    of_scales = (scales - scales.mean()).abs().max() / 128  # a step of theirs: the largest is cut off
    return (scales * widest + of_scales).expand(-1, NF4_BLOCK).reshape(weight.shape)


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("shape", [(96, 128), (64, 64), (1, 64), (192, 48), (4, 1024)])
def test_each_weight_is_within_half_a_step(storage, shape):
    weight = torch.randn(*shape)
    assert (
        (weight - StoredLinear(_with_weight(weight), storage).weight).abs() <= half_step(weight, storage) * 1.001
    ).all()


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


def kept_by(layer, x):
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        layer(x)
    return kept


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_nothing_is_kept_for_the_backward_pass(linear, storage, precision):
    with torch.autocast("cpu", precision, enabled=precision != torch.float32):
        assert kept_by(StoredLinear(linear, storage), torch.randn(4, COLUMNS, requires_grad=True)) == []


def frozen_layer(linear):
    layer = nn.Sequential(copy.deepcopy(linear))
    store_frozen(layer, "float32")
    return layer[0]


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(4, COLUMNS), (2, 3, 5, COLUMNS)])
def test_a_frozen_layer_in_float32_keeps_nothing_and_computes_the_same_to_the_bit(linear, precision, shape):
    layer, x = frozen_layer(linear), torch.randn(shape)
    mine, reference = x.clone().requires_grad_(), x.clone().requires_grad_()
    with torch.autocast("cpu", precision, enabled=precision != torch.float32):
        assert kept_by(layer, mine) == [] and kept_by(linear, reference)
        out, expected = layer(mine), linear(reference)
    assert torch.equal(out, expected)
    seed = torch.randn_like(expected)
    out.backward(seed)
    expected.backward(seed)
    assert torch.equal(mine.grad, reference.grad)


def test_a_frozen_layer_that_is_thawed_trains(linear):
    layer, x = frozen_layer(linear), torch.randn(4, COLUMNS)
    for thawed in (layer.bias, layer.weight):
        thawed.requires_grad_(True)
        layer(x).square().sum().backward()
        assert thawed.grad.abs().sum() > 0


def test_torchaos_own_layer_keeps_the_unpacked_weight(linear):
    """Why the multiplication is ours. When this fails, torchao can be trusted with it."""
    torchao = frozen._torchao()
    weight = nn.Parameter(torchao.int8.from_hp(linear.weight, granularity=torchao.row()), requires_grad=False)
    linear.weight = weight
    kept = kept_by(linear, torch.randn(4, COLUMNS, requires_grad=True))
    assert [t for t in kept if t.is_floating_point() and t.numel() == ROWS * COLUMNS]


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("weight", [torch.zeros(2, 64), torch.ones(2, 64), torch.tensor([[0.0], [1.0]]).repeat(1, 64)])
def test_constant_and_empty_rows_stay_what_they_are(storage, weight):
    unpacked = StoredLinear(_with_weight(weight), storage).weight
    assert ((unpacked - weight).abs() <= half_step(weight, storage) + 1e-6).all()


def test_only_frozen_linear_layers_are_replaced():
    part = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64), nn.Conv2d(3, 3, 1), nn.Linear(3, 5))
    part[0].requires_grad_(False)
    part[3].requires_grad_(False)
    store_frozen(part, "nf4")
    assert [type(layer) for layer in part] == [StoredLinear, nn.Linear, nn.Conv2d, FrozenLinear]  # 15 are no block


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


@pytest.mark.parametrize("shape", [(96, 128), (64, 64), (4, 1024)])
def test_four_bits_are_those_of_the_paper(shape):
    """Computed from the paper's levels, with scales that are exact where torchao rounds them once more."""
    weight, layer = (w := torch.randn(*shape)), StoredLinear(_with_weight(w), "nf4")
    blocks = weight.view(-1, NF4_BLOCK)
    levels = torch.tensor(NF4_LEVELS)
    scaled = blocks / blocks.abs().amax(1, keepdim=True)
    nearest = (scaled.unsqueeze(-1) - levels).abs().argmin(-1)
    theirs = torch.stack((layer.quantized_data >> 4, layer.quantized_data & 15), -1).view(-1, NF4_BLOCK)
    assert (nearest != theirs).float().mean() < 1e-3  # torchao rounds the levels to four digits


def test_eight_bits_are_a_scale_for_each_row(linear):
    weight, layer = linear.weight, StoredLinear(linear, "int8")
    scales = weight.abs().amax(1, keepdim=True) / 127.5
    codes = (weight / scales).round().clamp(-128, 127)
    steps = (layer.weight / scales - codes).abs()  # one where it is a matter of rounding: the largest is at 127.5
    assert steps.max() < 1.001 and (steps > 1e-3).float().mean() < 0.005


@pytest.mark.parametrize(
    ("installed", "what"),
    [(True, r"torchao \S+ cannot be imported with torch .*no register_constant"), (False, "torchao is not installed")],
)
def test_without_torchao_a_trial_is_missing_a_package(monkeypatch, installed, what):
    def fails():
        raise AttributeError("no register_constant") if installed else ModuleNotFoundError("No module named 'torchao'")

    def version(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(frozen, "_torchao", fails)
    if not installed:
        monkeypatch.setattr(frozen, "version", version)
    assert not [item for s in ("float32", "bfloat16") for item in small(frozen_weights=s).missing()]
    (item,) = small(frozen_weights="nf4").missing()
    assert (item.kind, item.field) == ("package", "frozen_weights") and re.search(what, item.what)
    assert "model.frozen_weights=bfloat16" in item.remedy


def test_torchao_is_imported_with_the_configuration_and_quietly():
    """A later import would count as the trial's memory, and would find itself on the model's device."""
    code = (
        "import sys, torch; from models import MODELS\n"
        "MODELS.parse({'name': 'sam3_unet', 'frozen_weights': 'bfloat16'}); assert 'torchao' not in sys.modules\n"
        "MODELS.parse({'name': 'sam3_unet', 'frozen_weights': 'int8'}); assert 'torchao' in sys.modules\n"
        "MODELS.parse({'name': 'sam3_unet', 'adapter': 'lora'})\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
