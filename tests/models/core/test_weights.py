"""Loading checkpoints, on files of the right layout that are made here with random values at small size."""

import os
import pickle

import pytest
import torch
from safetensors.torch import save_file

from models import MODELS
from models.core import weights
from models.core.encoder_decoder import ENCODERS

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
    from models.core.skeleton import skeleton

    names = [n for n in skeleton(MODELS.parse("sam3_unet"), 336).encoder.trunk.state_dict() if "adapter" not in n]
    assert len(names) == 420 and len([n for n in names if not n.endswith("freqs_cis")]) == 388


def test_incomplete_checkpoint_lists_what_is_missing_unexpected_and_misshaped(tmp_path, trunk):
    del trunk["ln_pre.weight"]
    trunk["blocks.0.attn.extra"] = torch.zeros(1)
    trunk["pos_embed"] = torch.zeros(1, 5, 16)
    torch.save({PREFIX + n: v for n, v in trunk.items()}, tmp_path / "sam3.pt")
    with pytest.raises(weights.WeightsError) as error:
        load(tmp_path / "sam3.pt")
    text = str(error.value)
    assert "1 missing: ln_pre.weight" in text
    assert "1 unexpected: blocks.0.attn.extra" in text
    assert "1 of another shape: pos_embed (1, 5, 16), not (1, 17, 16)" in text


def test_foreign_checkpoint_is_refused_and_changes_nothing(tmp_path):
    torch.save({"conv1.weight": torch.zeros(3)}, tmp_path / "resnet.pt")
    with pytest.raises(weights.WeightsError, match="these are not the weights of this ViT"):
        load(tmp_path / "resnet.pt")


def test_truncated_checkpoint_is_named(tmp_path, trunk):
    torch.save(trunk, tmp_path / "whole.pt")
    for name, content in {
        "half.pt": (tmp_path / "whole.pt").read_bytes()[:2000],
        "empty.pt": b"",
        "x.safetensors": b"abc",
    }.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(weights.WeightsError, match=f"{name}: not a readable checkpoint"):
            load(tmp_path / name)


def test_malicious_checkpoint_is_refused_and_never_run(tmp_path):
    class Attack:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path}/pwned",)

    with (tmp_path / "evil.pt").open("wb") as file:
        pickle.dump({"model": Attack()}, file)
    torch.save({"model": Attack()}, tmp_path / "evil2.pt")
    with (tmp_path / "evil.pth").open("wb") as file:  # as a whole UNet's
        pickle.dump({"head.bias": Attack()}, file)
    with pytest.raises(weights.WeightsError, match="evil.pth: refused"):
        settings = {"name": "sam3_unet", "encoder": SMALL, "checkpoint": str(tmp_path / "evil.pth")}
        MODELS.build(MODELS.parse(settings), 56, True)
    for name in ("evil.pt", "evil2.pt"):
        with pytest.raises(weights.WeightsError, match=name):
            load(tmp_path / name)
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("content", [[torch.zeros(2)], {"model": 3}, {1: torch.zeros(2)}])
def test_what_is_no_state_dict_is_an_error(tmp_path, content):
    torch.save(content, tmp_path / "odd.pt")
    with pytest.raises(weights.WeightsError):
        load(tmp_path / "odd.pt")


def within(trunk, name):
    """A checkpoint as training code saves it, and what is said of it beside its path."""
    lightning = {f"model.{n}": v for n, v in trunk.items()} | {"loss.weight": torch.zeros(1)}
    compiled = {f"module._orig_mod.{n}": v for n, v in trunk.items()}
    inside = {n.replace("blocks.0.", "blocks.0._orig_mod."): v for n, v in trunk.items()}
    wrong = {n: torch.zeros(2) for n in trunk}
    under = "tensors were found under "
    return {
        **{key: ({key: trunk, "epoch": 3}, f"{under}'{key}'") for key in weights.NESTED},
        "lightning": ({"state_dict": lightning, "loops": {}}, f"{under}'state_dict', 'model.' left out of their names"),
        "both": ({"net": compiled}, f"{under}'net', '_orig_mod.' and 'module.' left out of their names"),
        "compiled": (compiled, "'_orig_mod.' and 'module.' left out of their names"),
        "one layer compiled": (inside, "'_orig_mod.' left out of their names"),
        "all by lightning": ({f"model.{n}": v for n, v in trunk.items()}, "'model.' left out of their names"),
        "another model beside": ({"ema": wrong, "model": trunk}, f"{under}'model'"),
        "an optimiser beside": ({"model": trunk, "optimizer": {"state": {0: torch.zeros(1)}}}, f"{under}'model'"),
        "Meta's names": ({"ema": {PREFIX + n: v for n, v in trunk.items()}}, f"{under}'ema'"),
        "plain": (trunk, None),
    }[name]


