"""SAM3-UNet at full size, and its parts against independent computations."""

import subprocess
import sys

import pytest
import torch
from torch.nn import functional as F

from models import MODELS
from models.adapters.bottleneck import BottleneckAdapter
from models.adapters.bottleneck import Config as Bottleneck
from models.core.encoder_decoder import ENCODERS, parameter_counts
from models.core.registry import InvalidModel
from models.core.skeleton import skeleton
from models.decoders.light_unet import LightUNet, Up
from models.decoders.light_unet import Config as LightUNetConfig


def small(**changes):
    encoder = {"name": "sam3_vit_tiny", "weights": "random", "drop_path": 0.0}
    return MODELS.parse({"name": "sam3_unet", "encoder": encoder, **changes})


def test_the_defaults_are_the_papers_model():
    counts = parameter_counts(skeleton(MODELS.parse("sam3_unet"), 336))
    assert counts == {
        "total": 449_009_057,
        "trainable": 2_771_361,
        "encoder": 446_237_696,
        "adapter": 2_130_944,
        "decoder": 640_417,
    }


@pytest.mark.slow
def test_the_full_size_model_really_builds_and_runs():
    model = MODELS.build(MODELS.parse("sam3_unet"), 336, False).eval()
    assert parameter_counts(model)["total"] == 449_009_057
    with torch.no_grad():
        assert model(torch.randn(1, 3, 336, 336))[0].shape == (1, 1, 336, 336)


def test_bottleneck_adds_before_the_block_what_the_formula_says():
    adapter = BottleneckAdapter(torch.nn.Linear(12, 12), 12, Bottleneck(rank=3))
    x = torch.randn(2, 5, 5, 12)
    first, second = adapter.adapter[0], adapter.adapter[2]
    added = F.gelu(F.linear(F.gelu(F.linear(x, first.weight, first.bias)), second.weight, second.bias))
    torch.testing.assert_close(adapter(x), adapter.block(x + added))
    assert sum(p.numel() for p in adapter.adapter.parameters()) == 2 * 12 * 3 + 12 + 3
    assert adapter.adapter(100 * x).min() > -0.18  # the quirk: a trailing GELU adds almost only upwards


@pytest.mark.parametrize("rank", [1, 4, 64])
def test_rank_changes_only_the_adapters(rank):
    counts = parameter_counts(skeleton(small(adapter={"rank": rank}), 96))
    assert counts["adapter"] == 8 * (2 * 64 * rank + 64 + rank)
    assert counts["encoder"] == parameter_counts(skeleton(small(), 96))["encoder"]


def test_tuned_blocks_and_stem():
    def tuned(**changes):
        model = skeleton(small(adapter={"placement": "none"}, **changes), 96)
        return {n for n, p in model.encoder.named_parameters() if p.requires_grad}

    assert tuned() == set()
    assert {n.split(".")[2] for n in tuned(tuned_blocks="last:2")} == {"6", "7"}
    everything = {n for n, _ in skeleton(small(adapter={"placement": "none"}), 96).encoder.named_parameters()}
    assert tuned(tuned_blocks="all", tuned_stem=True) == everything
    assert everything - tuned(tuned_blocks="all") == {
        f"trunk.{n}" for n in ("pos_embed", "patch_embed.proj.weight", "ln_pre.weight", "ln_pre.bias")
    }


def test_skip_is_cropped_to_the_coarser_map_as_upstream_does():
    """336/32 = 10.5: the coarsest level has 10, its doubled map 20; the skip of 21 loses its first row and column."""
    seen = {}
    up = Up(16, 8, LightUNetConfig()).eval()
    up.conv.register_forward_pre_hook(lambda module, inputs: seen.update(x=inputs[0]))
    coarse, skip = torch.randn(1, 8, 20, 20), torch.randn(1, 8, 21, 21)
    up(coarse, skip)
    joined = torch.cat([coarse, skip[:, :, 1:, 1:]], dim=1)
    torch.testing.assert_close(seen["x"], F.interpolate(joined, scale_factor=2, mode="bilinear", align_corners=True))


def test_resized_skips_meet_at_the_finer_maps_size():
    seen = {}
    up = Up(16, 8, LightUNetConfig(skip_align="resize")).eval()
    up.conv.register_forward_pre_hook(lambda module, inputs: seen.update(x=inputs[0]))
    coarse, skip = torch.randn(1, 8, 20, 20), torch.randn(1, 8, 21, 21)
    up(coarse, skip)
    joined = torch.cat([F.interpolate(coarse, size=(21, 21), mode="bilinear", align_corners=False), skip], dim=1)
    torch.testing.assert_close(seen["x"], F.interpolate(joined, scale_factor=2, mode="bilinear", align_corners=True))


