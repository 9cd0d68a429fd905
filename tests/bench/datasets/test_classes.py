"""A class for every pixel, from masks through model and loss to the leaderboard; and what does not fit together."""

import numpy as np
import pytest
import torch
from pairs import write_pairs
from PIL import Image
from torch import nn

from bench.config.axes import Axis
from bench.config.errors import ConfigError
from bench.config.expand import expand
from bench.config.settings import TransformConfig
from bench.config.sweep import Sweep
from bench.config.trial import DATASETS
from bench.datasets import DataError, Split
from bench.leaderboard.results import Results, summarise
from bench.report import plots
from bench.report.tables import as_frame, markdown
from bench.scoring.evaluate import predict
from bench.scoring.metrics import CLASS_METRICS
from bench.trial import run_trial

CLASSES = {
    "model.num_classes": 8,
    "dataset.task": "materials",
    "train.loss": "cross_entropy",
    "transform.mask_resize": "nearest",
}
NEAREST = TransformConfig(size=16, mask_resize="nearest")


@pytest.fixture
def trial(tiny_with):
    return tiny_with(CLASSES)


def test_a_trial_of_classes_from_masks_to_scores(trial):
    record = run_trial(trial)
    assert record.status == "ok", record.error
    assert set(CLASS_METRICS) <= set(record.scores) and "s_measure" not in record.scores
    by_class = {m: v for m, v in record.scores.items() if m.startswith("class_iou_")}
    assert np.mean(list(by_class.values())) == pytest.approx(record.scores["mean_class_iou"])
    assert set(record.val_scores) >= set(CLASS_METRICS)
    assert set(record.image_scores) == {"name", "set", *CLASS_METRICS}
    assert record.image_scores["name"] == [f"materials-test-{i:04d}" for i in range(3)]


def test_classes_are_learnt(tiny_with):
    more = {"train.epochs": 8, "train.lr": 5e-3, "model.decoder.width": 32, "transform.size": 64}
    scenes = {"dataset.train": 32, "dataset.test": 8, "dataset.side": 64}
    record = run_trial(tiny_with({**CLASSES, **more, **scenes}))
    assert record.curve[-1].train_loss < 0.8 * record.curve[0].train_loss
    assert record.scores["pixel_accuracy"] > 2 / 8


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"model.num_classes": 1}, "model.num_classes: 1, but the masks of dataset procedural have 8"),
        ({"train.loss": "structure_loss"}, "train.loss: structure_loss is not for 8 classes. Set train.loss=cross_ent"),
        ({"transform.mask_resize": "bicubic"}, "transform.mask_resize: bicubic would mix classes"),
        ({"dataset.task": "salient"}, "model.num_classes: 8, but the masks of dataset procedural have 1"),
        ({"dataset.task": "salient", "model.num_classes": 1}, "train.loss: cross_entropy is not for object against"),
    ],
)
def test_what_does_not_agree_is_an_error_with_the_remedy(tiny_with, changes, expected):
    with pytest.raises(ConfigError) as error:
        tiny_with({**CLASSES, **changes})
    (line,) = error.value.lines
    assert expected in line


def test_everything_that_does_not_agree_is_said_at_once(tiny_with):
    with pytest.raises(ConfigError) as error:
        tiny_with({"dataset.task": "materials"})
    for remedy in ("Set model.num_classes=8", "Set train.loss=cross_entropy", "Set transform.mask_resize=nearest"):
        assert remedy in str(error.value)


class Fixed(nn.Module):
    def __init__(self, logits):
        super().__init__()
        self.logits = logits

    def forward(self, images):
        return (self.logits.expand(len(images), -1, -1, -1),)


def test_the_largest_logit_wins_at_the_masks_size():
    logits = torch.randn(1, 5, 8, 8)
    masks = np.zeros((3, 13, 21), np.uint8)
    images = np.zeros((3, 8, 8, 3), np.uint8)
    split = Split(images, np.zeros((3, 8, 8), np.uint8), np.arange(3), ("a", "b", "c"), lambda i: masks[i])
    out = list(predict(Fixed(logits), split, TransformConfig(size=8), torch.device("cpu"), 2))
    expected = nn.functional.interpolate(logits, size=(13, 21), mode="bilinear")[0].numpy().argmax(0)
    assert [name for name, _, _ in out] == ["a", "b", "c"]
    assert all(np.array_equal(answer, expected) and answer.dtype == np.uint8 for _, answer, _ in out)


