"""Files of a newer version of the suite are left alone: nothing of them is read, set aside, replaced or run again."""

import json
import os
import shutil

import pytest
from conftest import RANKS, SWEEP
from pairs import write_pairs
from safetensors.torch import load_file, save_file

from bench import run, score
from bench.config.expand import expand
from bench.config.sweep import load_sweep
from bench.leaderboard import results
from bench.records import sweep_json
from bench.records.record import MANIFEST, TrialRecord
from bench.records.schema import NewerVersion
from bench.records.store import RecordStore, load_all, set_aside_damaged
from bench.report import __main__ as report
from bench.scheduling.rounds import Rounds
from bench.scheduling.trial_queue import TrialQueue
from bench.search.next_trials import Plan
from bench.training import trained_weights

LINE = "written by a newer version of the suite (schema 2, this one knows 1); update the suite"


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def from_the_future(path):
    tree = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**tree, "schema_version": 2, "a_new_field": [1, 2]}))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A sweep of two trials that has run."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "smoke.yaml").write_text(SWEEP.format(axis=RANKS))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("bench.report.KINDS", ("png",))
        assert run.main(["smoke.yaml", "--executor", "serial", "--page-every", "off", "--quiet"]) == 0
    return folder


@pytest.fixture
def here(finished, tmp_path, monkeypatch):
    """A copy of it, in the current directory; the ids of its trials."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "results" / "smoke", [trial.trial_id for trial in expand(load_sweep(tmp_path / "smoke.yaml"))]


@pytest.mark.parametrize("which", ["record", "sweep.json", "external", "another trial"])
@pytest.mark.parametrize("more", [[], ["--dry-run"]])
def test_a_sweep_does_not_start_and_touches_nothing(here, capsys, which, more):
    folder, (first, _) = here
    (folder / "external").mkdir(exist_ok=True)
    names = {"record": f"{first}.json", "external": "external/theirs.json", "another trial": "0123456789ab.json"}
    path = folder / names.get(which, MANIFEST)
    from_the_future(path)
    before = contents(folder)
    assert run.main(["smoke.yaml", "--executor", "serial", *more]) == 2
    out, err = capsys.readouterr()
    assert err.strip() == f"{path.relative_to(folder.parents[1])}: {LINE}" and "Traceback" not in out
    assert contents(folder) == before


def test_a_report_shows_the_rest_and_says_what_it_cannot_show(here, capsys):
    folder, (first, _) = here
    from_the_future(folder / f"{first}.json")
    before = (folder / f"{first}.json").read_bytes()
    assert report.main([str(folder)]) == 0
    assert f"note: {folder}/{first}.json: {LINE}" in capsys.readouterr().out
    table = (folder / "leaderboard.md").read_text()
    assert "0/1 (1 missing)" in table and "1/1" in table
    assert "missing version: its record was written by a newer version of the suite; update the suite" in table
    assert (folder / f"{first}.json").read_bytes() == before
    assert report.main([str(folder), "--bundle", str(folder / "r.zip")]) == 0
    assert report.main([str(folder / "r.zip"), "--out", str(folder / "again")]) == 0
    assert (folder / "again" / "leaderboard.md").read_text() == table


def test_a_sweep_json_of_a_newer_version_is_refused_by_reports(here, capsys):
    folder, _ = here
    from_the_future(folder / MANIFEST)
    before = contents(folder)
    assert report.main([str(folder)]) == 2
    assert capsys.readouterr().err.strip() == f"{folder}/{MANIFEST}: {LINE}" and contents(folder) == before


def test_scores_from_the_future_are_not_replaced(here, tmp_path, capsys):
    folder, _ = here
    _, masks = write_pairs(tmp_path / "pairs", 2)
    (folder / "external").mkdir()
    from_the_future(folder / "external" / "theirs.json")
    before = contents(folder / "external")
    arguments = ["--pred", str(masks), "--gt", str(masks), "--jobs", "1", "--into", str(folder), "--name"]
    assert score.main([*arguments, "theirs"]) == 2
    assert LINE in capsys.readouterr().err and contents(folder / "external") == before
    assert any(LINE in line for line in results.load(folder)[1])
    assert score.main([*arguments, "mine"]) == 0


def test_another_driver_of_a_newer_version_finishes_a_trial_meanwhile(here, monkeypatch):
    """Its record is neither deleted nor replaced, and the trial is not run again."""
    folder, (first, second) = here
    trials = expand(load_sweep(folder.parents[1] / "smoke.yaml"))
    ended = []

    class Watcher:
        def finished(self, index, record):
            ended.append((index, record.status, record.error))

    queue = TrialQueue(trials, folder, Watcher(), say=print)
    for trial_id in (first, second):
        from_the_future(folder / f"{trial_id}.json")
    before = contents(folder)
    assert queue.take() is None and queue.exhausted
    assert [(index, status) for index, status, _ in ended] == [(0, "error"), (1, "error")] and LINE in ended[0][2]
    queue._waiting, queue._old_digests = [0], {0: None}
    queue.finish(0, "killed")
    assert contents(folder) == before and LINE in queue.records[first].error


def test_a_sweep_json_that_becomes_newer_meanwhile_is_not_replaced(here):
    folder, _ = here
    sweep = load_sweep(folder.parents[1] / "smoke.yaml")
    from_the_future(folder / MANIFEST)
    before = (folder / MANIFEST).read_bytes()
    rounds = Rounds(sweep, RecordStore(folder), None, print)
    rounds.plan = Plan(expand(sweep), [])
    rounds.write_manifest()
    rounds.write_manifest()
    assert (folder / MANIFEST).read_bytes() == before and len(rounds.problems) == 1 and LINE in rounds.problems[0]
    sweep_json.of(sweep, expand(sweep)).save(folder)
    assert sweep_json.load(folder)[1] == ""


def test_nothing_of_it_is_set_aside(here):
    folder, (first, second) = here
    from_the_future(folder / f"{first}.json")
    (folder / f"{second}.json").write_text("{")
    with pytest.raises(NewerVersion):
        set_aside_damaged([first, second], folder)
    records, broken = load_all(folder)
    assert not records and len(broken) == 2


def test_trained_weights_of_a_newer_version_say_so(here, tmp_path):
    folder, (first, _) = here
    path = folder / f"{first}.safetensors"
    newer = {"format": "sam3-bench trained weights, version 2", "config": "{}", "frozen_digest": ""}
    save_file(load_file(path), tmp_path / "newer.safetensors", newer)
    with pytest.raises(trained_weights.TrainedWeightsError, match="written by a newer version of the suite; update"):
        trained_weights.load(tmp_path / "newer.safetensors")


@pytest.mark.parametrize(
    "text", ['{"schema_version": "2"}', '{"schema_version": null}', "[2]", "2", "{", "[" * 100_000]
)
def test_what_says_no_version_is_no_record_as_before(tmp_path, text):
    (tmp_path / "abc.json").write_text(text)
    records, broken = load_all(tmp_path)
    assert not records and "not a readable record" in broken[0]


# --- pipes and devices ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["0123456789ab.json", MANIFEST, "external/x.json"])
def test_a_pipe_beside_the_records_holds_nobody_up(here, capsys, name):
    folder, _ = here
    (folder / "external").mkdir()
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    assert report.main([str(folder), "--out", str(folder / "out")]) == (2 if name == MANIFEST else 0)
    said = capsys.readouterr()
    assert name in (said.err if name == MANIFEST else said.out)
    assert run.main(["smoke.yaml", "--dry-run"]) == 0


@pytest.mark.parametrize("kind", ["images", "memory", "samples"])
def test_a_pipe_in_place_of_a_table_holds_nobody_up(here, capsys, kind):
    folder, (first, _) = here
    path = folder / f"{first}.{kind}.parquet"
    path.unlink()
    os.mkfifo(path)
    assert report.main([str(folder), "--out", str(folder / "out")]) == 0
    assert f"note: {path}: cannot be used (it is no regular file); left out" in capsys.readouterr().out


@pytest.mark.parametrize("suffix", [".images.parquet", ".memory.parquet", ".samples.parquet", ".safetensors"])
def test_a_pipe_at_the_start_is_set_aside(here, suffix):
    folder, (first, _) = here
    path = folder / f"{first}{suffix}"
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(trained_weights.TrainedWeightsError, match="is no regular file"):
        trained_weights.load(path)
    (line,) = set_aside_damaged([first], folder)
    assert line.startswith(f"{path}: is no regular file; set aside as {path.name}.corrupt-1")


def test_a_pipe_or_a_device_is_no_sweep_file(tmp_path, capsys):
    os.mkfifo(tmp_path / "pipe.yaml")
    for path in (tmp_path / "pipe.yaml", "/dev/zero", tmp_path):
        assert run.main([str(path), "--dry-run"]) == 2
        assert "cannot be read (is no regular file)" in capsys.readouterr().err


def test_numbers_that_nothing_can_measure_are_no_record(tmp_path):
    example = {"trial_id": "abc", "status": "ok", "config": {}, "scores": {"s_measure": 0.5}}
    for changes in ({"scores": {"mae": 1e308}}, {"parameters": {"total": 10**400}}, {"config": {"x": [-1e200]}}):
        with pytest.raises(ValueError, match="beyond all that can be measured"):
            TrialRecord(**{**example, **changes})
    assert TrialRecord(**example, parameters={"total": 10**18}).scores == {"s_measure": 0.5}
