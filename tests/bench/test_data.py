"""``python -m bench.data``: what it shows, what it finds wrong, and how it ends."""

import json
import sys

import numpy as np
import pytest
import warm
import yaml
from pairs import put, write_pairs
from PIL import Image

from bench.config.settings import TransformConfig
from bench.config.sweep import load_sweep
from bench.config.trial import DATASETS
from bench.data import main
from bench.datasets.core.catalogue import catalogue


def run(capsys, *arguments):
    """Exit code, and what was printed to standard output and error."""
    code = main([str(argument) for argument in arguments])
    said = capsys.readouterr()
    return code, said.out, said.err


def report(tmp_path, root):
    """Exit code of a check, and its reports by the set's name."""
    path = tmp_path / "report.json"
    code = main(["check", str(root), "--json", str(path)])
    return code, {one["name"]: one for one in json.loads(path.read_text())}


def test_list_shows_every_set_and_task(capsys):
    code, out, _ = run(capsys, "list")
    assert code == 0
    for name in (*catalogue().sets, *catalogue().tasks, "10,553", "mean_dice"):
        assert name in out


# --- check ------------------------------------------------------------------------------------------------------------


def test_a_complete_and_sound_set_ends_with_0_and_its_fingerprint(capsys, tmp_path):
    put(tmp_path, "TestDataset/CVC-300/images", "TestDataset/CVC-300/masks", count=60)
    code, out, _ = run(capsys, "check", tmp_path)
    assert code == 0
    config = {"name": "benchmark", "root": str(tmp_path), "train": ["CVC-300"], "test": ["CVC-ClinicDB"]}
    put(tmp_path, "TestDataset/CVC-ClinicDB/images", "TestDataset/CVC-ClinicDB/masks", count=62, seed=1)
    data = DATASETS.build(DATASETS.parse(config), TransformConfig(size=8))
    assert f"fingerprint {data.set_fingerprints['CVC-300']}" in out
    assert "60 x 0 and 255" in out


def test_a_part_of_a_set_says_so(capsys, tmp_path):
    put(tmp_path, "ECSSD/images", "ECSSD/masks", count=6)
    code, out, _ = run(capsys, "check", tmp_path / "ECSSD")
    assert code == 1 and "6 pairs, but 1,000 are expected" in out


def test_an_unknown_folder_says_how_to_use_it(capsys, tmp_path):
    put(tmp_path, "mine/images", "mine/masks")
    code, out, _ = run(capsys, "check", tmp_path)
    assert code == 0 and "no known set" in out
    assert f"dataset.images={tmp_path}/mine/images dataset.masks={tmp_path}/mine/masks" in out


