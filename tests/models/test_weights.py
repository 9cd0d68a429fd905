"""Loading checkpoints, on files of the right layout that are made here with random values at small size."""

import os
import pickle

import pytest
import torch
from safetensors.torch import save_file

from models import MODELS, _weights
from models._encoder_decoder import ENCODERS

SMALL = {"name": "sam3_vit", "dim": 16, "depth": 2, "heads": 2, "window": 4, "global_blocks": [1], "pretrain_size": 56}
PREFIX = "detector.backbone.vision_backbone.trunk."


@pytest.fixture
def trunk():
    """Random values of every tensor of a small SAM3 encoder, by name."""
    state = ENCODERS.build(ENCODERS.parse(SMALL), 56).trunk.state_dict()
    return {name: torch.randn_like(value) for name, value in state.items()}


def load(path):
    encoder = ENCODERS.build(ENCODERS.parse({**SMALL, "weights": str(path)}), 56)
    rope = {n: v.clone() for n, v in encoder.trunk.state_dict().items() if n.endswith("freqs_cis")}
    return encoder.load_pretrained(), encoder.trunk.state_dict(), rope


@pytest.mark.parametrize("layout", ["sam3.pt", "nested", "bare", "safetensors"])
def test_every_layout_loads_every_tensor(tmp_path, trunk, layout):
    meta = {PREFIX + name: value for name, value in trunk.items()}
    meta["tracker.something"] = torch.zeros(3)
    if layout == "safetensors":
        path = tmp_path / "trunk.safetensors"
        save_file({n: v for n, v in trunk.items() if not n.endswith("freqs_cis")}, path)
    else:
        path = tmp_path / "sam3.pt"
        torch.save({"sam3.pt": meta, "nested": {"model": meta, "epoch": 3}, "bare": trunk}[layout], path)
    count, loaded, rope = load(path)
    assert count == len(trunk) - 2  # all but the RoPE table of each block
    for name, value in loaded.items():
        assert torch.equal(value, rope[name] if name in rope else trunk[name]), name


def test_full_size_encoder_has_the_388_tensors_of_sam3():
    from models._skeleton import skeleton

    names = [n for n in skeleton(MODELS.parse("sam3_unet"), 336).encoder.trunk.state_dict() if "adapter" not in n]
    assert len(names) == 420 and len([n for n in names if not n.endswith("freqs_cis")]) == 388


def test_incomplete_checkpoint_lists_what_is_missing_unexpected_and_misshaped(tmp_path, trunk):
    del trunk["ln_pre.weight"]
    trunk["blocks.0.attn.extra"] = torch.zeros(1)
    trunk["pos_embed"] = torch.zeros(1, 5, 16)
    torch.save({PREFIX + n: v for n, v in trunk.items()}, tmp_path / "sam3.pt")
    with pytest.raises(_weights.WeightsError) as error:
        load(tmp_path / "sam3.pt")
    text = str(error.value)
    assert "1 missing: ln_pre.weight" in text
    assert "1 unexpected: blocks.0.attn.extra" in text
    assert "1 of another shape: pos_embed (1, 5, 16), not (1, 17, 16)" in text


def test_foreign_checkpoint_is_refused_and_changes_nothing(tmp_path):
    torch.save({"conv1.weight": torch.zeros(3)}, tmp_path / "resnet.pt")
    with pytest.raises(_weights.WeightsError, match="these are not the weights of this ViT"):
        load(tmp_path / "resnet.pt")


def test_truncated_checkpoint_is_named(tmp_path, trunk):
    torch.save(trunk, tmp_path / "whole.pt")
    for name, content in {"half.pt": (tmp_path / "whole.pt").read_bytes()[:2000], "empty.pt": b"", "x.safetensors": b"abc"}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(_weights.WeightsError, match=f"{name}: not a readable checkpoint"):
            load(tmp_path / name)


def test_malicious_checkpoint_is_refused_and_never_run(tmp_path):
    class Attack:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path}/pwned",)

    with (tmp_path / "evil.pt").open("wb") as file:
        pickle.dump({"model": Attack()}, file)
    torch.save({"model": Attack()}, tmp_path / "evil2.pt")
    for name in ("evil.pt", "evil2.pt"):
        with pytest.raises(_weights.WeightsError, match=name):
            load(tmp_path / name)
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("content", [[torch.zeros(2)], {"model": 3}, {1: torch.zeros(2)}])
def test_what_is_no_state_dict_is_an_error(tmp_path, content):
    torch.save(content, tmp_path / "odd.pt")
    with pytest.raises(_weights.WeightsError):
        load(tmp_path / "odd.pt")


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


@pytest.mark.weights
@pytest.mark.skipif("SAM3_WEIGHTS" not in os.environ, reason="$SAM3_WEIGHTS does not point at a sam3.pt")
def test_the_real_checkpoint_loads():
    assert ENCODERS.build(ENCODERS.parse("sam3_vit"), 336).load_pretrained() == 388
