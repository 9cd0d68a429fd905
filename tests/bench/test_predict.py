"""Masks for a folder of images, on real files."""

import shutil

import numpy as np
import pytest
from pairs import write_pairs
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from bench.predict import main
from bench.training import trained_weights
from bench.trial import run_trial


@pytest.fixture
def trained(tiny_with, tmp_path):
    """Weights of a trial on twelve files, and the folder with their images."""
    images, masks = write_pairs(tmp_path / "pairs", 12)
    config = tiny_with({"dataset": {"name": "folder", "images": str(images), "masks": str(masks)}})
    record = run_trial(config)
    record.save(tmp_path)
    return tmp_path / f"{config.trial_id}.safetensors", images, record


def test_every_image_gets_a_mask_of_its_size_equal_to_what_was_scored(trained, tmp_path, capsys):
    path, images, record = trained
    Image.new("RGB", (17, 60), "white").save(images / "odd.size.WEBP")
    (images / "notes.txt").write_text("no image")
    assert main([str(path), str(images), str(tmp_path / "out"), "--batch-size", "5"]) == 0
    assert "13 images" in capsys.readouterr().out
    out = {p.name: Image.open(p) for p in (tmp_path / "out").iterdir()}
    assert len(out) == 13 and out["odd.size.png"].size == (17, 60)
    for name, mae in zip(record.image_scores["name"], record.image_scores["mae"]):
        mask = np.asarray(Image.open(images.parent / "masks" / f"{name}.png")) > 128
        answer = np.asarray(out[f"{name}.png"]).astype(float)
        answer = (answer - answer.min()) / (answer.max() - answer.min())
        assert abs(answer - mask).mean() == pytest.approx(mae, abs=1 / 255)


def test_an_unreadable_image_is_named_and_the_others_are_predicted(trained, tmp_path, capsys):
    path, images, _ = trained
    (images / "broken.png").write_bytes(b"not a png")
    assert main([str(path), str(images), str(tmp_path / "out")]) == 1
    assert "broken.png: cannot be read" in capsys.readouterr().err
    assert len(list((tmp_path / "out").iterdir())) == 12


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["FILE", "nowhere", "out"], "nowhere: is no folder of images"),
        (["FILE", "empty", "out"], "holds no images"),
        (["FILE", "IMAGES", "out", "--batch-size", "0"], "at least 1"),
        (["gone.safetensors", "IMAGES", "out"], "no such file"),
        (["FILE", "twins", "out"], "more than one image called pair 000"),
        (["FILE", "IMAGES", "FILE"], "File exists"),
    ],
)
def test_wrong_input_is_one_line_and_code_2(trained, tmp_path, monkeypatch, capsys, arguments, expected):
    path, images, _ = trained
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    shutil.copytree(images, tmp_path / "twins")
    shutil.copy(images / "pair 000.jpg", tmp_path / "twins" / "pair 000.jpeg")
    names = {"FILE": str(path), "IMAGES": str(images)}
    assert main([names.get(a, a) for a in arguments]) == 2
    said = capsys.readouterr().err
    assert expected in said and "Traceback" not in said


def test_weights_that_are_no_numbers_predict_nothing(trained, tmp_path, capsys):
    path, images, _ = trained
    tensors = load_file(path)
    spoilt = [name for name in sorted(tensors) if name.endswith("head.bias") or name.endswith("running_var")][:2]
    for name in spoilt:
        tensors[name][0] = float("nan")
    with safe_open(path, "pt") as file:
        save_file(tensors, tmp_path / "nan.safetensors", metadata=file.metadata())
    assert main([str(tmp_path / "nan.safetensors"), str(images), str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert "nan.safetensors: its weights are not finite" in said and all(name in said for name in spoilt)
    assert not (tmp_path / "out").exists()


def test_an_answer_that_is_no_number_is_no_mask(trained, tmp_path, monkeypatch, capsys, recwarn):
    path, images, _ = trained
    config, model = trained_weights.load(path)
    model.decoder.head.bias.data.fill_(float("inf"))
    monkeypatch.setattr(trained_weights, "load", lambda path: (config, model))
    assert main([str(path), str(images), str(tmp_path / "out")]) == 1
    out, err = capsys.readouterr()
    assert "wrote 0 masks" in out and err.count("the model's logits are not finite") == 12 and "pair 003.jpg: " in err
    assert list((tmp_path / "out").iterdir()) == [] and not [w for w in recwarn if w.category is RuntimeWarning]


@pytest.mark.parametrize("out", ["images", "link", "below/../images"])
def test_masks_do_not_replace_the_images_that_they_are_of(trained, tmp_path, monkeypatch, capsys, out):
    path, images, _ = trained
    monkeypatch.chdir(images.parent)
    (images.parent / "below").mkdir()
    (images.parent / "link").symlink_to("images")
    Image.new("RGB", (17, 60), "white").save(images / "photo.png")
    before = {file.name: file.read_bytes() for file in images.iterdir()}
    assert main([str(path), "images", out]) == 2
    assert capsys.readouterr().err == f"{out}: holds the images. Give another folder for the masks\n"
    assert before == {file.name: file.read_bytes() for file in images.iterdir()}


def test_a_mask_replaces_an_older_one_but_no_image_and_no_folder(trained, tmp_path, capsys):
    path, images, _ = trained
    photo, out = images / "photo.png", images / "masks"
    Image.new("RGB", (17, 60), "white").save(photo)
    content = photo.read_bytes()
    assert main([str(path), str(images), str(out)]) == main([str(path), str(images), str(out)]) == 0
    mask = out / "photo.png"
    mask.unlink()
    mask.hardlink_to(photo)
    capsys.readouterr()
    assert main([str(path), str(images), str(out)]) == 2
    assert f"{mask}: is the same file as {photo}, an input, which would be lost" in capsys.readouterr().err
    mask.unlink()
    mask.mkdir()
    assert main([str(path), str(images), str(out)]) == 2
    assert f"{mask}: is a folder, which no file may replace" in capsys.readouterr().err
    assert photo.read_bytes() == content
