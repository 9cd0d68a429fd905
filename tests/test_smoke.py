"""The main job end to end, in processes of its own: with Ray and without, resumed, killed and interrupted."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from conftest import write_pairs

from bench.record import load_all
from bench.report.__main__ import main as rebuild
from bench.run import main

SWEEP = """
name: smoke
question: Does the whole line work?
base:
  model: {{name: sam3_unet, encoder: sam3_vit_tiny, decoder: {{width: 8}}}}
  dataset: {{name: procedural, train: 8, val: 2, test: 3, side: 32}}
  transform: {{size: 32}}
  train: {{epochs: 1, batch_size: 4}}
  device: cpu
axes:
  {axis}
seeds: [0]
"""
RANKS = "model.adapter.rank: [1, 4]"
ONE_ENDLESS = "train.epochs: [1, 100000]"


@pytest.fixture
def start():
    """``start(folder, axis, *arguments)`` runs the smoke sweep in a process of its own; none outlives its test."""
    drivers = []

    def begin(folder: Path, axis: str, *arguments: str) -> subprocess.Popen:
        (folder / "smoke.yaml").write_text(SWEEP.format(axis=axis))
        command = [sys.executable, "-m", "bench.run", "smoke.yaml", *arguments]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        drivers.append(subprocess.Popen(command, cwd=folder, start_new_session=True, **pipes))
        return drivers[-1]

    yield begin
    for driver in drivers:
        if driver.poll() is None:
            os.killpg(driver.pid, signal.SIGKILL)
            driver.communicate()


@pytest.fixture
def run(start):
    """The same, to its end: exit code and all that was said."""

    def to_the_end(folder: Path, axis: str, *arguments: str) -> tuple[int, str]:
        process = start(folder, axis, *arguments)
        out, err = process.communicate(timeout=240)
        return process.returncode, out + err

    return to_the_end


def wait_for(condition, seconds=120):
    """The first true value of ``condition()``."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.2)
    raise AssertionError("it did not happen in time")


def endless_trial(driver: subprocess.Popen, word: str) -> psutil.Process | None:
    """The process, with the word in its command line, that has computed longer than the short trial can have."""
    try:
        for child in psutil.Process(driver.pid).children(recursive=True):
            if word in " ".join(child.cmdline()) and child.cpu_times().user > 20:
                return child
    except psutil.NoSuchProcess:
        pass
    return None


def test_from_sweep_file_to_leaderboard_with_ray_then_again_then_without(tmp_path, run):
    code, said = run(tmp_path, RANKS)
    assert code == 0, said
    folder = tmp_path / "results" / "smoke"
    records, broken = load_all(folder)
    assert not broken and [r.status for r in records.values()] == ["ok", "ok"]
    tables = {"leaderboard.md", "leaderboard.csv", "leaderboard.tex"}
    expected = {"sweep.json", *tables, "memory_accuracy.png", "memory_accuracy.svg"}
    expected |= {
        f"{trial_id}{kind}"
        for trial_id in records
        for kind in (".json", ".images.parquet", ".memory.parquet", ".safetensors")
    }
    assert {path.name for path in folder.iterdir()} == expected
    assert "[2/2]" in said and "Embedded run" in (folder / "leaderboard.md").read_text()
    assert "\x1b" not in said, "a log holds plain lines"

    shutil.copytree(folder, tmp_path / "other machine" / "copy", copy_function=shutil.copy)
    assert rebuild([str(tmp_path / "other machine" / "copy"), "--out", str(tmp_path / "again"), "--quiet"]) == 0
    written = {path.name: path.read_bytes() for path in (tmp_path / "again").iterdir()}
    assert written == {name: (folder / name).read_bytes() for name in written} and "leaderboard.md" in written

    stamps = {path: path.stat().st_mtime_ns for path in folder.glob("[0-9a-f]*.json")}
    table = (folder / "leaderboard.md").read_text()
    code, said = run(tmp_path, RANKS)
    assert code == 0 and "0 of 2 trials to run, 2 done before" in said
    assert stamps == {path: path.stat().st_mtime_ns for path in folder.glob("[0-9a-f]*.json")}
    assert (folder / "leaderboard.md").read_text() == table

    code, said = run(tmp_path, RANKS, "--executor", "serial", "--results", "elsewhere")
    assert code == 0, said
    serial, _ = load_all(tmp_path / "elsewhere" / "smoke")
    assert {i: r.scores for i, r in serial.items()} == {i: r.scores for i, r in records.items()}