def test_every_kind_of_trouble_is_reported(capsys, tmp_path):
    images, masks = write_pairs(tmp_path / "ECSSD", 10, size=(20, 16))
    (images / "pair 000.jpg").write_bytes(b"no image")
    (masks / "pair 001.png").unlink()
    (masks / "lonely.png").write_bytes((masks / "pair 002.png").read_bytes())
    (images / "notes.txt").touch()
    (images / "Thumbs.db").touch()
    Image.new("L", (20, 17), 255).save(masks / "pair 003.png")
    Image.new("L", (20, 16), 0).save(masks / "pair 004.png")
    grey = np.asarray(Image.open(masks / "pair 005.png"))
    Image.fromarray(grey // 255).save(masks / "pair 005.png")
    Image.fromarray(grey // 255 * 250 + 3).save(masks / "pair 006.png")
    (images / "pair 008.jpg").write_bytes((images / "pair 007.jpg").read_bytes())
    code, reports = report(tmp_path, tmp_path)
    one = reports["ECSSD"]
    assert code == 1 and one["pairs"] == 9
    for part in (
        "9 pairs, but 1,000 are expected",
        "1 without a mask of the same stem: pair 001",
        "1 without an image of the same stem: lonely",
        "pair 000.jpg: cannot be read (not an image)",
        "pair 003.png: image and mask differ in size, 20 x 16 and 20 x 17",
    ):
        assert any(part in line for line in one["problems"]), (part, one["problems"])
    assert len(one["problems"]) == 5
    for part in (
        "no images: notes.txt",
        "1 masks are all background: pair 004",
        "1 masks are all object: pair 003",
        "1 of 9 masks are not binary: 0 and 1, read as 0 and 255",
        "1 of 9 masks are not binary: grey levels, object above 128, soft in training",
        "1 images are there more than once: pair 007 = pair 008",
    ):
        assert any(part in line for line in one["notes"]), (part, one["notes"])
    assert len(one["notes"]) == 6


def test_images_shared_by_train_and_test_are_a_problem_whatever_file_they_are_in(tmp_path):
    put(tmp_path, "DUTS-TR/images", "DUTS-TR/masks", count=4, seed=1)
    put(tmp_path, "ECSSD/images", "ECSSD/masks", count=4, seed=2)
    put(tmp_path, "HKU-IS/images", "HKU-IS/masks", count=4, seed=3)
    pixels = Image.open(tmp_path / "DUTS-TR/images/pair 002.jpg")
    for test_set in ("ECSSD", "HKU-IS"):
        (tmp_path / test_set / "images/pair 001.jpg").unlink()
        pixels.save(tmp_path / test_set / "images/pair 001.png")  # the same picture in another file
    _, reports = report(tmp_path, tmp_path)
    for test_set in ("ECSSD", "HKU-IS"):
        line = f"1 images of DUTS-TR are also in {test_set}, pixel for pixel: pair 002 = pair 001."
        assert f"{line} Training has seen them" in reports[test_set]["problems"]
    assert any("HKU-IS are also in ECSSD" in line for line in reports["ECSSD"]["notes"])


def test_wrong_roots_are_the_users_mistake(capsys, tmp_path):
    for root, part in ((tmp_path / "nowhere", "does not exist"), (tmp_path, "holds no image folder with a mask")):
        code, _, err = run(capsys, "check", root)
        assert code == 2 and part in err and err.count("\n") == 1


# --- recipe -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", list(catalogue().tasks))
def test_a_recipe_is_a_sweep_file(capsys, tmp_path, task):
    code, out, _ = run(capsys, "recipe", task, "--root", "my data")
    path = tmp_path / "recipe.yaml"
    path.write_text(out)
    sweep = load_sweep(path)
    assert code == 0 and sweep.base.dataset.task == task and sweep.base.dataset.root == "my data"
    assert sweep.base.transform.size == catalogue().tasks[task].recipe["transform"]["size"]
    assert yaml.safe_load(out)["seeds"] == [0, 1, 2]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["recipe", "salent"], "no task 'salent'. Did you mean 'salient'?"),
        (["fetch", "ecsd"], "no set 'ecsd'. Did you mean 'ECSSD'?"),
    ],
)
def test_unknown_names(capsys, arguments, expected):
    code, out, err = run(capsys, *arguments)
    assert code == 2 and err.startswith(expected) and not out


def test_the_command_line_ends_with_the_code(tmp_path):
    done = warm.run(
        [sys.executable, "-m", "bench.data", "check", str(tmp_path / "no")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2 and "Traceback" not in done.stderr


def test_a_report_replaces_no_file_of_the_data_and_no_device(capsys, tmp_path):
    put(tmp_path, "TestDataset/CVC-300/images", "TestDataset/CVC-300/masks", count=2)
    image = next((tmp_path / "TestDataset/CVC-300/images").iterdir())
    content = image.read_bytes()
    for target, expected in ((image, "is an input, which would be lost"), ("/dev/null", "is a device")):
        code, out, err = run(capsys, "check", tmp_path, "--json", target)
        assert (code, out) == (2, "") and expected in err
    assert image.read_bytes() == content