@pytest.mark.parametrize(
    "name",
    [*weights.NESTED, "lightning", "both", "compiled", "one layer compiled", "all by lightning"]
    + ["another model beside", "an optimiser beside", "Meta's names", "plain"],
)
def test_tensors_are_found_where_training_code_puts_them_and_it_is_said(tmp_path, trunk, name):
    content, note = within(trunk, name)
    torch.save(content, tmp_path / "mine.pt")
    for _ in range(2):  # the second time they come from the cache
        with weights.notes() as notes:
            count, loaded, rope = load(tmp_path / "mine.pt")
        assert count == len(trunk) - 2
        assert all(torch.equal(value, rope.get(n, trunk[n])) for n, value in loaded.items())
        assert notes == ([f"{tmp_path / 'mine.pt'}: {note}"] if note else [])


def test_which_of_two_models_is_meant_is_not_guessed(tmp_path, trunk):
    torch.save({"model": trunk, "ema": {n: v + 1 for n, v in trunk.items()}}, tmp_path / "two.pt")
    with pytest.raises(weights.WeightsError, match="two.pt: .* under 'model' and 'ema'. Save the one that you mean"):
        load(tmp_path / "two.pt")
    with pytest.raises(weights.WeightsError, match="under 'model' and 'ema'"):
        weights.only(tmp_path / "two.pt")
    double = trunk | {f"_orig_mod.{n}": v for n, v in trunk.items()}
    torch.save(double, tmp_path / "double.pt")
    with pytest.raises(weights.WeightsError, match="twice, with and without '_orig_mod.'"):
        load(tmp_path / "double.pt")


def test_tensors_under_another_key_are_not_looked_for_and_the_keys_are_named(tmp_path, trunk):
    torch.save({"generator": trunk, "epoch": 3}, tmp_path / "odd.pt")
    with pytest.raises(weights.WeightsError, match="holds 'generator', 'epoch', and no tensors by name"):
        load(tmp_path / "odd.pt")


LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1\nsize 12345\n"
PAGE = "\n<!DOCTYPE html><html><head><title>Google Drive - Virus scan warning</title></head></html>"


@pytest.mark.parametrize("name", ["w.pt", "w.pth", "w.safetensors"])
@pytest.mark.parametrize(
    ("content", "what"),
    [(LFS, "is a pointer of Git LFS.* Run 'git lfs pull'"), (PAGE, "is a web page.* Download it in a browser")]
    + [(f"\ufeff  {PAGE}".upper(), "is a web page"), ("<html>", "is a web page")],
)
def test_what_was_saved_in_place_of_a_checkpoint_says_what_it_is(tmp_path, name, content, what):
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(weights.WeightsError, match=f"{name}: {what}"):
        load(tmp_path / name)


def test_weights_that_are_no_numbers_are_refused(tmp_path, trunk):
    trunk["ln_pre.weight"][3] = float("nan")
    torch.save(trunk, tmp_path / "nan.pt")
    with pytest.raises(weights.WeightsError, match=r"nan.pt: its weights are no numbers \(NaN\): ln_pre.weight"):
        load(tmp_path / "nan.pt")
    with pytest.raises(weights.WeightsError, match="ln_pre.weight"):
        weights.only(tmp_path / "nan.pt")


def hugging_face(trunk):
    """The same tensors as transformers' ``Sam3ViTModel`` names and cuts them (checked against transformers 5.23.0)."""
    state = {
        "embeddings.position_embeddings": trunk["pos_embed"][:, 1:],
        "embeddings.patch_embeddings.projection.weight": trunk["patch_embed.proj.weight"],
        "layer_norm.weight": trunk["ln_pre.weight"],
        "layer_norm.bias": trunk["ln_pre.bias"],
    }
    for i in range(SMALL["depth"]):
        for kind in ("weight", "bias"):
            block, layer = f"blocks.{i}", f"layers.{i}"
            for letter, part in zip("qkv", trunk[f"{block}.attn.qkv.{kind}"].chunk(3)):
                state[f"{layer}.attention.{letter}_proj.{kind}"] = part
            state[f"{layer}.attention.o_proj.{kind}"] = trunk[f"{block}.attn.proj.{kind}"]
            for part in ("norm1", "norm2", "mlp.fc1", "mlp.fc2"):
                state[f"{layer}.{part.replace('norm', 'layer_norm')}.{kind}"] = trunk[f"{block}.{part}.{kind}"]
    return {name: value.contiguous() for name, value in state.items()}


@pytest.mark.parametrize("prefix", ["detector_model.vision_encoder.backbone.", "vision_encoder.backbone.", ""])
def test_hugging_faces_layout_loads_the_same_tensors(tmp_path, trunk, prefix):
    state = {prefix + name: value for name, value in hugging_face(trunk).items()}
    if prefix:
        state["detector_model.text_encoder.layers.0.x"] = torch.zeros(1)
    save_file(state, tmp_path / "model.safetensors")
    count, loaded, _ = load(tmp_path / "model.safetensors")
    assert count == len(trunk) - 2
    trunk["pos_embed"][:, 0] = 0  # the class token's place, which nothing reads
    assert all(torch.equal(value, trunk[name]) for name, value in loaded.items() if not name.endswith("freqs_cis"))


def test_incomplete_hugging_face_checkpoint_names_what_is_missing(tmp_path, trunk):
    state = hugging_face(trunk)
    del state["layers.1.attention.k_proj.weight"]
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(weights.WeightsError, match="1 missing: blocks.1.attn.qkv.weight"):
        load(tmp_path / "model.safetensors")
