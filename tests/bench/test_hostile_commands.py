"""Checkpoints that are damaged or mean harm, and command lines: each ends in success or one clear error and runs no code.

Mutations come from a fixed seed."""

import copy
import io
import json
import os
import pickle
import struct

import hostile_files
import pytest
import torch
from conftest import examples
from hostile import HOSTILE, NASTY, damaged
from hostile_files import EVIL, changed_records
from hypothesis import given
from hypothesis import settings as settings_of
from hypothesis import strategies as st
from pairs import write_pairs
from safetensors.torch import load_file, save_file

from bench import data, plan, predict, run, score

command = pytest.fixture(hostile_files.command)
finished = pytest.fixture(hostile_files.finished, scope="module")


class Shell:
    """Unpickled, it runs a command."""

    def __reduce__(self):
        return os.system, ("touch touched",)


@pytest.fixture
def pictured(finished, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_pairs(tmp_path, 1)
    (weights,) = (finished / "results" / "mine").glob("*.safetensors")
    return weights, tmp_path / "images", tmp_path / "out"


def test_the_checkpoint_itself_is_read(command, pictured):
    assert command(predict.main, *pictured, "--device", "cpu")[0] == 0


@settings_of(HOSTILE, max_examples=examples(60))
@given(st.data())
def test_damaged_checkpoints_are_refused(command, pictured, tmp_path, data):
    path, images, out = pictured
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(data.draw(damaged(path.read_bytes())))
    code, said = command(predict.main, bad, images, out, "--device", "cpu")
    assert code == 0 or "bad.safetensors" in said


@settings_of(HOSTILE, max_examples=examples(40))
@given(st.data())
def test_checkpoints_of_changed_configurations_are_refused(command, pictured, tmp_path, data):
    """Its configuration comes from the file: it must not make the reader build something giant."""
    path, images, out = pictured
    with path.open("rb") as file:
        (size,) = struct.unpack("<Q", file.read(8))
        metadata = json.loads(file.read(size))["__metadata__"]
    config = json.loads(data.draw(changed_records(metadata["config"])))
    if data.draw(st.booleans()) and isinstance(config.get("model"), dict):
        config["model"] = copy.deepcopy(config["model"])
        encoder = config["model"].get("encoder")
        if isinstance(encoder, dict):
            encoder.update(
                data.draw(st.sampled_from([{"dim": 65_536}, {"depth": 900, "dim": 8192}, {"mlp_ratio": 1e6}]))
            )
    bad = tmp_path / "bad.safetensors"
    save_file(load_file(path), bad, metadata={**metadata, "config": json.dumps(config)})
    command(predict.main, bad, images, out, "--device", "cpu")


def torch_file(content):
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


@settings_of(HOSTILE, max_examples=examples(20))
@given(st.data())
def test_damaged_weights_are_refused(command, finished, tmp_path, data):
    good = torch_file({"blocks.0.norm1.weight": torch.ones(64), "pos_embed": torch.zeros(1, 10, 64)})
    path = tmp_path / data.draw(st.sampled_from(["bad.pt", "bad.safetensors"]))
    path.write_bytes(data.draw(damaged(good)))
    arguments = ["--results", tmp_path / "r", "--executor", "serial", f"model.encoder.weights={path}"]
    code, said = command(run.main, finished / "sweep.yaml", *arguments)
    assert code == 2 and path.name in said


@pytest.mark.parametrize(
    "content",
    [
        pickle.dumps(Shell()),
        pickle.dumps({"a": Shell()}, protocol=0),
        torch_file({"blocks.0.norm1.weight": Shell()}),
        torch_file(Shell()),
        b"cos\nsystem\n(S'touch touched'\ntR.",
    ],
)
@pytest.mark.parametrize("name", ["weights.pt", "weights.safetensors", "weights.pth"])
def test_no_checkpoint_runs_code(command, finished, tmp_path, monkeypatch, content, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_bytes(content)
    arguments = ["--results", tmp_path / "r", "--executor", "serial", f"model.encoder.weights={tmp_path / name}"]
    code, said = command(run.main, finished / "sweep.yaml", *arguments)
    assert code == 2 and name in said and not (tmp_path / EVIL).exists()
    code, said = command(predict.main, tmp_path / name, tmp_path, tmp_path / "out", "--device", "cpu")
    assert code == 2 and not (tmp_path / EVIL).exists()


WORDS = [*NASTY, "-1", "0", "1e9", "nan", "999999999999999999999", "--help", "-", ".", "x=y", "DUTS-TR", "salient"]
LINES = {
    data.main: ["check", "fetch", "recipe", "list", "--exif", "--json", "--root"],
    score.main: ["--pred", "--gt", "--name", "--into", "--protocol", "--no-minmax"],
    predict.main: ["--device", "--batch-size"],
    plan.main: ["--card", "--profile", "--results"],
    run.main: ["--dry-run", "--profile", "--results", "--gpus", "--cpus-per-trial", "--executor"],
}


@settings_of(HOSTILE, max_examples=examples(150))
@given(st.data())
def test_command_lines(command, finished, tmp_path, monkeypatch, data):
    monkeypatch.chdir(tmp_path)
    main = data.draw(st.sampled_from(list(LINES)))
    words = data.draw(st.lists(st.one_of(st.sampled_from(LINES[main]), st.sampled_from(WORDS)), max_size=5))
    words = [word.replace("\0", "") for word in words]
    if main in (plan.main, run.main):
        words = [str(finished / "sweep.yaml"), *words]
    if "/etc/passwd" not in words:
        command(main, *words, *(["--dry-run"] if main is run.main else []))
