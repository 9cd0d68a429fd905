"""The comparison with upstream's speed: same weights, same batches, its own loss; here with a stand-in for the clone."""

import json
import shutil
import sys

import pytest
import torch
from fake_cuda import CardInMemory, FakeCuda
from torch import nn

from bench.config.trial import TrialConfig, with_value
from bench.system.device import tf32_flags
from bench.tools import compare_speed
from bench.tools.compare_speed import Task, fill, main, measure
from bench.tools.upstream import function_of
from bench.training.losses import structure_loss
from models import MODELS
from models.core.encoder_decoder import upstream_state

NETWORK = """
import json
from pathlib import Path
from torch import nn
from models import MODELS

class SAM3UNet(nn.Module):
    def __init__(self, checkpoint, size):
        super().__init__()
        config = json.loads((Path(__file__).parent / "model.json").read_text())
        model = MODELS.build(MODELS.parse(config), size, False)
        self.sam3_vit = model.encoder.trunk
        for i in range(4):
            setattr(self, f"reduce{i + 1}", model.decoder.reduce[i])
            setattr(self, f"up{i + 1}", model.decoder.up[i])
        self.head = model.decoder.head
        self.whole = (model,)

    def forward(self, images):
        return self.whole[0](images)[0]
"""
TRAIN = """
import argparse
argparse.ArgumentParser().add_argument("needed", required=True)

def structure_loss(pred, mask):
    weit = 1 + 5 * torch.abs(F.avg_pool2d(mask, kernel_size=31, stride=1, padding=15) - mask)
    wbce = F.binary_cross_entropy_with_logits(pred, mask)
    pred = torch.sigmoid(pred)
    inter = ((pred * mask) * weit).sum(dim=(2, 3))
    union = ((pred + mask) * weit).sum(dim=(2, 3))
    return (wbce + 1 - (inter + 1) / (union - inter + 1)).mean()

raise SystemExit("this trains for days")
"""


BUILDER = """
import torch
import a_package_that_is_not_installed

def _setup_tf32() -> None:
    if torch.cuda.is_available() and torch.cuda.get_device_properties(0).major >= 8:
        torch.backends.cuda.matmul.allow_tf32 = True
        torch.backends.cudnn.allow_tf32 = True

_setup_tf32()
"""


@pytest.fixture
def config(tiny_with):
    encoder = {"name": "sam3_vit_tiny", "weights": "random", "depth": 2, "global_blocks": [1]}
    return tiny_with({"model.encoder": encoder, "model.adapter.placement": "none", "train.batch_size": 2})


@pytest.fixture
def clone(tmp_path, config):
    (tmp_path / "SAM3UNet.py").write_text(NETWORK)
    (tmp_path / "train.py").write_text(TRAIN)
    (tmp_path / "sam3").mkdir()
    (tmp_path / "sam3" / "model_builder.py").write_text(BUILDER)
    (tmp_path / "model.json").write_text(config.model.model_dump_json())
    return tmp_path


def task(config, **more):
    return Task(config=json.loads(config.model_dump_json()), steps=3, **more)


def test_both_sides_train_the_same(config, clone, monkeypatch):
    monkeypatch.setattr(compare_speed, "upstream_network", lambda folder, size: _network(clone, size))
    ours, theirs = measure(task(config)), measure(task(config, upstream=str(clone)))
    assert len(ours.seconds) == 3 and min(ours.seconds) > 0 and ours.device == "cpu"
    assert theirs.losses == pytest.approx(ours.losses, rel=1e-5) and len(set(ours.losses)) == 3


@pytest.mark.parametrize(("capability", "tf32"), [((9, 0), True), ((7, 5), False)])
def test_upstream_runs_as_after_its_own_import_and_here_a_trials_settings_hold(
    config, clone, monkeypatch, capability, tf32
):
    """The clone's ``model_builder`` cannot be imported here, as on many machines; its ``_setup_tf32`` is run."""
    monkeypatch.setitem(sys.modules, "sam3", None)  # and comes back as it was
    FakeCuda(monkeypatch, capability=capability)
    seen = []
    monkeypatch.setattr(compare_speed, "_wait", lambda device: seen.append(tf32_flags()))
    on_card = with_value(config, {"device": "cuda"})
    with CardInMemory():
        ours = measure(task(on_card))
        assert set(seen) == {(tf32, True)} and tf32_flags() == (False, True)
        without = measure(task(with_value(on_card, {"train.tf32": False})))
        theirs = measure(task(on_card, upstream=str(clone)))
    assert (ours.tf32, without.tf32, theirs.tf32) == (tf32, False, tf32) == (tf32, False, tf32_flags()[0])
    torch.backends.cuda.matmul.allow_tf32 = False
    assert theirs.losses == pytest.approx(ours.losses, rel=1e-5)


