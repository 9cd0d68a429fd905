"""Masks as data sets draw them: each is read for what it means, or refused with the values and the setting that decide.

The right scores of a perfect answer are 1, for whatever kind of mask, in trials and in ``bench.score`` alike.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import write_pairs
from PIL import Image
from torch.nn import functional as F

from bench import data, score
from bench.config.expand import expand
from bench.config.settings import LOSSES, ProtocolConfig, TrainConfig, TransformConfig
from bench.config.sweep import load_sweep
from bench.config.trial import DATASETS
from bench.datasets import IGNORED, DataError
from bench.datasets.core.masks import Reading, to_mask
from bench.datasets.core.transforms import resize_mask
from bench.scheduling.preflight import prepare_data
from bench.scoring.classes import score_classes
from bench.scoring.metrics import measure
from bench.system.wording import first_lines
from bench.training.loop import batch_loss

SHAPE = (40, 48)


def disc(radius=9):
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    return (x - 16) ** 2 + (y - 20) ** 2 < radius**2


def palette(numbers, colours):
    image = Image.fromarray(numbers.astype(np.uint8), mode="P")
    table = np.zeros((256, 3), np.uint8)
    for number, colour in colours.items():
        table[number] = colour
    image.putpalette(table.tobytes())
    return image


def grey(values):
    return Image.fromarray(np.asarray(values).astype(np.uint8))


def colours(red, green=0, blue=0):
    bands = [np.broadcast_to(band, SHAPE) for band in (red, green, blue)]
    return grey(np.stack(bands, axis=-1))


RIM = disc(10) & ~disc(8)
BODY = disc(8)
INSTANCES = np.where(disc(9), 1 + (np.mgrid[: SHAPE[0], : SHAPE[1]][1] > 16), 0)
VOC = {1: (128, 0, 0), 2: (0, 128, 0), 255: (224, 224, 192)}
READ = {  # kinds that can mean one thing only
    "0 and 255": lambda: grey(disc() * 255),
    "0 and 1": lambda: grey(disc()),
    "one bit": lambda: grey(disc() * 255).convert("1"),
    "palette of a class": lambda: palette(disc(), {1: (128, 0, 0)}),
    "grey palette": lambda: palette(disc(), {1: (255, 255, 255)}),
    "alpha": lambda: Image.merge("LA", (Image.new("L", SHAPE[::-1], 255), grey(disc() * 255))),
    "opaque": lambda: Image.merge("LA", (grey(disc() * 255), Image.new("L", SHAPE[::-1], 255))),
    "both the same": lambda: Image.merge("LA", (grey(disc() * 255), grey(disc() * 255))),
    "16 bits": lambda: Image.fromarray((disc() * 65535).astype(np.uint16)),
    "floats": lambda: Image.fromarray(disc().astype(np.float32)),
    "254 and 2": lambda: grey(np.where(disc(), 254, 2)),
    "200": lambda: grey(disc() * 200),
}
REFUSED = {  # and what settles it
    "2": (lambda: grey(disc() * 2), "holds grey levels 0, 2,", {"foreground": [2]}),
    "128": (lambda: grey(disc() * 128), "holds grey levels 0, 128,", {"foreground": "nonzero"}),
    "red": (lambda: colours(disc() * 255), "holds colours #000000, #ff0000,", {"foreground": [[255, 0, 0]]}),
    "blue": (lambda: colours(0, 0, disc() * 255), "holds colours #000000, #0000ff,", {"foreground": ["#0000FF"]}),
    "two colours": (
        lambda: colours(disc() * 255, np.eye(*SHAPE) * 255 * ~disc()),
        "holds colours #000000, #00ff00, #ff0000,",
        {"foreground": [[255, 0, 0]]},
    ),
    "VOC's rim": (
        lambda: palette(np.where(RIM, 255, BODY), VOC),
        "holds palette numbers 0 #000000, 1 #800000, 255 #e0e0c0,",
        {"foreground": [1], "ignore": [255]},
    ),
    "VOC's rim in grey": (
        lambda: grey(np.where(RIM, 255, BODY * 15)),
        "holds grey levels 0, 15, 255,",
        {"foreground": 15, "ignore": 255},
    ),
    "rim of a palette without body": (
        lambda: palette(np.where(RIM, 255, 0), VOC),
        "holds palette numbers 0 #000000, 255 #e0e0c0,",
        {"foreground": [255]},
    ),
    "trimap": (lambda: grey(np.where(RIM, 128, BODY * 255)), "grey levels 0, 128, 255,", {"ignore": [128]}),
    "instances": (
        lambda: palette(INSTANCES, VOC),
        "holds palette numbers 0 #000000, 1 #800000, 2 #008000,",
        {"foreground": "nonzero"},
    ),
    "instances in grey": (lambda: grey(INSTANCES * 38), "holds grey levels 0, 38, 76,", {"foreground": [38, 76]}),
    "inverted palette": (
        lambda: palette(~disc(), {0: (9, 0, 0), 1: (0, 90, 0)}),
        "holds palette numbers 0 #090000, 1 #005a00,",
        {"foreground": [[9, 0, 0]]},
    ),
}


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


# --- folders ----------------------------------------------------------------------------------------------------------


def folder_of(root, draw, suffix=".png"):
    """Eight pairs whose masks are all drawn alike; the folders."""
    images, masks = write_pairs(root, 8, size=SHAPE[::-1])
    for path in list(masks.iterdir()):
        path.unlink()
        draw().save(path.with_suffix(suffix))
    return images, masks


def build(folders, **settings):
    images, masks = map(str, folders)
    config = DATASETS.parse({"name": "folder", "images": images, "masks": masks, **settings})
    return DATASETS.build(config, TransformConfig(size=16))


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


# --- pixels that do not count -----------------------------------------------------------------------------------------


@pytest.fixture
def voc(tmp_path):
    return folder_of(tmp_path, REFUSED["VOC's rim"][0])


def test_ignored_pixels_travel_with_the_masks(voc):
    data = build(voc, foreground=[1], ignore=[255])
    assert data.train.masks.dtype == np.int16 and (data.train.masks == IGNORED).any()
    truth = data.test.ground_truth(0)
    assert np.array_equal(truth == IGNORED, RIM) and np.array_equal(truth > 128, BODY)


def test_resizing_does_not_soften_an_outline_by_the_pixels_beside_it_that_do_not_count():
    halves = np.zeros((20, 20), np.int16)
    halves[:, 8:] = 255
    halves[:, 8:12] = IGNORED
    small = resize_mask(halves, 10, "bicubic")
    assert set(np.unique(small)) == {IGNORED, 0, 255}
    assert (small[:, 4:6] == IGNORED).all() and (small[:, 6:] == 255).all()


@pytest.mark.parametrize("name", LOSSES.names())
def test_a_loss_does_not_depend_on_pixels_that_do_not_count(name):
    classes = LOSSES.module(name).FOR_CLASSES
    masks = torch.randint(0, 2, (2, 40, 40)) * (1 if classes else 255)
    ignored = torch.zeros(2, 40, 40, dtype=bool)
    ignored[0, 10:30, 5:20] = True
    masks = torch.where(ignored, IGNORED, masks).to(torch.int16)

    class Fixed(torch.nn.Module):
        def forward(self, images):
            return (logits,)

    logits = torch.randn(2, 2 if classes else 1, 40, 40, requires_grad=True)
    settings, transform = TrainConfig(loss=name), TransformConfig(size=40)
    images = torch.zeros(2, 40, 40, 3, dtype=torch.uint8)
    loss = batch_loss(Fixed(), images, masks, settings, transform)
    loss.backward()
    assert not logits.grad.masked_select(ignored.unsqueeze(1)).any()
    assert logits.grad.masked_select(~ignored.unsqueeze(1)).all()
    with torch.no_grad():
        logits.masked_fill_(ignored.unsqueeze(1), 77.0)
    assert torch.equal(batch_loss(Fixed(), images, masks, settings, transform), loss)


@pytest.mark.parametrize("name", [name for name in LOSSES.names() if not LOSSES.module(name).FOR_CLASSES])
def test_masks_of_which_all_pixels_count_have_the_same_loss_either_way(name):
    logits, masks = torch.randn(2, 1, 40, 40), (torch.rand(2, 1, 40, 40) > 0.5).float()
    loss = LOSSES.module(name).loss
    torch.testing.assert_close(loss(logits, masks, torch.ones_like(masks)), loss(logits, masks))
    cut = torch.ones_like(masks)
    cut[..., 20:] = 0
    if name == "bce_loss":
        half = F.binary_cross_entropy_with_logits(logits[..., :20], masks[..., :20])
        torch.testing.assert_close(loss(logits, masks, cut), half)


@pytest.mark.parametrize("protocol", ["sod", "mirror"])
def test_scores_do_not_depend_on_pixels_that_do_not_count(protocol):
    rng = np.random.default_rng(0)
    mask = np.where(RIM, IGNORED, BODY * 255).astype(np.int16)
    prediction = rng.integers(0, 256, SHAPE).astype(np.uint8)
    other = np.where(RIM, 255 - prediction, prediction).astype(np.uint8)
    settings = ProtocolConfig(name=protocol)
    for (key, first), second in zip(
        measure(prediction, mask, settings).items(), measure(other, mask, settings).values()
    ):
        assert np.array_equal(first, second), key


def test_scores_of_the_pixels_that_count_are_those_of_the_image_cut_down_to_them():
    """Rows that do not count leave the scores of the other rows, but for the 7 x 7 smoothing of the weighted F."""
    rng = np.random.default_rng(1)
    mask = (disc() * 255).astype(np.uint8)
    prediction = np.where(rng.random(SHAPE) < 0.8, mask, 255 - mask).astype(np.uint8)
    wide = np.vstack([mask, np.full((10, SHAPE[1]), 255)]).astype(np.int16)
    wide[SHAPE[0] :] = IGNORED
    with_more = measure(np.vstack([prediction, prediction[:10]]), wide, ProtocolConfig())
    for key, expected in measure(prediction, mask, ProtocolConfig()).items():
        if key != "weighted_f_measure":
            np.testing.assert_allclose(with_more[key], expected, rtol=1e-12, err_msg=key)


@pytest.mark.parametrize("protocol", ["sod", "mirror"])
def test_a_perfect_answer_scores_1_whatever_it_says_where_nothing_counts(protocol):
    mask = np.where(RIM, IGNORED, BODY * 255).astype(np.int16)
    for outside in (0, 77, 255):
        found = measure(np.where(RIM, outside, BODY * 255).astype(np.uint8), mask, ProtocolConfig(name=protocol))
        main = found["iou" if protocol == "mirror" else "s_measure"]
        assert main == pytest.approx(1) and found["mae"] == 0
        assert protocol == "mirror" or found["weighted_f_measure"] == pytest.approx(1)


def test_masks_of_which_all_that_counts_is_object_or_background_have_finite_scores():
    for value in (0, 255):
        mask = np.where(RIM, IGNORED, value).astype(np.int16)
        found = measure(np.full(SHAPE, value, np.uint8), mask, ProtocolConfig(minmax=False))
        assert found["s_measure"] == 1 and all(np.isfinite(v).all() for v in found.values())


def test_classes_leave_pixels_out_too(tmp_path):
    folders = folder_of(tmp_path, lambda: palette(np.where(RIM, 255, INSTANCES), VOC))
    with pytest.raises(
        DataError, match=r"holds 255, but dataset.num_classes=3 allows 0 to 2. To leave pixels out: data"
    ):
        build(folders, num_classes=3)
    truth = build(folders, num_classes=3, ignore=[255]).test.ground_truth(0)
    assert np.array_equal(truth == IGNORED, RIM) and set(np.unique(truth)) == {IGNORED, 0, 1, 2}
    answer = np.where(RIM, 1, truth).astype(np.uint8)
    assert score_classes([("a", answer, truth)], 3).overall["mean_class_iou"] == 1


def test_classes_by_colour(tmp_path):
    folders = folder_of(tmp_path, lambda: colours((INSTANCES == 1) * 255, (INSTANCES == 2) * 255))
    named = {"#000000": 0, "#ff0000": 2, "#00ff00": 1}
    truth = build(folders, num_classes=3, classes=named).test.ground_truth(0)
    assert np.array_equal(truth, np.array([0, 2, 1])[INSTANCES])
    with pytest.raises(DataError, match="holds #00ff00, which dataset.classes and dataset.ignore do not name"):
        build(folders, num_classes=3, classes={"#000000": 0, "#ff0000": 2})


# --- the same through every command -----------------------------------------------------------------------------------

SWEEP = """
name: mine
question: Are they read?
base:
  model: {name: unet, width: 4}
  dataset: {name: folder, images: images, masks: masks}
  transform: {size: 16}
  train: {epochs: 1, batch_size: 2}
  device: cpu