def test_painted_materials_keep_their_numbers_when_resized():
    config = {"name": "procedural", "task": "materials", "train": 3, "val": 1, "test": 1, "side": 48}
    data = DATASETS.build(DATASETS.parse(config), TransformConfig(size=32, mask_resize="nearest"))
    assert set(np.unique(data.train.masks)) <= set(range(8)) and len(np.unique(data.train.masks)) > 2
    assert data.test.ground_truth(0).shape == (48, 48) and data.test.ground_truth(0).max() < 8


# --- folders ----------------------------------------------------------------------------------------------------------


def build(folders, classes):
    images, masks = map(str, folders)
    return DATASETS.build(
        DATASETS.parse({"name": "folder", "images": images, "masks": masks, "num_classes": classes}), NEAREST
    )


def write_classes(folder, kind="grey"):
    """Pairs whose masks hold classes 0 to 3 in quarters; returns the folders and one mask's classes."""
    images, masks = write_pairs(folder, 6)
    numbers = np.zeros((30, 40), np.uint8)
    numbers[:15, 20:], numbers[15:, :20], numbers[15:, 20:] = 1, 2, 3
    for path in masks.iterdir():
        image = Image.fromarray(numbers.astype(np.uint16) if kind == "16 bit" else numbers)
        if kind == "palette":
            image = Image.fromarray(numbers, mode="P")
            image.putpalette([200, 0, 0, 0, 200, 0, 0, 0, 200, 9, 9, 9])
        image.save(path)
    return (images, masks), numbers


@pytest.mark.parametrize("kind", ["grey", "palette", "16 bit"])
def test_folders_of_class_numbers(tmp_path, kind):
    folders, numbers = write_classes(tmp_path, kind)
    data = build(folders, 4)
    assert np.array_equal(data.test.ground_truth(0), numbers)
    small = np.asarray(Image.fromarray(numbers).resize((16, 16), Image.Resampling.NEAREST))
    assert all(np.array_equal(mask, small) for mask in data.train.masks)


def test_numbers_beyond_the_classes_name_file_and_value(tmp_path):
    folders, numbers = write_classes(tmp_path)
    spoilt = numbers.copy()
    spoilt[0, :2] = 7, 255
    Image.fromarray(spoilt).save(folders[1] / "pair 002.png")
    with pytest.raises(DataError) as error:
        build(folders, 4)
    (line,) = error.value.errors
    assert "pair 002.png: holds 7, 255, but dataset.num_classes=4 allows 0 to 3" in line


def test_colours_are_no_classes(tmp_path):
    folders, numbers = write_classes(tmp_path)
    Image.fromarray(numbers).convert("RGB").save(folders[1] / "pair 001.png")
    with pytest.raises(DataError, match="pair 001.png: is of mode RGB"):
        build(folders, 4)


def test_an_image_of_one_class_is_no_mistake(tmp_path):
    folders, numbers = write_classes(tmp_path)
    Image.fromarray(np.full_like(numbers, 2)).save(folders[1] / "pair 000.png")
    assert len(build(folders, 4).train) > 0


# --- leaderboard ------------------------------------------------------------------------------------------------------


def test_leaderboard_front_and_figure_go_by_the_mean_iou_of_the_classes(trial):
    sweep = Sweep("c", "Which?", "embedded", trial, (Axis.over("model.adapter.rank", {"1": 1, "4": 4}),), (0,))
    trials = expand(sweep)
    records = {t.trial_id: run_trial(t.config) for t in trials}
    board = summarise(Results(sweep, trials, records))
    (table,) = board.tables
    assert table.main_metric == "mean_class_iou" and any(row.on_front for row in table.rows)
    text = markdown(board)
    assert (
        "| mIoU ↑ | mDice ↑ | pixel acc ↑ | val mIoU ↑ |" in text
        and "Pareto front of mIoU" in text
        and "MAE" not in text
    )
    assert any(name.startswith("test.class_iou_") for name in as_frame(board))
    assert plots.memory_accuracy(board, table).axes[0].get_ylabel() == "mean IoU of the classes on the test split"
