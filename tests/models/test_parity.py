"""SAM3-UNet and SAM2-UNet against upstream's own code, by golden tensors.

``golden/make.py`` made them: it ran upstream's classes (WZH0120/SAM3-UNet fdb21da, WZH0120/SAM2-UNet 01598e5) on a CPU
with torch 2.14.1, at the small sizes and with the seeded weights, images and masks of ``golden/seeded.py``. Each file
holds the logits of the first image in eval mode and, of one training step on both images (drop path 0, SAM3's
activation checkpointing on, as upstream has it), the loss, the gradient of every adapter, the norm of every gradient
(in the order of upstream's names) and the running statistics of all batch norms. Its metadata has upstream's state dict:
names and shapes. Nothing of upstream's code or weights is stored. docs/models.md has the same comparison at full size.
"""

import json
from pathlib import Path

import pytest
import torch
from golden import seeded
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

from bench.training.losses.structure_loss import loss as structure_loss
from bench.training.losses.weighted_structure_loss import loss as weighted_structure_loss
from models import MODELS
from models.adapters.bottleneck import BottleneckAdapter
from models.core.encoder_decoder import upstream_state
from models.core.names import renamed
from models.decoders import rfb_unet
from models.encoders import sam2_hiera

GOLDEN = Path(__file__).parent / "golden"
NAMES = ("sam3_unet", "sam2_unet")


def config(name: str, **encoder):
    """Our model at the golden tensors' size."""
    if name == "sam2_unet":
        return MODELS.parse(
            {"name": name, "encoder": {"weights": "random", **encoder}, "decoder": {"width": seeded.SAM2["width"]}}
        )
    vit = seeded.SAM3["vit"]
    small = {
        "name": "sam3_vit",
        "weights": "random",
        "dim": vit["embed_dim"],
        "depth": vit["depth"],
        "heads": vit["num_heads"],
        "window": vit["window_size"],
        "global_blocks": vit["global_att_blocks"],
        "pretrain_size": vit["pretrain_img_size"],
        "drop_path": vit["drop_path_rate"],
    }
    return MODELS.parse({"name": name, "encoder": {**small, **encoder}, "decoder": {"width": seeded.SAM3["width"]}})


@pytest.fixture(autouse=True)
def _small_hiera(monkeypatch):
    small = dict(seeded.SAM2["hiera"])
    small["global_pos_size"] = small.pop("window_pos_embed_bkg_spatial_size")
    monkeypatch.setitem(sam2_hiera.SIZES, "large", small)


def size(name: str) -> int:
    return {"sam3_unet": seeded.SAM3, "sam2_unet": seeded.SAM2}[name]["size"]


def shapes(name: str) -> dict[str, tuple[int, ...]]:
    """Upstream's state dict."""
    with safe_open(GOLDEN / f"{name}.safetensors", "pt") as file:
        return {key: tuple(shape) for key, shape in json.loads(file.metadata()["shapes"]).items()}


def build(name: str, **encoder):
    """Our model with the weights that upstream's had, filled in under upstream's names."""
    settings = config(name, **encoder)
    model = MODELS.build(settings, size(name), False)
    weights = seeded.fill(upstream_state(model, settings))
    model.load_state_dict(renamed(weights, settings.upstream.names.ours))
    return model, settings.upstream.names


def answers(model: nn.Module, name: str) -> dict[str, torch.Tensor]:
    images, _ = seeded.batch(size(name))
    with torch.no_grad():
        return {f"logits.{i}": logits for i, logits in enumerate(model.eval()(images[:1]))}


def step(model: nn.Module, name: str, names, loss_function=structure_loss) -> dict[str, torch.Tensor]:
    """What make.py wrote down of a training step."""
    images, masks = seeded.batch(size(name))
    loss = sum(loss_function(logits, masks) for logits in model.train()(images))
    loss.backward()
    found = {"loss": loss.detach()}
    gradients = {names.theirs(n): p.grad for n, p in model.named_parameters() if p.grad is not None}
    found["gradient_norms"] = torch.stack([gradients[n].norm() for n in sorted(gradients)])
    statistics = {names.theirs(n): b for n, b in model.named_buffers() if n.endswith(("running_mean", "running_var"))}
    found["batch_statistics"] = torch.cat([statistics[n] for n in sorted(statistics)])
    return found | {f"gradient.{n}": value for n, value in gradients.items() if "prompt_learn" in n}


def distance(found: dict[str, torch.Tensor], name: str) -> float:
    """Largest difference from the golden tensors, relative to the largest value of each."""
    golden = load_file(GOLDEN / f"{name}.safetensors")
    return max(float((value - golden[key]).abs().max() / golden[key].abs().max()) for key, value in found.items())


@pytest.mark.parametrize("name", NAMES)
def test_state_dict_has_upstreams_names_and_shapes_both_ways(name):
    settings = config(name)
    ours = MODELS.build(settings, size(name), False).state_dict()
    names = settings.upstream.names
    assert {names.theirs(key): tuple(value.shape) for key, value in ours.items()} == shapes(name)
    assert {names.ours(key) for key in shapes(name)} == ours.keys()
    assert all(names.ours(key) == key for key in ours)


