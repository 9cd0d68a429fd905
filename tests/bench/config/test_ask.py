"""The planned question of a sweep file: what may be asked, the default, and its place in files."""

import json
import math

import pytest
from small_sweep import GOOD, errors, loader  # noqa: F401

from bench.config.ask import AskConfig, default_ask, scale, with_whole_size
from bench.config.axes import Axis
from bench.config.expand import expand
from bench.records import sweep_json

RANKS = GOOD.replace("[4, 8]", "[4, 8, 32]")
PARTS = GOOD.replace(
    "model.adapter.rank: [4, 8]",
    "model.adapter: {LoRA: {name: lora, rank: 4, alpha: 4}, Mona: {name: mona}, none: {name: bottleneck, rank: 4}}",
)
BLOCKS = GOOD.replace("model.adapter.rank: [4, 8]", 'model.tuned_blocks: [none, "last:1", all]')
TWO_AXES = GOOD.replace("axes:\n", "axes:\n  model.decoder.width: [8, 16]\n")
RANGE = GOOD.replace("model.adapter.rank: [4, 8]", "train.lr: {low: 1e-4, high: 1e-2, log: true}")
RANGE += "search: {name: random, points: 5}\n"
VARIANTS = GOOD.replace(
    "axes:\n  model.adapter.rank: [4, 8]", "variants: {paper: {}, wide, no TF32: {train.tf32: false}}"
)
VARIANTS = VARIANTS.replace("wide, no TF32", "'wide, no TF32'")


def test_a_trend_is_planned_where_one_axis_lists_three_numbers(sweep):
    assert sweep(RANKS).ask == AskConfig(name="trend", margin=0.01)
    for text in (GOOD, PARTS, BLOCKS, TWO_AXES, RANGE, VARIANTS):
        assert sweep(text).ask == AskConfig(name="best"), text


@pytest.mark.parametrize(
    ("text", "setting", "expected"),
    [
        (RANKS, "ask: best", AskConfig(name="best")),
        (RANKS, "ask: {reference: 8}", AskConfig(name="reference", reference="8")),
        (RANKS, "ask: trend\nmargin: 1", AskConfig(name="trend", margin=1.0)),
        (RANKS, "margin: 0.005", AskConfig(name="trend", margin=0.005)),
        (BLOCKS, "ask: trend", AskConfig(name="trend")),
        (RANGE, "ask: trend", AskConfig(name="trend")),
        (PARTS, "ask: {reference: Mona}", AskConfig(name="reference", reference="Mona")),
        (VARIANTS, "ask: {reference: paper}", AskConfig(name="reference", reference="paper")),
        (TWO_AXES, "ask: {reference: '16, 4'}", AskConfig(name="reference", reference="16, 4")),
    ],
)
def test_questions(sweep, text, setting, expected):
    assert sweep(text + setting).ask == expected


def test_overrides(sweep):
    assert sweep(RANKS, "ask=best", "margin=0.02").ask == AskConfig(name="best", margin=0.02)
    assert sweep(RANKS, "ask={reference: 32}").ask == AskConfig(name="reference", reference="32")
    assert sweep(GOOD, "ask=trend", "model.adapter.rank=[1,2,4]").ask == AskConfig(name="trend")
    assert sweep(RANKS, "ask.reference=32", "ask.margin=0.02").ask == AskConfig(
        name="reference", reference="32", margin=0.02
    )


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["ask.referenc=4"], "ask.referenc: no such setting. Give ask=trend, ask=best, ask.reference=LABEL, or margin"),
        (["ask.reference=5"], "ask.reference: no row '5'. Rows: 4, 8, 32"),
        (["ask.reference=4", "ask=best"], "'ask.reference=4' and 'ask=best' set the same field"),
        (["ask.margin=0.1", "margin=0.1"], "'ask.margin=0.1' and 'margin=0.1' set the same field"),
        (["ask.margin=0"], "margin: a number from 1e-06 to 1 is needed"),
    ],
)
def test_mistakes_in_parts_of_the_question(sweep, overrides, expected):
    assert expected in errors(sweep, RANKS, *overrides)


