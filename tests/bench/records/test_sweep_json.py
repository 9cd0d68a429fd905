"""``sweep.json``: a sweep comes back from disk as it was, and a folder without it is refused."""

import json
import shutil

import pytest
from conftest import SWEEP
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench import plan, run
from bench.config.axes import Axis, label
from bench.config.errors import ConfigError
from bench.config.expand import expand
from bench.config.paths import changes, varied
from bench.config.sweep import Sweep, folder_name, load_sweep
from bench.leaderboard import results
from bench.records import sweep_json
from bench.records.record import MANIFEST, TrialRecord
from bench.records.store import load_all
from bench.records.sweep_json import understand
from models.core.registry import Missing


@pytest.fixture
def sweep(tiny):
    ranks = Axis.over("model.adapter.rank", {"2": 2, "wide": 8})
    kinds = Axis("variant", (("plain", {}), ("linear", {"model.decoder": {"name": "linear"}, "train.epochs": 2})))
    return Sweep("mine", "How?", "embedded", tiny, (ranks, kinds), (0, 3))


def records_of(trials):
    return {
        t.trial_id: TrialRecord(trial_id=t.trial_id, status="oom", config=t.config.model_dump(mode="json"))
        for t in trials
    }


def test_a_sweep_comes_back_as_it_was_without_a_single_record(sweep, tmp_path):
    trials = expand(sweep)
    absent = {trials[0].trial_id: [Missing("data", "dataset", "not there", "get it")]}
    sweep_json.of(sweep, trials, absent).save(tmp_path)
    again, found, notes = understand(sweep_json.load(tmp_path)[0], {})
    assert notes == [] and (again.name, again.question, again.seeds) == ("mine", "How?", (0, 3))
    assert [axis.name for axis in again.axes] == ["model.adapter.rank", "variant"]
    assert [(t.trial_id, t.point, t.config) for t in found] == [(t.trial_id, t.point, t.config) for t in trials]
    loaded, _ = results.load(tmp_path)
    assert loaded.absent == absent and loaded.board().tables[0].rows[0].statuses == ("missing", "pending")


def test_the_manifest_is_no_record(sweep, tmp_path):
    sweep_json.of(sweep, expand(sweep)).save(tmp_path)
    assert load_all(tmp_path) == ({}, [])


def test_a_trial_keeps_the_id_that_it_was_recorded_with(sweep, tmp_path):
    trials = expand(sweep)
    text = sweep_json.of(sweep, trials).model_dump_json().replace(trials[0].trial_id, "0" * 12)
    (tmp_path / MANIFEST).write_text(text)
    record = records_of(trials[:1])[trials[0].trial_id].model_copy(update={"trial_id": "0" * 12})
    record.save(tmp_path)
    assert results.load(tmp_path)[0].board().tables[0].rows[0].statuses == ("oom", "pending")


def test_a_folder_without_a_manifest_is_refused_with_the_remedy(sweep, tmp_path):
    for record in records_of(expand(sweep)).values():
        record.save(tmp_path)
    with pytest.raises(ConfigError) as refused:
        results.load(tmp_path)
    (line,) = refused.value.lines
    assert line == (
        f"{tmp_path}: holds 8 records, but no sweep.json, which says what the sweep varies. Run the sweep again with the "
        "same command: it keeps the records and writes the file"
    )


def test_fields_that_only_some_kinds_have_are_axes_with_gaps():
    configs = [
        {"adapter": {"name": "lora", "rank": 4}},
        {"adapter": {"name": "lora", "rank": 8}},
        {"adapter": {"name": "ia3"}},
    ]
    assert list(varied(configs)) == ["adapter", "adapter.rank"]
    assert [label(config, "adapter.rank") for config in configs] == ["4", "8", "–"]


def test_what_this_version_cannot_read_is_one_line_and_the_rest_is_shown(sweep, tmp_path):
    trials = expand(sweep)
    records = records_of(trials)
    odd = records[trials[1].trial_id]
    config = json.loads(json.dumps(odd.config))
    config["train"]["momentum_of_tomorrow"] = 1
    records[trials[1].trial_id] = odd.model_copy(update={"config": config})
    _, found, remarks = understand(sweep_json.of(sweep, trials), records)
    assert len(found) == len(trials) - 1
    assert len(remarks) == 1 and trials[1].trial_id in remarks[0] and "momentum_of_tomorrow" in remarks[0]
    with pytest.raises(ConfigError, match="momentum_of_tomorrow"):
        understand(sweep_json.of(sweep, trials[1:2]), records)


def test_a_manifest_that_cannot_be_read_is_refused_with_the_remedy(sweep, tmp_path):
    for record in records_of(expand(sweep)).values():
        record.save(tmp_path)
    for text in ("{", "[]", ""):
        (tmp_path / MANIFEST).write_text(text)
        with pytest.raises(ConfigError, match=r"sweep\.json: cannot be read \(.*\)\. Run the sweep again"):
            results.load(tmp_path)
    (tmp_path / MANIFEST).write_text('{"schema_version": 2}')
    with pytest.raises(ConfigError, match=r"sweep\.json: written by a newer version of the suite .* update the suite"):
        results.load(tmp_path)


def test_a_manifest_that_is_no_json_says_so_and_names_the_file_alone(tmp_path):
    (tmp_path / MANIFEST).write_text("{")
    _, problem = sweep_json.load(tmp_path)
    expected = f"{tmp_path / MANIFEST}: cannot be read (no JSON, EOF while parsing an object at line 1 column 1). Run"
    assert problem.startswith(expected)
    (tmp_path / MANIFEST).write_text('{"name": 3}')
    _, problem = sweep_json.load(tmp_path)
    assert "(name: should be a valid string (got 3); and " in problem and " more). Run the sweep again" in problem


