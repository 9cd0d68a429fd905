"""Axes whose values set other fields, too: ``{values: [...], with: {path: [...]}}``."""

import pytest
from small_sweep import GOOD, errors, loader  # noqa: F401

from bench.config.expand import expand
from bench.records import sweep_json

AXIS = "{values: [64, 128, all], with: {train.epochs: [16, 8, 4], train.validate_every: [4, 2, 1]}}"
COUPLED = GOOD.replace("model.adapter.rank: [4, 8]", f"dataset.train_images: {AXIS}")


def with_axis(text):
    return GOOD.replace("model.adapter.rank: [4, 8]", text)


def test_every_value_comes_with_its_values_of_the_other_fields(sweep):
    found = sweep(COUPLED)
    (axis,) = found.axes
    assert axis.name == "dataset.train_images" and [label for label, _ in axis.points] == ["64", "128", "all"]
    configs = [trial.config for trial in expand(found) if trial.seed == 0]
    set_to = [(c.dataset.train_images, c.train.epochs, c.train.validate_every) for c in configs]
    assert set_to == [(64, 16, 4), (128, 8, 2), (None, 4, 1)]
    assert sweep_json.understand(sweep_json.of(found, expand(found)), {})[0].axes == found.axes


@pytest.mark.parametrize(
    ("axis", "expected"),
    [
        (
            "train.lr: {values: [1, 2], with: {train.epochs: [1]}}",
            "train.epochs: needs 2 values, one for each of the axis (got 1)",
        ),
        ("train.lr: {values: [1, 2], with: {train.epochs: 3}}", "needs a list with a value for each value of the axis"),
        ("train.lr: {values: [1, 2], with: {}}", "axes.train.lr.with: needs a mapping of fields to lists"),
        ("train.lr: {values: [1, 2], with: [3, 4]}", "axes.train.lr.with: needs a mapping of fields to lists"),
        ("train.lr: {values: [1, 2], with: {train.lr: [1, 2]}}", "train.lr is the axis itself"),
        ("train.lr: {values: [1, 2], with: {1: [1, 2]}}", "axes.train.lr.with: 1 is no field. Give a dotted path"),
        (
            "train.lr: {values: [1, 2], with: {train: [{lr: 3}, {lr: 4}]}}",
            "axes.train.lr.with: train and train.lr set the same field",
        ),
        (
            "train.lr: {values: [1, 2], with: {train.loss: [bce_loss, bce_loss], train: [{}, {}]}}",
            "axes.train.lr.with: train and train.lr set the same field",
        ),
        ("train.lr: {values: [1, 2]}", "axes.train.lr: the values of an axis and those of other fields are {values:"),
        ("train.lr: {values: [1, 2], with: {train.epochs: [1, 2]}, also: 3}", "(got ['values', 'with', 'also'])"),
        ("train.lr: {values: [1, 2], with: {train.epoch: [1, 2]}}", "train.epoch: no field 'epoch'. Did you mean"),
        ("train.lr: {values: [1, 2], with: {train.epochs: [1, a]}}", "train.epochs: should be a valid integer"),
        ("train.lr: {values: {low: 1, high: 2, log: true}, with: {train.epochs: [1]}}", "a range has no list"),
        ("train.lr: {values: 3, with: {train.epochs: [1]}}", "axes.train.lr: needs a list of values"),
        (
            "train.lr: {values: [1, 2], with: {train.epochs: [1, 2]}}\n  train.epochs: [1, 2]",
            "the same field is set by axis 'train.lr'",
        ),
    ],
)
def test_mistakes_of_coupled_fields_are_named(sweep, axis, expected):
    assert expected in errors(sweep, with_axis(axis))


def test_an_override_of_half_of_a_coupled_axis_is_refused(sweep):
    found = errors(sweep, COUPLED, "dataset.train_images=[8, 16]")
    assert "its values belong to those of train.epochs, train.validate_every. Give theirs, too, as in" in found
    whole = "dataset.train_images={values: [8, 16], with: {train.epochs: [2, 1]}}"
    assert [trial.config.train.epochs for trial in expand(sweep(COUPLED, whole))] == [2, 2, 1, 1]


def test_an_override_that_the_axis_would_undo_is_refused(sweep):
    expected = "train.epochs: the axis dataset.train_images sets it at each of its values. Change the axis instead"
    assert expected in errors(sweep, COUPLED, "train.epochs=1")
    assert sweep(COUPLED, "train.batch_size=4").base.train.batch_size == 4


def test_values_that_are_wrong_bring_no_second_error_about_coupled_lists(sweep):
    text = errors(sweep, with_axis("train.lr: {values: [1, 1], with: {train.epochs: [1, 2]}}"))
    assert "axes.train.lr: has a value twice" in text and "with" not in text


@pytest.mark.parametrize("other", ["train.epochs=3", "train={epochs: 3}"])
def test_a_coupled_field_is_not_overridden_in_vain(sweep, other):
    expected = "train.epochs: the axis dataset.train_images sets it at each of its values. Change the axis instead"
    axis = "dataset.train_images={values: [64, 128], with: {train.epochs: [2, 1]}}"
    assert expected in errors(sweep, COUPLED, other)
    assert expected in errors(sweep, with_axis("dataset.train_images: [64, 128]"), axis, other)