def test_a_dry_run_shows_the_trials_and_touches_nothing(tmp_path, run):
    code, said = run(tmp_path, RANKS, "--dry-run", "train.epochs=3")
    assert code == 0 and "2 of 2 trials to run" in said
    assert said.count("to run") == 3 and "parameters" in said
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("model.adapter.rnk=3",), "Did you mean 'rank'?"),
        (("model.adapter.placement=first:9",), "the encoder has 8"),
        (("--gpus", "1"), "this profile runs on the CPU"),
        (("--gpus", "-1"), "this profile runs on the CPU"),
        (("--cpus-per-trial", "9999"), "Allowed: 1 to"),
        (("--results", "smoke.yaml"), "cannot write results there"),
        (("dataset.images=nope", "dataset.masks=nope"), "nope does not exist"),
        (("--profile", "full"), "no profile 'full'"),
    ],
)
def test_wrong_input_ends_with_code_2_and_no_traceback(tmp_path, monkeypatch, capsys, arguments, expected):
    monkeypatch.chdir(tmp_path)
    Path("smoke.yaml").write_text(SWEEP.format(axis=RANKS))
    assert main(["smoke.yaml", *arguments]) == 2
    said = capsys.readouterr()
    assert expected in said.err and "Traceback" not in said.err
    assert not list(tmp_path.rglob("[0-9a-f]*.json"))


@pytest.mark.parametrize("executor", ["ray", "serial"])
def test_paths_are_those_that_the_user_typed(tmp_path, run, executor):
    """Relative to where the command was given, whatever directory an executor starts its processes in."""
    write_pairs(tmp_path / "pairs", 12)
    folders = ("dataset.images=pairs/images", "dataset.masks=pairs/masks")
    code, said = run(tmp_path, RANKS, "model.adapter.rank=[2]", *folders, "--executor", executor)
    assert code == 0, said


@pytest.mark.parametrize(("executor", "worker"), [("serial", "bench.trial"), ("ray", "ray::ImplicitFunc")])
def test_a_killed_worker_becomes_an_error_row_and_nothing_finished_is_lost(tmp_path, start, executor, worker):
    driver = start(tmp_path, ONE_ENDLESS, "--executor", executor)
    folder = tmp_path / "results" / "smoke"
    wait_for(lambda: list(folder.glob("[0-9a-f]*.json")))
    wait_for(lambda: endless_trial(driver, worker)).kill()
    out, err = driver.communicate(timeout=120)
    assert driver.returncode == 1, out + err
    records, _ = load_all(folder)
    assert sorted(r.status for r in records.values()) == ["error", "ok"]
    (failed,) = [r for r in records.values() if r.status == "error"]
    assert failed.config["train"]["epochs"] == 100000 and failed.error
    table = (folder / "leaderboard.md").read_text()
    assert "0/1 (1 error)" in table and "1/1" in table and "Traceback" not in err


def test_ctrl_c_keeps_what_is_finished_and_the_next_run_goes_on(tmp_path, start, run):
    driver = start(tmp_path, ONE_ENDLESS)
    folder = tmp_path / "results" / "smoke"
    wait_for(lambda: list(folder.glob("[0-9a-f]*.json")))
    os.kill(driver.pid, signal.SIGINT)
    out, err = driver.communicate(timeout=120)
    assert driver.returncode == 130 and "the same command goes on from there" in out, out + err
    assert "Traceback" not in err
    (path,) = folder.glob("[0-9a-f]*.json")
    assert json.loads(path.read_text())["status"] == "ok"
    code, said = run(tmp_path, "train.epochs: [1, 2]")
    assert code == 0 and "1 of 2 trials to run, 1 done before" in said
