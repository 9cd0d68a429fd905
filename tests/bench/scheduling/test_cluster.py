"""What travels between driver and nodes, without Ray."""

import os
from pathlib import Path

import pytest
import torch

import bench
from bench.config.errors import ConfigError
from bench.config.expand import Trial
from bench.records.provenance import COMMIT, commit_in_words, provenance
from bench.records.store import load
from bench.records.tables import load_images
from bench.scheduling import cluster
from bench.scheduling.cluster import NodeReport, preflight_of, stage, unpack
from bench.scheduling.ray_tune import worker
from bench.scheduling.ray_tune.actors import CheckpointStore
from bench.system.files import contents
from bench.trial import run_trial
from models.core.registry import Missing

DATA = Missing("data", "dataset.images", "nope does not exist", "give the folder")
GPU = Missing("device", "device", "no GPU", "run where there is one")


def test_a_packed_record_arrives_as_it_was_saved(tiny, tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    record = run_trial(tiny)
    record.save(here)
    unpack(contents(here), record.trial_id, there)
    assert {p.name: p.read_bytes() for p in here.iterdir()} == {p.name: p.read_bytes() for p in there.iterdir()}
    assert load(there / f"{record.trial_id}.json").scores == record.scores
    assert load_images(there, [record.trial_id])


def test_checkpoints_beside_the_driver_are_those_of_the_node(tmp_path):
    folder = tmp_path / "epochs" / "abc"
    store = CheckpointStore(str(tmp_path), "epochs")
    assert store.load("abc") == {} and not folder.exists()
    store.update("abc", {"epoch-0001.safetensors": b"1"}, ["epoch-0001.safetensors"])
    store.update("abc", {"epoch-0002.safetensors": b"2"}, ["epoch-0001.safetensors", "epoch-0002.safetensors"])
    store.update("abc", {"epoch-0003.safetensors": b"3"}, ["epoch-0002.safetensors", "epoch-0003.safetensors"])
    kept = {"epoch-0002.safetensors": b"2", "epoch-0003.safetensors": b"3"}
    assert contents(folder) == store.load("abc") == kept
    (tmp_path / "abc.json").write_text("{}")
    store.update("abc", {"epoch-0004.safetensors": b"4"}, ["epoch-0004.safetensors"])
    assert store.load("abc") == kept, "what has a record needs none"
    store.update("abd", {"../../epoch-out": b"x"}, ["../../epoch-out"])
    assert not list(tmp_path.rglob("../epoch-out"))


@pytest.mark.parametrize("name", ["../abc.json", "/etc/abc.json", "abd.json", "abc", "abc.json/x", ".abc.json"])
def test_only_files_of_the_trial_are_written(tmp_path, name):
    with pytest.raises(ValueError, match="no files of a record of trial abc"):
        unpack({"abc.json": b"{}", name: b"x"}, "abc", tmp_path)
    assert not list(tmp_path.iterdir())


def test_json_comes_last(tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(cluster, "write_whole", lambda path, fill: written.append(path.name))
    unpack({"abc.json": b"", "abc.images.parquet": b"", "abc.safetensors": b""}, "abc", tmp_path)
    assert written[-1] == "abc.json" and len(written) == 3


def test_the_code_and_small_relative_weights_travel(tiny_with, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("weights").mkdir()
    Path("weights/small.pt").write_bytes(b"x")
    with Path("weights/large.pt").open("wb") as file:
        file.truncate(cluster.SMALL_BYTES + 1)
    places = ("weights/small.pt", "weights/large.pt", str(tmp_path / "weights/small.pt"), "../outside.pt", "absent.pt")
    trials = [Trial(tiny_with({"model.encoder": {"name": "sam3_vit", "weights": place}}), ()) for place in places]
    staged = tmp_path / "staged"
    stage(trials, staged)
    assert (staged / "bench/run.py").exists() and (staged / "models/encoders/sam3_vit_tiny.safetensors").exists()
    assert [p.name for p in staged.rglob("*.pt")] == ["small.pt"]
    assert not list(staged.rglob("__pycache__")) and {p.name for p in staged.iterdir()} == {
        "bench",
        "models",
        "weights",
    }
    assert sum(p.stat().st_size for p in staged.rglob("*") if p.is_file()) < 20 * 2**20


def test_a_copy_of_the_code_knows_its_commit(monkeypatch):
    said = commit_in_words()
    monkeypatch.setattr("bench.__file__", "/nowhere/bench/__init__.py")
    monkeypatch.delenv(COMMIT, raising=False)
    cpu = torch.device("cpu")
    assert provenance(cpu, 1).commit is None and commit_in_words() == ""
    monkeypatch.setenv(COMMIT, "abc dirty")
    assert (provenance(cpu, 1).commit, provenance(cpu, 1).dirty) == ("abc", True)
    monkeypatch.setenv(COMMIT, "abc")
    assert (provenance(cpu, 1).commit, provenance(cpu, 1).dirty) == ("abc", False)
    if said:
        monkeypatch.setenv(COMMIT, said)
        assert commit_in_words() == said


def test_a_node_looks_at_everything_the_trials_need(tiny, tiny_with):
    folder = {"name": "folder", "images": "nope", "masks": "nope"}
    other = tiny_with({"dataset": folder})
    seen = cluster.inspect_node([tiny.model_dump_json(), other.model_dump_json()])
    assert set(seen.lacking) == {other.trial_id} and not seen.problems and len(seen.fingerprints) == 1
    assert Path(seen.code) == Path(bench.__file__).parent
    too_large = tiny_with({"train.batch_size": 100})
    assert "at most 8" in cluster.inspect_node([too_large.model_dump_json()]).problems[0].lower()


def test_one_line_for_each_node_that_lacks_what_others_have():
    looks = {
        "a": NodeReport(""),
        "b": NodeReport("", {"x": [DATA], "y": [DATA, GPU]}),
        "c": NodeReport("", {"y": [GPU]}),
    }
    with pytest.raises(ConfigError) as caught:
        preflight_of(looks, ["x", "y"])
    title, *lines = caught.value.lines
    data = "missing data: dataset.images: nope does not exist -> give the folder"
    gpu = "missing device: device: no GPU -> run where there is one"
    assert lines == [f"  node b: {data}; {gpu}", f"  node c: {gpu}"]


def test_trials_that_no_node_can_run_are_left_out_unless_they_are_all():
    looks = {"a": NodeReport("", {"x": [DATA]}), "b": NodeReport("", {"x": [DATA]}, notes=["n"])}
    found = preflight_of(looks, ["x", "y"])
    assert found.absent == {"x": [DATA]} and found.notes == ["n"]
    with pytest.raises(ConfigError, match="  node b: missing data"):
        preflight_of(looks, ["x"])


def test_unusable_and_different_data_are_named_with_their_node():
    with pytest.raises(ConfigError, match="node b: mask 3 is empty"):
        preflight_of({"a": NodeReport(""), "b": NodeReport("", problems=["mask 3 is empty"])}, ["x"])
    looks = {"a": NodeReport("", fingerprints={"d": "1"}), "b": NodeReport("", fingerprints={"d": "2"})}
    with pytest.raises(ConfigError, match="node b: its data are not those of node a"):
        preflight_of(looks, ["x"])


def test_what_a_trial_starts_on_a_node_finds_the_same_code(tmp_path, monkeypatch):
    for name in ("PYTHONPATH", "PYTHONSAFEPATH"):
        monkeypatch.setenv(name, "")
    monkeypatch.chdir(tmp_path)
    worker.enter(str(tmp_path / "not on this node"))
    assert Path.cwd() == worker.CODE and Path("bench/run.py").is_file()
    assert os.environ["PYTHONPATH"] == str(worker.CODE)