axes: {train.epochs: [1]}
seeds: [0]
"""


@pytest.mark.parametrize("kind", [*READ, *REFUSED])
def test_trials_scores_and_checks_agree(tmp_path, monkeypatch, capsys, kind):
    """A perfect answer scores 1 in ``bench.score`` where a trial and ``bench.data`` take the masks; else all refuse."""
    draw, _, settings = REFUSED[kind] if kind in REFUSED else (READ[kind], "", {})
    monkeypatch.chdir(tmp_path)
    _, masks = folder_of(tmp_path, draw, suffix=".tif" if kind == "floats" else ".png")
    Path("maps").mkdir()
    right = (RIM if kind == "rim of a palette without body" else disc()) * 255
    for path in masks.iterdir():
        grey(right).save(Path("maps", f"{path.stem}.png"))
    Path("sweep.yaml").write_text(SWEEP)

    def outcomes(settings):
        """Whether a trial's data, ``bench.data check`` and ``bench.score`` take the masks, and the score."""
        overrides = [f"dataset.{field}={json.dumps(value)}" for field, value in settings.items()]
        flags = [text for field, value in settings.items() for text in (f"--{field}", json.dumps(value))]
        try:
            prepare_data(expand(load_sweep(Path("sweep.yaml"), None, overrides)))
            trial = True
        except Exception as error:
            assert "nothing says which of them is the object" in str(error)
            trial = False
        checked = data.main(["check", ".", *flags]) == 0
        scored = score.main(["--pred", "maps", "--gt", "masks", "--name", "m", "--jobs", "1", *flags]) == 0
        found = json.loads(Path("results/external/m.json").read_text())["scores"] if scored else None
        return trial, checked, scored, found and found["s_measure"]

    if kind in REFUSED:
        assert outcomes({}) == (False, False, False, None)
    *taken, value = outcomes(settings)
    assert taken == [True, True, True]
    assert value == pytest.approx(1, abs=1e-9)


def test_levels_that_are_almost_white_are_noted_for_the_mirror_protocol(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    folder_of(tmp_path, READ["254 and 2"])
    Path("sweep.yaml").write_text(SWEEP)
    trials = {
        name: expand(load_sweep(Path("sweep.yaml"), None, [f"protocol.name={name}"])) for name in ("mirror", "sod")
    }
    (note,) = [line for line in prepare_data(trials["mirror"]) if "mirror" in line]
    assert note.startswith("2 masks of test hold levels from 129 to 254, background for the mirror protocol: pair 00")
    assert not any("mirror" in line for line in prepare_data(trials["sod"]))
    score.main(["--pred", "masks", "--gt", "masks", "--protocol", "mirror", "--name", "m", "--jobs", "1"])
    assert (
        "8 masks hold levels from 129 to 254, which are background for the mirror protocol" in capsys.readouterr().out
    )
