"""Folders of real files, good and bad."""

import shutil

import numpy as np
import pytest
import torch
from pairs import write_pairs
from PIL import Image

from bench.config.settings import TransformConfig
from bench.config.trial import DATASETS
from bench.datasets import DataError

SIZE = TransformConfig(size=16)


def build(images, masks, **more):
    return DATASETS.build(DATASETS.parse({"name": "folder", "images": str(images), "masks": str(masks), **more}), SIZE)


def complaints(images, masks, **more):
    with pytest.raises(DataError) as error:
        build(images, masks, **more)
    return error.value.errors


@pytest.fixture
def pairs(tmp_path):
    return write_pairs(tmp_path, 10)


def test_pairs_by_stem_and_splits_by_seed(pairs):
    data = build(*pairs)
    assert [len(s) for s in (data.train, data.val, data.test)] == [7, 1, 2]
    assert sorted({*data.train.names, *data.val.names, *data.test.names}) == [f"pair {i:03d}" for i in range(10)]
    again, other = build(*pairs), build(*pairs, split_seed=1)
    assert data.test.names == again.test.names and data.fingerprint == again.fingerprint
    assert data.test.names != other.test.names and data.fingerprint != other.fingerprint


def test_images_and_masks_are_those_of_the_files(pairs):
    images, masks = pairs
    data = build(images, masks)
    for split in (data.train, data.test):
        pixels, small = (t.numpy() for t in split.batch(np.arange(len(split)), torch.device("cpu")))
        for i, name in enumerate(split.names):
            image = Image.open(images / f"{name}.jpg").resize((16, 16), Image.Resampling.BILINEAR)
            assert np.array_equal(pixels[i], np.asarray(image))
            mask = Image.open(masks / f"{name}.png")
            assert np.array_equal(split.ground_truth(i), np.asarray(mask))
            assert np.array_equal(small[i], np.asarray(mask.resize((16, 16), Image.Resampling.BICUBIC)))


def test_a_test_set_of_its_own(pairs, tmp_path):
    test_images, test_masks = write_pairs(tmp_path / "test", 4, size=(50, 20), seed=1)
    data = build(*pairs, val=0.0, test_images=str(test_images), test_masks=str(test_masks))
    assert [len(s) for s in (data.train, data.val, data.test)] == [10, 0, 4]
    assert data.test.ground_truth(0).shape == (20, 50)


def test_fingerprint_follows_content_not_place_or_time(pairs, tmp_path):
    other = write_pairs(tmp_path / "copy", 10)
    assert build(*pairs).fingerprint == build(*other).fingerprint
    Image.fromarray(255 - np.asarray(Image.open(other[1] / "pair 003.png"))).save(other[1] / "pair 003.png")
    assert build(*pairs).fingerprint != build(*other).fingerprint


