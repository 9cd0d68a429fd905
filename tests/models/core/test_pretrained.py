"""Which file of pre-trained weights is loaded, and what is said if it is missing."""

import os

import pytest
import torch

from models import MODELS
from models.core import weights
from models.core.encoder_decoder import ENCODERS
from models.encoders import sam2_hiera

SMALL = {"name": "sam3_vit", "dim": 16, "depth": 2, "heads": 2, "window": 4, "global_blocks": [1], "pretrain_size": 56}
PREFIX = "detector.backbone.vision_backbone.trunk."


def test_pretrained_is_looked_for_in_the_environment_then_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SAM3_WEIGHTS", raising=False)
    config = ENCODERS.parse("sam3_vit")
    (missing,) = config.missing()
    assert missing.kind == "weights" and "huggingface.co/facebook/sam3" in missing.remedy
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "sam3.pt").touch()
    assert list(config.missing()) == [] and list(config.weight_files()) == [config.checkpoint()]
    monkeypatch.setenv("SAM3_WEIGHTS", str(tmp_path / "elsewhere.pt"))
    (missing,) = config.missing()
    assert "elsewhere.pt" in missing.what
    assert list(ENCODERS.parse({"name": "sam3_vit", "weights": "random"}).missing()) == []


@pytest.mark.parametrize("size", ["tiny", "small", "base_plus", "large"])
@pytest.mark.parametrize("layout", ["sam2", "timm"])
def test_sam2s_layouts_load_every_tensor(tmp_path, monkeypatch, size, layout):
    stages = {"stages": (1, 1, 1, 1), "global_att_blocks": (2,), "embed_dim": 8, "num_heads": 1}
    monkeypatch.setitem(sam2_hiera.SIZES, size, {**sam2_hiera.SIZES[size], **stages})
    config = ENCODERS.parse({"name": "sam2_hiera", "size": size, "weights": str(tmp_path / "sam2.pt")})
    encoder = ENCODERS.build(config, 64)
    trunk = {name: torch.randn_like(value) for name, value in encoder.trunk.state_dict().items()}
    meta_names = {n: n.replace(".fc1.", ".layers.0.").replace(".fc2.", ".layers.1.") for n in trunk}
    meta = {f"image_encoder.trunk.{meta_names[n]}": v for n, v in trunk.items()}
    others = {"image_encoder.neck.x": torch.zeros(2), "obj_ptr_tpos_proj.weight": torch.zeros(2)}  # the latter: SAM2.1
    torch.save({"model": {**meta, **others}} if layout == "sam2" else trunk, tmp_path / "sam2.pt")
    assert encoder.load_pretrained() == len(trunk)
    assert all(torch.equal(value, trunk[name]) for name, value in encoder.trunk.state_dict().items())


def test_sam2_weights_are_looked_for_by_size_and_release(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SAM2_WEIGHTS", raising=False)
    config = ENCODERS.parse({"name": "sam2_hiera", "size": "base_plus", "release": "2.1"})
    (missing,) = config.missing()
    assert "weights/sam2.1_hiera_base_plus.pt does not exist" in missing.what
    assert "hf download facebook/sam2.1-hiera-base-plus sam2.1_hiera_base_plus.pt" in missing.remedy
    (tmp_path / "sam2.1_hiera_base_plus.pt").touch()
    for given in (tmp_path, tmp_path / "sam2.1_hiera_base_plus.pt"):
        monkeypatch.setenv("SAM2_WEIGHTS", str(given))
        assert list(config.missing()) == [] and list(config.weight_files()) == [tmp_path / "sam2.1_hiera_base_plus.pt"]


def test_whole_checkpoint_needs_no_encoder_weights_and_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SAM3_WEIGHTS", raising=False)
    monkeypatch.delenv("SAM3_UNET_WEIGHTS", raising=False)
    config = MODELS.parse({"name": "sam3_unet", "checkpoint": "released"})
    (missing,) = config.missing()
    assert missing.field == "checkpoint" and "weights/SAM3-UNet-20.pth does not exist" in missing.what
    assert "WZH0120/SAM3-UNet" in missing.remedy and "$SAM3_UNET_WEIGHTS" in missing.remedy
    (tmp_path / "mine.pth").touch()
    monkeypatch.setenv("SAM3_UNET_WEIGHTS", str(tmp_path / "mine.pth"))
    assert list(config.missing()) == [] and list(config.weight_files()) == [tmp_path / "mine.pth"]


def test_whole_checkpoint_of_a_model_with_fewer_adapters_is_refused(tmp_path):
    settings = {"name": "sam3_unet", "encoder": {**SMALL, "weights": "random"}, "decoder": {"width": 8}}
    torch.save(MODELS.build(MODELS.parse(settings), 56, False).state_dict(), tmp_path / "all.pth")
    fewer = MODELS.parse({**settings, "adapter": {"placement": "last:1"}, "checkpoint": str(tmp_path / "all.pth")})
    with pytest.raises(weights.WeightsError, match="unexpected: encoder.trunk.blocks.0.adapter"):
        MODELS.build(fewer, 56, True)


@pytest.mark.weights
@pytest.mark.skipif("SAM3_WEIGHTS" not in os.environ, reason="$SAM3_WEIGHTS does not point at a sam3.pt")
def test_the_real_checkpoint_loads():
    assert ENCODERS.build(ENCODERS.parse("sam3_vit"), 336).load_pretrained() == 388


@pytest.mark.weights
@pytest.mark.skipif("SAM2_WEIGHTS" not in os.environ, reason="$SAM2_WEIGHTS does not point at a sam2_hiera_large.pt")
def test_the_real_sam2_checkpoint_loads():
    encoder = ENCODERS.build(ENCODERS.parse("sam2_hiera"), 352)
    assert encoder.load_pretrained() == len(encoder.trunk.state_dict())


@pytest.mark.weights
@pytest.mark.parametrize(("name", "size"), [("sam3_unet", 336), ("sam2_unet", 352)])
def test_the_authors_released_checkpoint_loads(name, size):
    config = MODELS.parse({"name": name, "checkpoint": "released"})
    if config.upstream.variable not in os.environ:
        pytest.skip(f"${config.upstream.variable} does not point at the authors' checkpoint")
    MODELS.build(config, size, True)


@pytest.mark.parametrize(
    ("registry", "name"), [(ENCODERS, "sam3_vit"), (ENCODERS, "timm_backbone"), (MODELS, "smp_unet")]
)
def test_a_folder_in_place_of_a_file_is_named_with_the_remedy(registry, name, tmp_path):
    (missing,) = registry.parse({"name": name, "weights": str(tmp_path)}).missing()
    assert missing.what == f"{tmp_path} is no file" and missing.remedy.startswith("give ")
