"""Each kind of mask is read for what it means, or refused with its values and the setting that decides."""

from pathlib import Path

import numpy as np
import pytest
from drawn_masks import READ, REFUSED, RIM, SHAPE, build, disc, folder_of, grey
from PIL import Image

from bench.config.trial import DATASETS
from bench.datasets import IGNORED, DataError
from bench.datasets.masks.mask import to_mask
from bench.datasets.masks.reading import Reading
from bench.system.wording import first_lines


@pytest.mark.parametrize("kind", READ)
def test_what_can_mean_one_thing_only_is_read(kind):
    mask = to_mask(READ[kind](), Path("m.png"))
    assert np.array_equal(mask.pixels > 128, disc()) and mask.pixels.dtype == np.uint8


@pytest.mark.parametrize("kind", REFUSED)
def test_what_lightness_would_decide_is_refused_until_a_setting_decides(kind):
    draw, holds, settings = REFUSED[kind]
    with pytest.raises(DataError) as refusal:
        to_mask(draw(), Path("m.png"))
    (line,) = refusal.value.errors
    assert line.startswith("m.png: ") and holds in line and "Set dataset.foreground=" in line
    config = DATASETS.parse({"name": "folder", "images": "i", "masks": "m", **settings})
    mask = to_mask(draw(), Path("m.png"), config.reading())
    counted = mask.pixels != IGNORED
    expected = RIM if kind == "rim of a palette without body" else disc()
    assert np.array_equal((mask.pixels > 128)[counted], expected[counted])
    assert np.array_equal(~counted, RIM if "ignore" in settings else np.zeros(SHAPE, bool))


def test_the_first_remedy_of_a_refusal_works_as_it_stands():
    with pytest.raises(DataError, match=r"Set dataset.foreground=\[1\] dataset.ignore=\[255\], or dataset.foreground="):
        to_mask(REFUSED["VOC's rim"][0](), Path("m.png"))
    with pytest.raises(DataError, match=r"Set dataset.foreground=\[\[255,0,0\]\], or dataset.foreground=nonzero"):
        to_mask(REFUSED["red"][0](), Path("m.png"))


def test_soft_outlines_and_noise_of_lossy_files_are_no_labels(tmp_path):
    soft = np.asarray(grey(disc() * 255).resize((96, 80), Image.Resampling.BICUBIC))
    assert np.array_equal(to_mask(grey(soft), Path("m.png")).pixels, soft)
    grey(soft).convert("RGB").save(tmp_path / "m.jpg", quality=60)
    with Image.open(tmp_path / "m.jpg") as image:
        noisy = np.asarray(image.convert("L"))
        assert np.array_equal(to_mask(image, Path("m.jpg")).pixels, noisy)
        with pytest.raises(DataError, match="is a JPEG file, which changes values, so values cannot be named"):
            to_mask(image, Path("m.jpg"), Reading(foreground="nonzero"))
    flat_noise = np.where(disc(), 250, np.where(disc(14), 3, 0))
    assert np.array_equal(to_mask(grey(flat_noise), Path("m.png")).pixels, flat_noise)


def test_colours_and_alpha_that_draw_different_things_are_refused():
    image = Image.merge("LA", (grey(disc() * 255), grey(~disc() * 255)))
    with pytest.raises(
        DataError, match="m.png: its colours and its alpha channel both draw something, and not the same"
    ):
        to_mask(image, Path("m.png"))


def test_one_pixel_that_counts_cannot_be_scored():
    with pytest.raises(DataError, match="m.png: one pixel counts"):
        to_mask(grey([[255]]), Path("m.png"))
    with pytest.raises(DataError, match="m.png: no pixel counts: dataset.ignore=.0, 255. names all of them"):
        to_mask(grey([[255, 0]]), Path("m.png"), Reading(ignore=(0, 255)))


def test_only_a_mask_of_one_value_is_called_all_background(tmp_path):
    folders = folder_of(tmp_path, REFUSED["128"][0])
    with pytest.raises(DataError) as refusal:
        build(folders, foreground=[7])
    assert "every pixel that counts is background (values, [7] is object), though the file holds 0, 128" in str(
        refusal.value
    )
    grey(np.zeros(SHAPE)).save(folders[1] / "pair 001.png")
    with pytest.raises(DataError, match="pair 001.png: the whole mask is background, every pixel has the value 0. Rem"):
        build(folders, foreground=[128])


def test_nothing_is_trained_on_masks_without_objects(tmp_path):
    folders = folder_of(tmp_path, REFUSED["128"][0])
    with pytest.raises(DataError, match="none of the 5 training masks holds an object: there is nothing to learn"):
        build(folders, foreground=[7], single_value_masks="allow")


def test_how_masks_were_read_is_said_once_for_each_kind(tmp_path):
    data = build(folder_of(tmp_path, READ["0 and 1"]))
    assert data.notes == ("8 of 8 masks: 0 and 1, read as 0 and 255",)


def test_other_ground_truth_is_other_data(tmp_path):
    folders = folder_of(tmp_path, REFUSED["instances"][0])
    prints = {build(folders, foreground=what).fingerprint for what in ("nonzero", [1], [2])}
    assert len(prints) == 3


def test_many_files_with_one_fault_are_one_line(tmp_path):
    folders = folder_of(tmp_path, REFUSED["red"][0])
    with pytest.raises(DataError) as refusal:
        build(folders)
    assert len(refusal.value.errors) == 8
    (line,) = first_lines(refusal.value.errors)
    assert line.startswith(f"{folders[1]}: 8 files (pair 000.png, ")
    assert "pair 004.png and 3 more): holds colours #000000, #ff0000, and nothing says" in line
    several = [f"{n}.png: fault {n}" for n in range(30)]
    assert first_lines(several) == [*several[:20], "and 10 more lines"]
