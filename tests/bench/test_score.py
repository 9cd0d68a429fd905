"""Folders of predictions: the papers' own scripts to the digit, every core the same, every mistake by name."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pyarrow.parquet
import pytest
from conftest import wait_for
from PIL import Image

from bench.records.external_scores import load_external
from bench.score import main
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


def write_files(folder: Path, count: int = 7) -> tuple[Path, Path]:
    """Predictions and masks of several sizes, by whole numbers only, so that they are the same bytes everywhere.

    Masks have values between 0 and 255 at the rim, which the two protocols read differently.
    """
    predictions, masks = folder / "predictions", folder / "masks"
    predictions.mkdir(parents=True)
    masks.mkdir()
    rng = np.random.default_rng(5)
    for i in range(count):
        height, width = rng.integers(24, 72, 2)
        y, x = np.ogrid[:height, :width]
        cy, cx, radius = rng.integers(8, height - 8), rng.integers(8, width - 8), rng.integers(6, 18)
        distance = (y - cy) ** 2 * 2 + (x - cx) ** 2
        rim = np.where(distance < (radius + 2) ** 2, rng.choice([90, 200, 254]), 0)
        mask = np.where(distance < radius**2, 255, rim)
        moved = (y - cy - rng.integers(-4, 5)) ** 2 + (x - cx - rng.integers(-4, 5)) ** 2
        low, high = rng.integers(0, 40), rng.integers(120, 256)
        prediction = np.clip(high - high * moved // (3 * radius**2) + rng.integers(-30, 31, moved.shape), low, high)
        Image.fromarray(mask.astype(np.uint8)).save(masks / f"pair {i}.a.png")
        Image.fromarray(prediction.astype(np.uint8)).save(predictions / f"pair {i}.a.png")
    return predictions, masks


def run(*arguments) -> int:
    return main([str(argument) for argument in arguments])


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return write_files(tmp_path)


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


# --- maps -------------------------------------------------------------------------------------------------------------


def score_of(maps, masks, *more):
    """Scores of a folder, or ``None`` where it is refused."""
    code = run("--pred", maps, "--gt", masks, "--name", "m", "--jobs", 1, *more)
    path = Path("results/external/m.json")
    found = json.loads(path.read_text()) if code == 0 else None
    path.unlink(missing_ok=True)
    return found


def rewrite(folder, change, suffix=".png"):
    """Every map of a folder as ``change`` makes it from its array."""
    for path in sorted(folder.iterdir()):
        image = change(np.asarray(Image.open(path)))
        path.unlink()
        image.save(path.with_name(path.stem + suffix))


@pytest.mark.parametrize(
    ("change", "suffix"),
    [
        (lambda a: Image.fromarray((a / 255).astype(np.float32)), ".tif"),
        (lambda a: Image.fromarray(a.astype(np.uint16) * 257), ".png"),
        (lambda a: Image.fromarray(a.astype(np.uint16)), ".png"),
        (lambda a: Image.fromarray(a.astype(np.int32)), ".tif"),
        (lambda a: Image.fromarray(a).convert("RGB"), ".png"),
        (lambda a: Image.fromarray(a).convert("P"), ".png"),
        (lambda a: Image.fromarray(a).convert("LA"), ".png"),
    ],
)
@pytest.mark.parametrize("more", [(), ("--no-minmax",), ("--protocol", "mirror")])
def test_a_map_scores_the_same_however_it_is_stored(files, change, suffix, more):
    expected = score_of(*files, *more)["scores"]
    rewrite(files[0], change, suffix)
    # floats are cut to 256 levels by the metrics, and the nearest float to a level may lie below it
    tolerance = 1e-3 if np.asarray(Image.open(next(files[0].iterdir()))).dtype.kind == "f" else 1e-6
    assert score_of(*files, *more)["scores"] == pytest.approx(expected, abs=tolerance)


@pytest.mark.parametrize("more", [(), ("--no-minmax",), ("--protocol", "mirror")])
def test_maps_of_0_and_1_are_certain_and_said(files, capsys, more):
    rewrite(files[0], lambda a: Image.fromarray((a > 90).astype(np.uint8) * 255))
    expected = score_of(*files, *more)["scores"]
    rewrite(files[0], lambda a: Image.fromarray(a // 255))
    found = score_of(*files, *more)
    assert found["scores"] == expected
    assert found["notes"][-1] == "no map of 8 bits holds more than 1, so 1 is read as certainty"
    assert found["notes"][-1] in capsys.readouterr().out


def test_one_dark_map_among_others_is_dark_and_not_certain(files):
    first = sorted(files[0].iterdir())[0]
    dark = (np.asarray(Image.open(first)) > 90).astype(np.uint8)
    Image.fromarray(dark).save(first)
    found = score_of(*files, "--no-minmax")
    mask = np.asarray(Image.open(sorted(files[1].iterdir())[0])) > 128
    images = pyarrow.parquet.read_table("results/external/m.images.parquet")
    assert images["mae"][0].as_py() == pytest.approx(np.abs(dark / 255 - mask).mean()) and not found["notes"][1:]


def with_value(value, dtype):
    def change(array):
        changed = array.astype(dtype)
        changed[0, 0] = value
        return Image.fromarray(changed)

    return change


@pytest.mark.parametrize(
    ("change", "suffix", "expected"),
    [
        (with_value(np.nan, np.float32), ".tif", " values are NaN or infinite"),
        (with_value(-3, np.int32), ".tif", "values from -3 to "),
        (with_value(70000, np.int32), ".tif", "to 70000 are no probability. Allowed are floats from 0 to 1, and whole"),
        (lambda a: Image.fromarray((a / 64).astype(np.float32)), ".tif", "are no probability"),
        (lambda a: Image.fromarray((a / 255 - 0.5).astype(np.float32)), ".tif", "are no probability"),
        (
            lambda a: Image.fromarray(np.stack([a, 255 - a, a], -1)),
            ".png",
            "is a picture in colours, not a map of grey",
        ),
        (lambda a: Image.fromarray(np.stack([a, a], -1)), ".png", "is partly transparent"),
    ],
)
def test_what_is_no_probability_is_an_error_with_names(files, capsys, change, suffix, expected):
    rewrite(files[0], change, suffix)
    assert score_of(*files) is None
    error = capsys.readouterr().err
    assert expected in error and f"pair 0.a{suffix}" in error


def test_masks_of_other_names_and_nested_folders_by_options(files, capsys):
    expected = score_of(*files)["scores"]
    for path in list(files[1].iterdir()):
        path.rename(path.with_name(f"{path.stem}_gt.png"))
    assert score_of(*files) is None
    assert "Give --mask-suffix=_gt, which would pair 7 of 7" in capsys.readouterr().err
    assert score_of(*files, "--mask-suffix", "_gt")["scores"] == expected
    for folder in files:
        (folder / "one" / "two").mkdir(parents=True)
        for path in [path for path in folder.iterdir() if path.is_file()]:
            path.rename(folder / "one" / "two" / path.name)
    assert score_of(*files, "--mask-suffix", "_gt") is None
    assert "holds no images itself, but folders with images: one. Set --recursive" in capsys.readouterr().err
    assert score_of(*files, "--mask-suffix", "_gt", "--recursive")["scores"] == expected


def test_masks_are_turned_as_trials_turn_them(files):
    """A mask with an EXIF tag that makes its size that of its map is turned by it."""
    expected = score_of(*files)["scores"]
    for path in files[1].iterdir():
        image = Image.open(path)
        exif = image.getexif()
        exif[0x0112] = 6
        image.transpose(Image.Transpose.ROTATE_90).save(path, exif=exif)
    assert score_of(*files)["scores"] == expected


def test_mistakes_in_foreground_and_ignore_are_one_line(files, capsys):
    for flags, expected in (
        (("--foreground", "nonzeros"), "--foreground nonzeros: unknown. Did you mean 'nonzero'?"),
        (("--ignore", "[-1]"), "--ignore [-1]: -1 is no value of a pixel"),
        (("--foreground", "[1"), "--foreground [1: "),
    ):
        assert run("--pred", files[0], "--gt", files[1], *flags) == 2
        error = capsys.readouterr().err
        assert expected in error and error.count("\n") == 1


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
