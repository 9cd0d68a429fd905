"""The store of a results folder: each version of a file is read once."""

import os

import pytest

from bench.records import store as module
from bench.records.record import TrialRecord
from bench.records.store import RecordStore, adopt, set_aside_damaged


def save(folder, trial_id, status="oom"):
    TrialRecord(trial_id=trial_id, status=status, config={}).save(folder)


@pytest.fixture
def reads(monkeypatch):
    """Names of the files that were read, in their order."""
    names, load = [], module.load

    def noted(path):
        names.append(path.name)
        return load(path)

    monkeypatch.setattr(module, "load", noted)
    return names


def test_a_file_is_read_once_and_again_when_it_was_replaced(tmp_path, reads):
    save(tmp_path, "a")
    save(tmp_path, "b")
    store = RecordStore(tmp_path)
    assert store.refresh().keys() == {"a", "b"} and store.refresh() == store.records
    assert reads == ["a.json", "b.json"]
    save(tmp_path, "b", "diverged")
    save(tmp_path, "c")
    assert {trial_id: record.status for trial_id, record in store.refresh().items()} == {
        "a": "oom",
        "b": "diverged",
        "c": "oom",
    }
    assert reads == ["a.json", "b.json", "b.json", "c.json"]


def test_a_removed_file_and_a_damaged_one_are_no_records(tmp_path, reads):
    save(tmp_path, "a")
    save(tmp_path, "b")
    store = RecordStore(tmp_path)
    store.refresh()
    os.remove(tmp_path / "a.json")
    (tmp_path / "b.json").write_text("{")
    for _ in range(2):
        assert store.refresh() == {}
        (problem,) = store.problems
        assert problem.startswith(f"{tmp_path / 'b.json'}: not a readable record (no JSON, EOF while parsing an object")
    assert reads == ["a.json", "b.json", "b.json"]


def test_a_record_under_the_name_of_another_trial_is_damaged_and_is_not_taken_over(tmp_path):
    here, beside = tmp_path / "here", tmp_path / "beside"
    for folder in (here, beside):
        folder.mkdir()
        save(folder, "a")
        os.rename(folder / "a.json", folder / "b.json")
    store = RecordStore(here)
    assert store.refresh() == {}
    assert store.problems == [f"{here / 'b.json'}: not a readable record (it says that it is of trial 'a')"]
    (line,) = set_aside_damaged(["a", "b"], here)
    assert line.startswith(f"{here / 'b.json'}: not a readable record; set aside as b.json.corrupt-1")
    assert adopt(["b"], here) == [] and not (here / "b.json").exists()


def test_a_folder_that_does_not_exist_has_no_records(tmp_path):
    store = RecordStore(tmp_path / "none")
    assert store.refresh() == {} and store.problems == []
