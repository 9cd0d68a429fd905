"""SAM2-UNet at full size and its parts; test_parity.py compares them with upstream's code."""

import pytest
import torch
from torch.nn import functional as F

from models import MODELS
from models.core.encoder_decoder import ENCODERS, parameter_counts
from models.core.registry import InvalidModel
from models.core.skeleton import skeleton
from models.decoders.rfb_unet import ReceptiveFieldBlock
from models.encoders import sam2_hiera

TRUNKS = {"tiny": 26_849_472, "small": 33_947_328, "base_plus": 68_675_712, "large": 212_149_296}
ADAPTERS = {"tiny": 262_464, "small": 362_432, "base_plus": 648_688, "large": 1_714_416}


def test_the_defaults_are_the_papers_model():
    counts = parameter_counts(skeleton(MODELS.parse("sam2_unet"), 352))
    assert counts == {
        "total": 216_529_891,
        "trainable": 4_380_595,
        "encoder": 212_149_296,
        "adapter": 1_714_416,
        "decoder": 2_666_179,
    }


@pytest.mark.parametrize("size", TRUNKS)
def test_every_size_has_its_published_parameters(size):
    counts = parameter_counts(skeleton(MODELS.parse({"name": "sam2_unet", "encoder": {"size": size}}), 352))
    assert (counts["encoder"], counts["adapter"]) == (TRUNKS[size], ADAPTERS[size])


@pytest.mark.parametrize("size", TRUNKS)
def test_sizes_are_those_of_timms_registry(size):
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        theirs = timm.create_model(f"sam2_hiera_{size}", pretrained=False, num_classes=0)
        ours = ENCODERS.build(ENCODERS.parse({"name": "sam2_hiera", "size": size}), 352).trunk

    def shape(trunk):
        blocks = [(b.dim, b.dim_out, b.attn.num_heads, b.window_size, b.q_stride) for b in trunk.blocks]
        return blocks, trunk.pos_embed.shape, trunk.pos_embed_window.shape, trunk.stage_ends

    assert shape(ours) == shape(theirs)


def test_the_full_size_model_really_builds_and_runs():
    config = MODELS.parse({"name": "sam2_unet", "encoder": {"size": "large", "weights": "random"}})
    model = MODELS.build(config, 352, False).eval()
    with torch.no_grad():
        assert [tuple(logits.shape) for logits in model(torch.randn(1, 3, 352, 352))] == [(1, 1, 352, 352)] * 3


def test_idle_parameters_are_counted_saved_and_never_used():
    with_idle, without = (
        skeleton(MODELS.parse({"name": "sam2_unet", "decoder": {"idle": idle}}), 352) for idle in (True, False)
    )
    assert parameter_counts(with_idle)["total"] - parameter_counts(without)["total"] == 110_848
    assert {n for n, _ in with_idle.named_parameters()} - {n for n, _ in without.named_parameters()} == {
        f"decoder.idle.{layer}" for layer in ("0.weight", "1.weight", "1.bias", "3.weight", "4.weight", "4.bias")
    }


def test_adapters_start_as_torch_initialises_them():
    """Upstream calls no initialisation here: a uniform distribution within 1 / sqrt(inputs)."""
    encoder = {"size": "tiny", "weights": "random"}
    config = MODELS.parse({"name": "sam2_unet", "encoder": encoder, "decoder": {"width": 8}})
    first = MODELS.build(config, 32, False).encoder.blocks[0].adapter[0]
    bound = first.in_features**-0.5
    weight = first.weight.detach()
    assert weight.abs().max() <= bound and float(weight.std()) == pytest.approx(bound / 3**0.5, rel=0.1)
    assert first.bias.any()


@pytest.mark.parametrize("size", [336, 350, 31])
def test_size_that_the_tiles_do_not_fill_names_the_nearest(size):
    with pytest.raises(InvalidModel, match=rf"transform.size {size} is no multiple of 32.*Nearest: "):
        skeleton(MODELS.parse("sam2_unet"), size)


def test_features_are_the_four_stages(monkeypatch):
    small = {"embed_dim": 8, "num_heads": 1, "stages": (1, 2, 1, 1), "global_att_blocks": (2,)}
    monkeypatch.setitem(sam2_hiera.SIZES, "large", small)
    encoder = ENCODERS.build(ENCODERS.parse("sam2_hiera"), 64).eval()
    features = encoder(torch.randn(2, 3, 64, 64))
    assert [tuple(f.shape) for f in features] == [(2, 8, 16, 16), (2, 16, 8, 8), (2, 32, 4, 4), (2, 64, 2, 2)]
    assert encoder.channels == (8, 16, 32, 64)
    assert encoder.block_dims == (8, 8, 16, 16, 32), "a block that widens takes the width before it"
    stem = sum(p.numel() for p in encoder.stem_parameters())
    assert stem + sum(p.numel() for p in encoder.blocks.parameters()) == sum(p.numel() for p in encoder.parameters())


def test_receptive_field_block_against_its_formula():
    block = ReceptiveFieldBlock(6, 4).eval()
    x = torch.randn(2, 6, 24, 24)

    def convolve(unit, x):
        conv, norm = unit.conv, unit.bn
        x = F.conv2d(x, conv.weight, None, 1, conv.padding, conv.dilation)
        return (x - norm.running_mean.view(-1, 1, 1)) / (norm.running_var.view(-1, 1, 1) + 1e-5).sqrt()

    branches = []
    for branch in block.branches:
        y = x
        for unit in branch:
            y = convolve(unit, y)
        assert y.shape[-2:] == x.shape[-2:]
        branches.append(y)
    expected = torch.relu(convolve(block.conv_cat, torch.cat(branches, 1)) + convolve(block.conv_res, x))
    torch.testing.assert_close(block(x), expected)


@pytest.mark.parametrize(("branch", "seen"), [(0, 1), (1, 9), (2, 15), (3, 21)])
def test_branches_see_as_far_as_they_say(branch, seen):
    """The pixels that reach the middle one, by the gradient at the image."""
    x = torch.zeros(1, 3, 41, 41, requires_grad=True)
    for parameter in (block := ReceptiveFieldBlock(3, 2).eval()).parameters():
        parameter.data.abs_()
    block.branches[branch](x)[0, 0, 20, 20].backward()
    rows = x.grad[0, 0].any(dim=1).nonzero()
    assert int(rows.max() - rows.min()) + 1 == seen
