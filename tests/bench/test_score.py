"""Folders of predictions: the papers' own scripts to the digit, every core the same, every mistake by name."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pyarrow.parquet
import pytest
import scored_files
from conftest import wait_for
from PIL import Image
from scored_files import run, write_files

from bench.records.external_scores import load_external
from bench.system.process_tree import is_dead

# The papers' own scripts, run outside the project on the files of write_files, printing twelve digits.
UPSTREAM = {  # WZH0120/SAM3-UNet fdb21da, eval.py (without its unused MSIoU(), which pysodmetrics 1.6.2 refuses)
    "mean_dice": 0.634773768877,
    "mean_iou": 0.479949792754,
    "s_measure": 0.771414859623,
    "weighted_f_measure": 0.618702466870,
    "adaptive_f_measure": 0.581627624402,
    "mean_f_measure": 0.620650295059,
    "max_f_measure": 0.757605066939,
    "mean_e_measure": 0.739600672891,
    "mae": 0.126565482339,
}
HETNET = {  # Catherine-R-He/HetNet 21d9541, eval.py
    "mae": 0.132192062480,
    "ber": 0.247363563326,
    "accuracy": 0.542570185381,
    "iou": 0.345072406639,
    "f_of_means": 0.718370676041,
}

files = pytest.fixture(scored_files.files)


@pytest.fixture
def sweep(tmp_path):
    folder = tmp_path / "results" / "mine"
    folder.mkdir(parents=True)
    return folder


@pytest.mark.parametrize(("protocol", "golden"), [("sod", UPSTREAM), ("mirror", HETNET)])
def test_a_folder_scores_what_the_papers_scripts_print(files, protocol, golden):
    assert run("--pred", files[0], "--gt", files[1], "--protocol", protocol, "--name", "m", "--jobs", 1) == 0
    scores = json.loads(Path("results/external/m.json").read_text())["scores"]
    assert {metric: scores[metric] for metric in golden} == pytest.approx(golden, abs=1e-6)


@pytest.mark.parametrize("protocol", ["sod", "mirror"])
def test_two_processes_give_the_same_digits_as_one(files, protocol):
    for jobs in (1, 2):
        name = f"with{jobs}"
        assert run("--pred", files[0], "--gt", files[1], "--protocol", protocol, "--name", name, "--jobs", jobs) == 0
    one, two = (json.loads(Path(f"results/external/with{jobs}.json").read_text()) for jobs in (1, 2))
    assert one["scores"] == two["scores"]
    assert one["predictions_fingerprint"] == two["predictions_fingerprint"] != one["masks_fingerprint"]
    tables = [pyarrow.parquet.read_table(f"results/external/with{jobs}.images.parquet") for jobs in (1, 2)]
    assert tables[0].equals(tables[1])
    assert tables[0]["name"].to_pylist() == [f"pair {i}.a" for i in range(7)]


def test_missing_and_extra_predictions_are_named_and_nothing_is_written(files, capsys):
    (files[0] / "pair 2.a.png").rename(files[0] / "pair 2.b.png")
    (files[0] / "pair 5.a.png").unlink()
    assert run("--pred", files[0], "--gt", files[1]) == 2
    error = capsys.readouterr().err
    assert "2 of 7 predictions are missing: pair 2.a, pair 5.a" in error
    assert "1 predictions have no mask" in error and "pair 2.b" in error
    assert not Path("results").exists()


def test_wrong_sizes_and_unreadable_files_are_named(files, capsys):
    Image.new("L", (9, 11)).save(files[0] / "pair 3.a.png")
    (files[1] / "pair 4.a.png").write_bytes(b"no image")
    assert run("--pred", files[0], "--gt", files[1]) == 2
    error = capsys.readouterr().err
    assert "pair 3.a.png: prediction and mask differ in size, 9 x 11 and " in error
    assert "pair 4.a.png: cannot be read (not an image)" in error


@pytest.mark.parametrize("jobs", [1, 2])
def test_files_cut_short_are_all_named_whoever_reads_them(files, capsys, jobs):
    for i in (1, 6):
        path = files[0] / f"pair {i}.a.png"
        path.write_bytes(path.read_bytes()[:-40])
    assert run("--pred", files[0], "--gt", files[1], "--jobs", jobs) == 2
    error = capsys.readouterr().err
    assert error.count("cannot be read") == 2 and "pair 1.a.png" in error and "pair 6.a.png" in error


def test_mistakes_on_the_command_line_are_one_line_each(files, tmp_path, capsys):
    cases = {
        ("--pred", tmp_path / "nowhere", "--gt", files[1]): "does not exist",
        ("--pred", files[0], "--gt", files[1], "--name", "../x"): "becomes a file name",
        ("--pred", files[0], "--gt", files[1], "--into", tmp_path / "nowhere"): "no such folder",
        ("--pred", tmp_path, "--gt", files[1], "--name", "m"): "no images",
    }
    for arguments, expected in cases.items():
        assert run(*arguments) == 2
        error = capsys.readouterr().err
        assert expected in error and error.count("\n") == 1


def test_a_name_that_stands_for_other_files_is_kept(files, sweep, tmp_path, capsys):
    other = write_files(tmp_path / "other")
    assert run("--pred", files[0], "--gt", files[1], "--name", "m", "--into", sweep, "--jobs", 1) == 0
    assert run("--pred", other[0], "--gt", other[1], "--name", "m", "--into", sweep) == 2
    assert "Give another name" in capsys.readouterr().err


def test_into_a_sweep_it_is_an_external_record_with_scores_per_image(files, sweep):
    assert run("--pred", files[0], "--gt", files[1], "--name", "m", "--into", sweep, "--jobs", 1) == 0
    (sweep / "external" / "broken.json").write_text("{}")
    (record,), broken = load_external(sweep)
    assert record.name == "m" and record.images == 7 and len(broken) == 1
    assert record.scores["mae"] == pytest.approx(np.mean(record.image_scores["mae"]))


def test_masks_of_0_and_1_are_read_and_said(files, capsys):
    assert run("--pred", files[0], "--gt", files[1], "--name", "a", "--jobs", 1) == 0
    for path in files[1].iterdir():
        mask = np.asarray(Image.open(path))
        Image.fromarray((mask > 128).astype(np.uint8)).save(path)
    capsys.readouterr()
    assert run("--pred", files[0], "--gt", files[1], "--name", "b", "--jobs", 1) == 0
    assert "7 masks of 0 and 1" in capsys.readouterr().out
    a, b = (json.loads(Path(f"results/external/{name}.json").read_text())["scores"] for name in "ab")
    assert a == b


def test_suffixes_may_differ_and_litter_is_overlooked(files):
    first = files[0] / "pair 0.a.png"
    Image.open(first).save(files[0] / "pair 0.a.BMP", format="bmp")
    first.unlink()
    (files[0] / "Thumbs.db").touch()
    (files[0] / "notes.txt").touch()
    assert run("--pred", files[0], "--gt", files[1], "--name", "m", "--jobs", 1) == 0
    scores = json.loads(Path("results/external/m.json").read_text())["scores"]
    assert scores["s_measure"] == pytest.approx(UPSTREAM["s_measure"], abs=1e-6)


def test_without_minmax_maps_are_scored_as_they_are(files):
    assert run("--pred", files[0], "--gt", files[1], "--name", "m", "--no-minmax", "--jobs", 1) == 0
    expected = []
    for path in sorted(files[0].iterdir()):
        prediction, mask = (np.asarray(Image.open(folder / path.name)) for folder in files)
        expected.append(np.abs(prediction / 255 - (mask > 128)).mean())
    scores = json.loads(Path("results/external/m.json").read_text())["scores"]
    assert scores["mae"] == pytest.approx(np.mean(expected)) != pytest.approx(UPSTREAM["mae"], abs=1e-3)


def test_as_a_command(files):
    command = [sys.executable, "-m", "bench.score", "--pred", files[0], "--gt", files[1], "--name", "m", "--jobs", "2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "0.7714   s_measure" in done.stdout and Path("results/external/m.json").exists()


def test_scores_replace_no_folder_and_no_mask(files, capsys):
    predictions, masks = files
    Path("results/external/mine.json").mkdir(parents=True)
    assert run("--pred", predictions, "--gt", masks, "--name", "mine") == 2
    assert "mine.json: is a folder, which no file may replace" in capsys.readouterr().err


def test_its_workers_end_with_it_however_it_ends(tmp_path):
    predictions, masks = write_files(tmp_path, count=200)
    command = [sys.executable, "-m", "bench.score", "--pred", predictions, "--gt", masks, "--jobs", "2"]
    process = subprocess.Popen([*map(str, command)], cwd=tmp_path, stdout=subprocess.DEVNULL)
    workers = wait_for(lambda: psutil.Process(process.pid).children())
    for worker in workers:
        worker.suspend()  # so that they cannot finish
    process.kill()
    process.wait()
    for worker in workers:
        worker.resume()
    wait_for(lambda: all(map(is_dead, workers)), seconds=10)
