"""Trial ids stay what they are when the configuration grows: the rule for later fields, and all recorded examples."""

import json

import pytest
from conftest import REPOSITORY

from bench.config import paths
from bench.config.axes import Axis
from bench.config.errors import ConfigError
from bench.config.expand import Trial, expand
from bench.config.sweep import Sweep
from bench.config.trial import LATER, Later, TrialConfig, recorded, with_value
from bench.leaderboard import results
from bench.records import sweep_json
from bench.records.record import MANIFEST, TrialRecord
from bench.records.store import load as load_record
from bench.training import trained_weights
from bench.trial import run_trial

FULL = {"model": "sam3_unet", "dataset": "duts"}
RECORDS = sorted(path for path in (REPOSITORY / "results" / "examples").rglob("*.json") if path.name != MANIFEST)


def test_every_recorded_trial_still_has_the_id_that_it_was_recorded_with():
    assert len(RECORDS) >= 176
    wrong = [path for path in RECORDS if sweep_json.parse(load_record(path).config).trial_id != path.stem]
    assert wrong == []


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        # as they were when the suite did not set TF32
        ({"train.tf32": False}, "06ae67b2d21f"),
        ({"device": "cpu"}, "e058fed5f88a"),
        ({"device": "cpu", "train.tf32": True}, "e058fed5f88a"),
        ({"device": "cpu", "train.tf32": False}, "e058fed5f88a"),
        # with TF32 a card computes something else
        ({}, "b95c50254d5b"),
        ({"train.tf32": True}, "b95c50254d5b"),
    ],
)
def test_tf32_makes_another_trial_only_where_it_changes_the_arithmetic(changes, expected):
    assert with_value(TrialConfig.model_validate(FULL), changes).trial_id == expected


def test_two_points_that_differ_in_what_a_cpu_does_not_have_are_refused(tiny):
    axis = Axis.over("train.tf32", {"yes": True, "no": False})
    with pytest.raises(ConfigError, match="yes and no are the same configuration"):
        expand(Sweep("s", "?", "default", tiny, (axis,), (0,)))
    on_card = with_value(tiny, {"device": "cuda"})
    assert len({trial.trial_id for trial in expand(Sweep("s", "?", "default", on_card, (axis,), (0,)))}) == 2


def as_of_old(config: TrialConfig) -> dict:
    """The configuration as records had it before ``LATER``."""
    raw = config.model_dump(mode="json")
    for field in LATER:
        paths.parent(raw, field.path).pop(field.name, None)
    return raw


def test_an_old_record_of_a_card_ran_without_tf32_and_says_so(tiny_with, tmp_path):
    old = as_of_old(tiny_with({"device": "cuda"}))
    assert "tf32" not in old["train"]
    found = recorded(json.dumps(old))
    assert found.train.tf32 is False and found == tiny_with({"device": "cuda", "train.tf32": False})
    record = TrialRecord(trial_id=found.trial_id, status="oom", config=old)
    record.save(tmp_path)
    sweep = Sweep("s", "?", "default", found, (Axis.over("model.adapter.rank", {"4": 4}),), (0,))
    sweep_json.of(sweep, [Trial(found, ("4",))]).save(tmp_path)
    (trial,) = results.load(tmp_path)[0].trials
    assert trial.trial_id == found.trial_id and trial.config.train.tf32 is False


def test_an_old_record_of_a_cpu_differs_in_nothing_from_a_new_one(tiny, tmp_path):
    """So that merged tables have no axis of a field without effect."""
    assert recorded(json.dumps(as_of_old(tiny))) == tiny
    assert recorded(tiny.model_dump_json()) == tiny


def test_a_manifest_of_old_is_read_like_its_records(tiny_with, tmp_path):
    base = tiny_with({"device": "cuda", "train.tf32": False})
    sweep = Sweep("s", "?", "default", base, (Axis.over("model.adapter.rank", {"2": 2, "4": 4}),), (0,))
    trials = expand(sweep)
    raw = json.loads(sweep_json.of(sweep, trials).model_dump_json())
    assert raw["base"]["train"].pop("tf32") is False and not any("tf32" in each["changes"] for each in raw["trials"])
    (tmp_path / MANIFEST).write_text(json.dumps(raw))
    loaded, notes = results.load(tmp_path)
    assert notes == [] and loaded.sweep.base == base
    assert [trial.config for trial in loaded.trials] == [trial.config for trial in trials]


def test_weights_of_old_come_back_with_the_configuration_that_they_were_trained_with(monkeypatch, tiny, tmp_path):
    record = run_trial(tiny)
    record.save(tmp_path)
    metadata, tensors = trained_weights._read(tmp_path / f"{tiny.trial_id}.safetensors")
    old = json.dumps(as_of_old(with_value(tiny, {"device": "cuda"})))
    monkeypatch.setattr(trained_weights, "_read", lambda path: ({**metadata, "config": old}, tensors))
    assert trained_weights.load(tmp_path / "any")[0].train.tf32 is False


class Warmed(TrialConfig):
    """What the configuration would be with one more field."""

    warmup: int = 0


@pytest.fixture
def warmed(tiny_with, monkeypatch):
    """``tiny`` with the field ``warmup``, which was added later; 0 is what trials did before."""
    monkeypatch.setattr(
        "bench.config.trial.LATER", (*LATER, Later("warmup", before=0, idle=lambda c: c.train.epochs == 1))
    )
    return lambda warmup, epochs=3: Warmed.model_validate(
        {**tiny_with({"train.epochs": epochs}).model_dump(), "warmup": warmup}
    )


def test_this_is_how_a_field_is_added(warmed, tiny_with):
    before = tiny_with({"train.epochs": 3}).trial_id
    assert warmed(0).trial_id == before, "the value that means what was done before does not enter the id"
    assert len({before, warmed(1).trial_id, warmed(2).trial_id}) == 3, "any other value does"
    assert warmed(5, epochs=1).trial_id == tiny_with({}).trial_id, "none does where the field changes nothing"


def test_a_field_of_a_part_that_a_configuration_does_not_have_is_no_matter(tiny, monkeypatch):
    before = tiny.trial_id
    monkeypatch.setattr(
        "bench.config.trial.LATER", (*LATER, Later("dataset.no_such_field", None), Later("model.no.such", 1))
    )
    again = TrialConfig.model_validate(tiny.model_dump())
    assert again.trial_id == before and recorded(tiny.model_dump_json()) == tiny


def test_every_later_field_is_one_and_its_default_is_valid():
    """A path that names no field, after a renaming say, would silently do nothing."""
    folder = {"name": "folder", "images": "images", "masks": "masks"}
    known = [TrialConfig.model_validate({**FULL, "dataset": dataset}) for dataset in ("duts", "procedural", folder)]
    for field in LATER:
        having = [sweep for sweep in known if field.name in paths.parent(sweep.model_dump(mode="json"), field.path)]
        assert having, field.path
        assert with_value(having[0], {field.path: field.before})