def test_everything_wrong_is_said_at_once(pairs):
    images, masks = pairs
    (images / "pair 000.jpg").write_bytes(b"no image")
    content = (images / "pair 001.jpg").read_bytes()
    (images / "pair 001.jpg").write_bytes(content[: len(content) // 2])
    Image.new("L", (40, 31), 255).save(masks / "pair 002.png")
    Image.new("L", (40, 30), 0).save(masks / "pair 003.png")
    Image.new("L", (40, 30), 255).save(masks / "pair 004.png")
    errors = complaints(images, masks)
    for part in (
        "pair 000.jpg: cannot be read (not an image)",
        "pair 001.jpg: cannot be read (",
        "pair 002.png: image and mask differ in size, 40 x 30 and 40 x 31",
        "pair 003.png: the whole mask is background",
        "pair 004.png: the whole mask is object",
    ):
        assert any(part in line for line in errors), (part, errors)
    assert len(errors) == 5


def test_lonely_and_doubled_files_are_named(pairs):
    images, masks = pairs
    (masks / "pair 004.png").unlink()
    (images / "pair 005.jpg").unlink()
    Image.new("RGB", (40, 30)).save(images / "pair 006.PNG")
    errors = complaints(images, masks)
    assert any("1 without a mask of the same stem: pair 004" in line for line in errors)
    assert any("1 without an image of the same stem: pair 005" in line for line in errors)
    assert any("more than one file for pair 006" in line for line in errors)


@pytest.mark.parametrize("ending", ["_mask", "_gt", "-mask", ".jpg"])
def test_masks_with_a_suffix_are_paired_by_the_setting_that_the_error_proposes(pairs, ending):
    images, masks = pairs
    expected = build(images, masks)
    for path in list(masks.iterdir()):
        path.rename(path.with_name(f"{path.stem}{ending}.png"))
    first, second = complaints(images, masks)
    assert first.endswith(f"and 5 more. Set dataset.mask_suffix={ending}, which would pair 10 of 10")
    assert "10 without an image of the same stem" in second
    found = build(images, masks, mask_suffix=ending)
    assert found.test.names == expected.test.names and found.fingerprint == expected.fingerprint
    (masks / f"pair 003{ending}.png").rename(masks / "pair 003.png")  # with and without it is one name, too
    assert build(images, masks, mask_suffix=ending).fingerprint == expected.fingerprint


def test_a_suffix_is_proposed_only_where_it_pairs_more(pairs):
    images, masks = pairs
    (masks / "pair 004.png").rename(masks / "pair 004_gt.png")
    assert not any("mask_suffix" in line for line in complaints(images, masks))


def test_folders_within_folders_are_read_by_a_setting(pairs):
    images, masks = pairs
    for folder in pairs:
        for number, path in enumerate(sorted(folder.iterdir())):
            below = folder / f"set {number % 2}"
            below.mkdir(exist_ok=True)
            path.rename(below / path.name)
        (folder / "set 0" / "notes.txt").touch()
        (folder / ".hidden").mkdir()
        (folder / ".hidden" / "pair 001.png").touch()
    (line, _) = complaints(images, masks)
    assert line == (
        f"{images}: holds no images itself, but folders with images: set 0, set 1. Set dataset.recursive=true to read them"
    )
    data = build(images, masks, recursive=True)
    names = {*data.train.names, *data.val.names, *data.test.names}
    assert names == {f"set {i % 2}/pair {i:03d}" for i in range(10)}
    assert any("not used, because they are no images: set 0/notes.txt" in note for note in data.notes)


def test_images_of_one_name_in_two_folders_are_not_taken_for_one_image(pairs):
    images, masks = pairs
    for folder in pairs:
        for number, path in enumerate(sorted(folder.iterdir())):
            (folder / f"set {number}").mkdir()
            path.rename(folder / f"set {number}" / f"same{path.suffix}")
    assert not any("also trained on" in note for note in build(images, masks, recursive=True).notes)
    shutil.copy(images / "set 0" / "same.jpg", images / "set 1" / "same.jpg")
    splits = [build(images, masks, recursive=True, split_seed=seed) for seed in range(30)]
    notes = [note for data in splits for note in data.notes if "also trained on" in note]
    assert notes and all(note.startswith("1 images of test are also trained on, byte for byte: set") for note in notes)


def test_a_folder_of_images_beside_images_is_said_to_be_one(pairs):
    images, masks = pairs
    (images / "more").mkdir()
    (images / "empty").mkdir()
    Image.new("RGB", (40, 30)).save(images / "more" / "pair 011.jpg")
    no_images, unread = build(images, masks).notes
    assert no_images == f"{images}: not used, because they are no images: empty"
    assert unread == f"{images}: folders with images that are not read: more. Set dataset.recursive=true to read them"


def test_what_is_no_image_is_said_and_litter_is_not(pairs):
    images, masks = pairs
    for name in ("notes.txt", "Thumbs.db", ".DS_Store"):
        (images / name).touch()
    (note,) = build(images, masks).notes
    assert "not used, because they are no images: notes.txt" in note


def test_empty_folders(tmp_path):
    (tmp_path / "i").mkdir()
    (tmp_path / "m").mkdir()
    assert len(complaints(tmp_path / "i", tmp_path / "m")) == 2


def test_missing_folders_are_found_before_anything_is_read(tmp_path):
    (tmp_path / "file").touch()
    config = DATASETS.parse({"name": "folder", "images": str(tmp_path / "file"), "masks": "/nowhere"})
    assert [m.what.split(" ", 1)[1] for m in config.missing()] == ["is no folder", "does not exist"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"val": 0.6, "test": 0.5},
            r"10 pairs cannot be split into train, 6 val and 5 test. Lower dataset.val or dataset.test",
        ),
        ({"test": 0.0}, "leaves nothing to score"),
    ],
)
def test_splits_that_leave_nothing(pairs, changes, expected):
    assert expected in complaints(*pairs, **changes)[0]


@pytest.mark.parametrize(
    "changes", [{"test_images": "x"}, {"test_images": "x", "test_masks": "y", "test": 0.1}, {"val": 1.0}, {"val": -0.1}]
)
def test_fields_that_make_no_sense_together(changes):
    with pytest.raises(ValueError):
        DATASETS.parse({"name": "folder", "images": "i", "masks": "m", **changes})


def test_single_valued_masks_can_be_meant(pairs):
    Image.new("L", (40, 30), 0).save(pairs[1] / "pair 003.png")
    assert build(*pairs, single_value_masks="allow").train.masks.shape == (10, 16, 16)


@pytest.mark.parametrize("kind", ["zero and one", "palette", "bilevel", "16 bit", "rgb", "alpha"])
def test_masks_of_every_kind_mean_the_same(tmp_path, kind):
    images, masks = write_pairs(tmp_path, 6)
    expected = build(images, masks)
    for path in masks.iterdir():
        grey = np.asarray(Image.open(path))
        mask = {
            "zero and one": lambda: Image.fromarray(grey // 255),
            "palette": lambda: Image.fromarray(grey // 255).convert("P"),
            "bilevel": lambda: Image.fromarray(grey).convert("1"),
            "16 bit": lambda: Image.fromarray(grey.astype(np.uint16) * 257),
            "rgb": lambda: Image.fromarray(grey).convert("RGB"),
            "alpha": lambda: Image.fromarray(grey).convert("LA"),
        }[kind]()
        mask.save(path)
    got = build(images, masks)
    assert np.array_equal(got.train.masks, expected.train.masks)
    assert np.array_equal(got.test.ground_truth(0), expected.test.ground_truth(0))


def test_exif_rotation_turns_the_image_upright(tmp_path):
    images, masks = write_pairs(tmp_path, 6)
    upright = build(images, masks).train.images.copy()
    for path in images.iterdir():
        image = Image.open(path)
        exif = image.getexif()
        exif[0x0112] = 6  # shown after a quarter turn clockwise
        image.transpose(Image.Transpose.ROTATE_90).save(path, exif=exif, quality=100)
    assert np.abs(build(images, masks).train.images.astype(int) - upright).mean() < 6