@pytest.mark.parametrize("name", NAMES)
def test_answers_are_upstreams(name):
    model, _ = build(name)
    found = answers(model, name)
    golden = load_file(GOLDEN / f"{name}.safetensors")
    assert {key for key in golden if key.startswith("logits")} == found.keys()
    for key, logits in found.items():
        torch.testing.assert_close(logits, golden[key], rtol=0, atol=1e-4)
    assert distance(found, name) < 1e-4


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_a_training_step_is_upstreams_with_and_without_checkpointing(name, checkpointing):
    model, names = build(name, checkpointing=checkpointing)
    calls = []
    model.encoder.blocks[0].adapter.register_forward_pre_hook(lambda *_: calls.append(1))
    found = step(model, name, names)
    assert len(calls) == 1 + checkpointing, "each block runs once more in the backward pass"
    golden = load_file(GOLDEN / f"{name}.safetensors")
    assert {key for key in golden if not key.startswith("logits")} == found.keys()
    assert distance(found, name) < 1e-4


# Each break takes one quirk away; the golden tensors must notice.


def adapter_behind_the_block(model):
    adapted = model.encoder.blocks[-2]  # of SAM2-UNet's, one that keeps the width
    adapted.forward = lambda x: (y := adapted.block(x)) + adapted.adapter(y)


def no_trailing_activation(model):
    for module in model.modules():
        if isinstance(module, BottleneckAdapter):
            module.adapter[3] = nn.Identity()


def usual_eps(model):
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 1e-5


def skips_resized(model):
    for up in model.decoder.up:
        up.skip_align = "resize"


def earlier_map(model):
    forward = model.encoder.trunk.forward
    model.encoder.trunk.return_interm_layers = True
    model.encoder.trunk.forward = lambda images: forward(images)[:1]


def another_map_for_each_level(model):
    model.encoder.trunk.return_interm_layers = True


def rope_not_rescaled(model):
    for block in model.encoder.trunk.blocks:
        attention = block.block.attn
        cis = attention.freqs_cis
        if len(cis) > 9:
            attention.freqs_cis = cis * cis  # the angles doubled: those of scale 1 instead of 1/2


def rfb_branches_activated(model):
    for module in model.modules():
        if isinstance(module, rfb_unet.ReceptiveFieldBlock):
            for branch in module.branches:
                for convolution in branch:
                    convolution.append(nn.ReLU())


BREAKS = [
    ("sam3_unet", adapter_behind_the_block),
    ("sam3_unet", no_trailing_activation),
    ("sam3_unet", usual_eps),
    ("sam3_unet", skips_resized),
    ("sam3_unet", earlier_map),
    ("sam3_unet", another_map_for_each_level),
    ("sam3_unet", rope_not_rescaled),
    ("sam2_unet", adapter_behind_the_block),
    ("sam2_unet", no_trailing_activation),
    ("sam2_unet", rfb_branches_activated),
]


@pytest.mark.parametrize(("name", "take_away"), BREAKS, ids=lambda v: v if isinstance(v, str) else v.__name__)
def test_golden_tensors_notice_a_lost_quirk(name, take_away):
    model, _ = build(name)
    take_away(model)
    assert distance(answers(model, name), name) > 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_golden_loss_notices_a_mended_structure_loss(name):
    model, names = build(name)
    assert distance({"loss": step(model, name, names, weighted_structure_loss)["loss"]}, name) > 1e-3


def test_outputs_of_sam2_unet_count_equally():
    """Three losses: a step that left one out, or weighed it, would not have upstream's loss."""
    model, names = build("sam2_unet")
    golden = load_file(GOLDEN / "sam2_unet.safetensors")["loss"]
    images, masks = seeded.batch(size("sam2_unet"))
    each = [structure_loss(logits, masks) for logits in model.train()(images)]
    torch.testing.assert_close(each[0] + each[1] + each[2], golden)


@pytest.mark.parametrize("name", NAMES)
def test_checkpoint_of_upstreams_model_loads_whole(name, tmp_path):
    """A file as upstream's train.py saves it, tables included, in at another size; nothing but adapters, decoder and
    batch norms may be left to chance."""
    model, names = build(name)
    theirs = {key: value.clone() for key, value in renamed(model.state_dict(), names.theirs).items()}
    torch.save(theirs, tmp_path / "released.pth")
    settings = config(name).model_copy(update={"checkpoint": str(tmp_path / "released.pth")})
    other = MODELS.build(settings, size(name) * 2, True)
    for key, value in renamed(other.state_dict(), names.theirs).items():
        assert key.endswith("freqs_cis") or torch.equal(value, theirs[key]), key
    again = MODELS.build(settings, size(name), True)
    assert distance(answers(again, name), name) < 1e-4
    trained = {n for n, p in again.named_parameters() if p.requires_grad}
    assert trained == {n for n, p in model.named_parameters() if p.requires_grad}