@pytest.mark.parametrize("given", [1.0, 1e-5])
def test_pointwise_norms_have_eps_one_unless_told_otherwise(given):
    decoder = LightUNet((16,), LightUNetConfig(width=8, pointwise_eps=given))
    eps = {n: m.eps for n, m in decoder.named_modules() if isinstance(m, torch.nn.BatchNorm2d)}
    assert len(eps) == 16
    assert all(value == (given if "conv" in n.split(".")[-2] else 1e-5) for n, value in eps.items())
    assert LightUNetConfig().pointwise_eps == 1.0


def test_adapters_start_as_their_paper_says_or_at_zero():
    def at_start(**fields):
        return BottleneckAdapter(torch.nn.Identity(), 64, Bottleneck(rank=64, **fields)).adapter

    upstream, default = at_start(), at_start(init="default")
    assert upstream[2].weight.std().item() == pytest.approx(0.02, rel=0.05) and not upstream[0].bias.any()
    assert default[2].weight.std().item() == pytest.approx(1 / (3 * 64) ** 0.5, rel=0.05) and default[0].bias.all()
    x = torch.randn(2, 4, 4, 64)
    for trailing in (True, False):
        assert not at_start(init="zero", trailing_activation=trailing)(x).any()
    without = at_start(trailing_activation=False)
    assert len(without) == 3 and without(100 * x).min() < -1


def test_maps_of_all_global_blocks_are_what_those_blocks_put_out():
    encoder = ENCODERS.build(ENCODERS.parse({"name": "sam3_vit_tiny", "features": "global", "drop_path": 0.0}), 96)
    seen = []
    for i in encoder.config.global_blocks:
        encoder.blocks[i].register_forward_hook(lambda module, inputs, output: seen.append(output))
    maps = encoder(torch.randn(2, 3, 96, 96))
    assert encoder.channels == (64,) * 4 and len(maps) == 4
    for found, expected in zip(maps, seen):
        assert torch.equal(found, expected.permute(0, 3, 1, 2))


@pytest.mark.parametrize("size", [335, 350 + 1, 7])
def test_size_that_the_patches_do_not_fill_names_the_nearest(size):
    with pytest.raises(InvalidModel, match=r"patch size 14. Nearest: "):
        skeleton(MODELS.parse("sam3_unet"), size)


@pytest.mark.parametrize("size", [96, 104, 192])
def test_any_multiple_of_the_patch_works(size):
    logits = MODELS.build(small(), size, False).eval()(torch.randn(1, 3, size, size))
    assert logits[0].shape == (1, 1, size, size)


def test_checkpointing_changes_memory_but_neither_outputs_nor_gradients():
    results = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        encoder = {"name": "sam3_vit_tiny", "weights": "random", "drop_path": 0.0, "checkpointing": checkpointing}
        model = MODELS.build(small(encoder=encoder), 32, False).train()
        torch.manual_seed(1)
        logits = model(torch.randn(2, 3, 32, 32))[0]
        logits.mean().backward()
        results.append([logits, *(p.grad for p in model.parameters() if p.requires_grad)])
    for plain, recomputed in zip(*results):
        torch.testing.assert_close(plain, recomputed)


def test_same_seed_gives_the_same_decoder_whatever_the_rank():
    """Seeds are paired across configurations: what is not varied starts the same."""
    decoders = []
    for rank in (2, 32):
        torch.manual_seed(3)
        decoders.append(MODELS.build(small(adapter={"rank": rank}), 32, False).decoder.state_dict())
    assert all(torch.equal(decoders[0][name], decoders[1][name]) for name in decoders[0])


def test_encoder_imports_without_triton_cuda_and_the_rest_of_sam3():
    """As on a mac or a CPU-only install: ``sam3/__init__`` would need triton, pycocotools and psutil."""
    code = """
import sys
for name in ("triton", "pycocotools", "psutil", "iopath", "decord", "einops", "ftfy"):
    sys.modules[name] = None
import torch
from models import MODELS
model = MODELS.build(MODELS.parse({"name": "sam3_unet", "encoder": "sam3_vit_tiny"}), 96, True)
print(tuple(model(torch.zeros(1, 3, 96, 96))[0].shape), "sam3" in sys.modules, "sam3.model_builder" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "(1, 1, 96, 96) False False", done.stderr


def test_shipped_weights_are_loaded_whole_and_matter():
    config = ENCODERS.parse("sam3_vit_tiny")
    encoder = ENCODERS.build(config, 96)
    before = encoder.trunk.blocks[0].attn.qkv.weight.clone()
    assert encoder.load_pretrained() == len([n for n in encoder.trunk.state_dict() if "freqs_cis" not in n])
    assert not torch.equal(before, encoder.trunk.blocks[0].attn.qkv.weight)
    assert next(config.weight_files()).stat().st_size <= 8 * 2**20