def _network(clone, size):
    """As ``upstream_network``, but the ``sam3`` of this process stays."""
    names = {"__file__": str(clone / "SAM3UNet.py")}
    exec((clone / "SAM3UNet.py").read_text(), names)
    return names["SAM3UNet"](None, size)


@pytest.mark.parametrize("more", [{"compile": "eager"}, {"fused": True}])
def test_settings_of_our_side(config, more):
    plain, other = measure(task(config)), measure(task(config, **more))
    assert other.losses == pytest.approx(plain.losses, rel=1e-4)


def test_bfloat16_is_a_setting(config):
    narrow = with_value(config, {"train.precision": "bfloat16"})
    plain, other = measure(task(config)), measure(task(narrow))
    assert other.losses != plain.losses and other.losses == pytest.approx(plain.losses, rel=0.05)


def test_the_loss_is_taken_out_of_a_script_that_runs_when_imported(clone):
    theirs = function_of(clone / "train.py", "structure_loss")
    logits, masks = torch.randn(2, 1, 40, 40), torch.rand(2, 1, 40, 40).round()
    assert theirs(logits, masks).item() == pytest.approx(structure_loss.loss(logits, masks).item(), rel=1e-5)


def test_weights_depend_on_their_names_alone(config):
    states = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        states.append(upstream_state(MODELS.build(config.model, 32, False), config.model))
        fill(states[-1])
    for (name, a), b in zip(states[0].items(), states[1].values()):
        assert torch.equal(a, b), name
    norm = nn.BatchNorm2d(3)
    fill(norm.state_dict())
    assert norm.running_var.eq(1).all() and norm.weight.eq(1).all() and norm.bias.eq(0).all()


@pytest.mark.parametrize(
    "given, reason",
    [
        (["--steps", "0"], "at least 1"),
        (["--upstream", "tests"], "has no SAM3UNet.py"),
        (["--upstream", "old"], "sam3/model_builder.py defines no _setup_tf32. Give a clone of"),
        (["--upstream", "broken"], "SAM3UNet.py cannot be read"),
        (["--size", "-1"], "transform.size"),
    ],
)
def test_wrong_input_is_a_line(clone, tmp_path, capsys, monkeypatch, given, reason):
    for name, file, text in (("old", "sam3/model_builder.py", "x = 1\n"), ("broken", "SAM3UNet.py", "class :")):
        shutil.copytree(clone, tmp_path / name, ignore=shutil.ignore_patterns("old", "broken"))
        (tmp_path / name / file).write_text(text)
    (tmp_path / "tests").mkdir()
    monkeypatch.chdir(tmp_path)
    given = ["--upstream", str(clone), "--results", str(tmp_path / "out"), "--device", "cpu", *given]
    assert main(given) == 2
    said = capsys.readouterr().err
    assert reason in said and "Traceback" not in said


def test_without_a_gpu_it_says_so(clone, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["--upstream", str(clone), "--device", "cuda"]) == 2
    assert "sees no NVIDIA GPU" in capsys.readouterr().err


def test_the_whole_comparison(config, clone, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(compare_speed, "upstream_network", lambda folder, size: _network(clone, size))
    monkeypatch.setattr(compare_speed, "_in_a_process", measure)
    monkeypatch.setattr(compare_speed, "FULL", json.loads(config.model_dump_json()))
    assert TrialConfig.model_validate(compare_speed.FULL) == config
    given = ["--upstream", str(clone), "--results", str(tmp_path / "out"), "--device", "cpu"]
    assert main([*given, "--size", "32", "--batch", "2", "--steps", "1", "--rounds", "1"]) == 0
    said = capsys.readouterr().out
    assert "Ratio " in said and (tmp_path / "out" / "speed_comparison.md").read_text().count("| ") > 8