def test_records_of_other_settings_are_counted_and_left_out(sweep, tmp_path):
    trials = expand(sweep)
    sweep_json.of(sweep, trials[:2]).save(tmp_path)
    for record in records_of(trials).values():
        record.save(tmp_path)
    loaded, notes = results.load(tmp_path)
    assert len(loaded.records) == 2 and "6 records belong to other settings" in notes[0]


def test_a_record_whose_configuration_cannot_be_read_is_not_of_other_settings(sweep, tmp_path):
    trials = expand(sweep)
    sweep_json.of(sweep, trials).save(tmp_path)
    for trial, record in zip(trials, records_of(trials).values()):
        record.model_copy(update={"config": {}} if trial is trials[0] else {}).save(tmp_path)
    loaded, notes = results.load(tmp_path)
    assert notes == [] and loaded.remarks[0].startswith(f"trial {trials[0].trial_id} is left out: this version cannot")


def test_many_records_with_one_fault_are_one_line_and_many_faults_are_cut(sweep, tmp_path):
    trials = expand(sweep)
    sweep_json.of(sweep, trials).save(tmp_path)
    for number in range(60):
        (tmp_path / f"same{number:02d}.json").write_text("{")
        other = TrialRecord(trial_id=f"of-{number}", status="oom", config={})
        (tmp_path / f"x{number:02d}.json").write_text(other.model_dump_json(include={"trial_id", "status", "config"}))
    _, notes = results.load(tmp_path)
    assert notes[0].startswith(f"{tmp_path}: 60 files (same00.json, ") and "not a readable record (no JSON" in notes[0]
    assert len(notes) == 21 and notes[-1] == "and 41 more lines"


def test_the_folders_name_does_not_matter(sweep, tmp_path):
    trials = expand(sweep)
    sweep_json.of(sweep, trials).save(tmp_path)
    shutil.copytree(tmp_path, tmp_path / "copy")
    assert results.load(tmp_path)[0].board() == results.load(tmp_path / "copy")[0].board()


def test_nothing_to_show_is_a_clear_line(tmp_path):
    with pytest.raises(ConfigError, match="holds no records and no sweep.json"):
        results.load(tmp_path)
    with pytest.raises(ConfigError, match="no such folder"):
        results.load(tmp_path / "nowhere")


leaves = st.one_of(st.integers(), st.text(max_size=3), st.none(), st.lists(st.integers(), max_size=2))
trees = st.recursive(leaves, lambda inner: st.dictionaries(st.sampled_from("abcn."), inner, max_size=3), max_leaves=8)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from("abc"), trees), st.dictionaries(st.sampled_from("abc"), trees))
def test_changes_lead_from_one_configuration_to_the_other(base, other):
    merged = {**base, **other}
    assert sweep_json._changed(base, changes(base, merged)) == merged


def test_two_sweeps_that_share_a_folders_name_do_not_mix(sweep, tmp_path, monkeypatch, capsys):
    """Sweep ``a`` with profile ``b`` and sweep ``a-b`` have one folder; a sweep with other settings keeps its own."""
    monkeypatch.chdir(tmp_path)
    text = SWEEP.format(axis="model.adapter.rank: [1]")
    name, question, *body = text.strip().splitlines()
    (tmp_path / "two.yaml").write_text(
        "\n".join(["name: a", question, "profiles:", "  b:", *("    " + b for b in body)])
    )
    (tmp_path / "one.yaml").write_text(text.replace("name: smoke", "name: a-b"))
    assert folder_name(load_sweep(tmp_path / "two.yaml")) == folder_name(load_sweep(tmp_path / "one.yaml")) == "a-b"
    mine = load_sweep(tmp_path / "two.yaml")
    (tmp_path / "results" / "a-b").mkdir(parents=True)
    sweep_json.of(mine, expand(mine)).save(tmp_path / "results" / "a-b")
    before = (tmp_path / "results" / "a-b" / MANIFEST).read_bytes()
    for command in (run.main, plan.main):
        more = ["--dry-run"] if command is run.main else []
        assert command([str(tmp_path / "one.yaml"), *more]) == 2
        said = capsys.readouterr().err.strip()
        assert said == (
            "results/a-b: holds the results of sweep 'a', profile b, and this is sweep 'a-b', profile default. "
            "Give name=NAME or --results DIR"
        )
    assert run.main([str(tmp_path / "one.yaml"), "--executor", "serial"]) == 2
    assert (tmp_path / "results" / "a-b" / MANIFEST).read_bytes() == before
    assert run.main([str(tmp_path / "two.yaml"), "--dry-run", "train.epochs=3", "model.adapter.rank=[1,2]"]) == 0
    assert run.main([str(tmp_path / "one.yaml"), "--dry-run", "name=other"]) == 0


def test_a_trial_has_a_label_for_each_axis(sweep, tmp_path):
    path = sweep_json.of(sweep, expand(sweep)).save(tmp_path)
    raw = json.loads(path.read_text())
    raw["trials"][0]["point"] = raw["trials"][0]["point"][:1]
    path.write_text(json.dumps(raw))
    manifest, problem = sweep_json.load(tmp_path)
    assert manifest is None and "2 axes, but trial" in problem and "has 1 labels" in problem