@pytest.mark.parametrize(
    ("text", "setting", "expected"),
    [
        (
            GOOD,
            "ask: tend",
            "ask: 'tend' is no question. Did you mean 'trend'? Allowed: trend, best, {reference: LABEL}",
        ),
        (GOOD, "ask: [trend]", "ask: ['trend'] is no question. Allowed"),
        (GOOD, "ask: {reference: 4, margin: 1}", "is no question. margin is a setting of its own"),
        (GOOD, "ask: reference", "ask: 'reference' is no question without the label of a row. Allowed"),
        (
            GOOD,
            "ask: trend",
            "ask: a trend needs at least 3 values (model.adapter.rank has 2). Allowed besides: ask: best",
        ),
        (TWO_AXES, "ask: trend", "exactly one axis (got 2: model.decoder.width, model.adapter.rank)"),
        (
            PARTS,
            "ask: trend",
            "an axis of positive numbers, or values that are listed in their order (model.adapter has",
        ),
        (VARIANTS, "ask: trend\n", "a trend needs at least 3 values (variant has 2)"),
        (PARTS, "ask: {reference: mona}", "ask.reference: no row 'mona'. Did you mean 'Mona'? Rows: LoRA, Mona, none"),
        (GOOD, "ask: {reference: 16}", "ask.reference: no row '16'. Rows: 4, 8"),
        (TWO_AXES, "ask: {reference: '4, 16'}", "Rows: 8, 4, 8, 8, 16, 4, 16, 8"),
        (RANGE, "ask: {reference: 0.001}", "ask.reference: train.lr is a range, so rows are not known before the run"),
        (GOOD, "margin: 0", "margin: a number from 1e-06 to 1 is needed, as in 0.01 (got 0)"),
        (GOOD, "margin: -1", "margin: a number from 1e-06 to 1 is needed"),
        (GOOD, "margin: .nan", "margin: a number from 1e-06 to 1 is needed"),
        (GOOD, "margin: wide", "margin: a number from 1e-06 to 1 is needed, as in 0.01 (got 'wide')"),
        (GOOD, "margin: 1e+308", "margin: a number from 1e-06 to 1 is needed"),
        (GOOD, "margin: 1e-320", "margin: a number from 1e-06 to 1 is needed"),
        (GOOD, "margin: true", "margin: a number from 1e-06 to 1 is needed"),
    ],
)
def test_mistakes(sweep, text, setting, expected):
    assert expected in errors(sweep, text + setting)
    assert expected in errors(sweep, text, *(line.replace(": ", "=", 1) for line in setting.splitlines()))


def test_mistakes_are_reported_together(sweep):
    found = errors(sweep, PARTS + "ask: trend\nmargin: 0\n", "train.lr=-1")
    assert "train.lr" in found
    found = errors(sweep, PARTS + "ask: trend\nmargin: 0\ntrack: [nothing]\n")
    assert "ask: a trend" in found and "margin: a number from" in found and "track" in found


def test_scales():
    def axis(*values):
        return Axis.over("a", {str(value): value for value in values})

    assert scale(axis(8, 1, 2.0)) == ("doubling", {"8": 3, "1": 0, "2.0": 1})
    assert scale(axis(0, 1, 4)) == ("step", {"0": 0, "1": 1, "4": 2})
    assert scale(axis(4, 0, -1)) == ("step", {"4": 0, "0": 1, "-1": 2})
    assert scale(axis(0, 4, 1)) is None  # in no order
    assert scale(axis("none", "last:2", "all")).unit == "step"
    assert scale(axis(True, False)) is None and scale(axis({}, {"a": 1})) is None and scale(axis(1, "all")) is None
    assert default_ask([axis(1, 2, 4)]).name == "trend" and default_ask([axis(0, 2, 4)]).name == "best"


def test_all_training_images_have_a_place_once_their_number_is_known():
    def axis(*values):
        return Axis.over("dataset.train_images", {str(value): value for value in values})

    for whole in ("all", None):
        found = scale(axis(8, 16, whole))
        assert found.unit == "doubling" and math.isnan(found.place(str(whole)))
        known = scale(with_whole_size(axis(8, 16, whole), 64))
        assert known.places == {"8": 3, "16": 4, str(whole): 6}
    assert default_ask([axis(8, 16, "all")]).name == "trend" and scale(axis("all")) is None
    assert with_whole_size(axis(8, "all"), None) == axis(8, "all")


def test_a_question_is_well_formed():
    for wrong in ({"name": "reference"}, {"name": "trend", "reference": "8"}, {"margin": 0}):
        with pytest.raises(ValueError):
            AskConfig.model_validate(wrong)


def test_trials_stay_what_they_are(sweep):
    ids = {t.trial_id for t in expand(sweep(RANKS))}
    assert ids == {t.trial_id for t in expand(sweep(RANKS, "ask={reference: 8}", "margin=0.5"))}


def test_the_manifest_keeps_the_question(sweep, tmp_path):
    asked = sweep(RANKS, "ask={reference: 8}", "margin=0.5")
    trials = expand(asked)
    sweep_json.of(asked, trials).save(tmp_path)
    manifest, problem = sweep_json.load(tmp_path)
    assert not problem and sweep_json.understand(manifest, {})[0].ask == asked.ask


def test_older_manifests_have_the_default_question(sweep, tmp_path):
    path = sweep_json.of(sweep(RANKS), expand(sweep(RANKS))).save(tmp_path)
    raw = json.loads(path.read_text())
    assert raw.pop("ask") == {"name": "trend", "reference": None, "margin": 0.01}
    path.write_text(json.dumps(raw))
    manifest, problem = sweep_json.load(tmp_path)
    assert not problem and manifest.ask is None
    assert sweep_json.understand(manifest, {})[0].ask == AskConfig(name="trend")
