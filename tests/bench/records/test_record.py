import json
import os
from pathlib import Path

import pandas
import pytest

from bench.records.memory import Memory
from bench.records.record import TrialRecord
from bench.records.store import adopt, load, load_all
from bench.records.tables import load_images
from bench.system import files


def example(**changes):
    values = {
        "trial_id": "abc",
        "status": "ok",
        "config": {"model": {"name": "unet"}},
        "scores": {"s_measure": 0.5},
        "memory": {"training": Memory(rss_bytes=10), "evaluation": Memory()},
        "image_scores": {"name": ["a", "b"], "s_measure": [0.4, 0.6]},
    }
    return TrialRecord(**{**values, **changes})


def test_round_trip_and_per_image_scores_beside_it(tmp_path):
    example().save(tmp_path)
    assert load(tmp_path / "abc.json") == example(image_scores=None)
    images = pandas.read_parquet(tmp_path / "abc.images.parquet")
    assert list(images.name) == ["a", "b"] and list(images.s_measure) == [0.4, 0.6]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["abc.images.parquet", "abc.json"]


def test_what_was_not_measured_is_null(tmp_path):
    example().save(tmp_path)
    training = json.loads((tmp_path / "abc.json").read_text())["memory"]["training"]
    assert training["nvml_device_bytes"] is None and training["rss_bytes"] == 10


def test_a_write_that_fails_leaves_the_old_record(tmp_path, monkeypatch):
    example().save(tmp_path)

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError):
        example(status="oom").save(tmp_path)
    assert load(tmp_path / "abc.json").status == "ok"
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_broken_records_are_named_and_the_others_are_read(tmp_path):
    example().save(tmp_path)
    (tmp_path / "cut.json").write_text((tmp_path / "abc.json").read_text()[:50])
    (tmp_path / "other.json").write_text('{"schema_version": 99}')
    records, broken = load_all(tmp_path)
    assert list(records) == ["abc"]
    assert [Path(line.split(":")[0]).name for line in broken] == ["cut.json", "other.json"]


def test_no_folder_is_no_records(tmp_path):
    assert load_all(tmp_path / "none") == ({}, [])


def test_the_same_trial_of_another_sweep_is_taken_over_if_it_is_finished(tmp_path):
    here, there, broken = (tmp_path / name for name in ("here", "there", "broken"))
    for folder in (here, there, broken):
        folder.mkdir()
    example().save(there)
    example(trial_id="failed", status="error").save(there)
    (broken / "other.json").write_text("{")
    assert adopt(["abc", "failed", "other", "none"], here) == [there / "abc.json"]
    assert load(here / "abc.json") == load(there / "abc.json")
    assert (here / "abc.images.parquet").read_bytes() == (there / "abc.images.parquet").read_bytes()
    assert len(list(here.iterdir())) == 2
    assert adopt(["abc"], here) == []


def test_per_image_scores_are_read_back_for_the_trials_that_have_them(tmp_path):
    example().save(tmp_path)
    assert load_images(tmp_path, ["abc", "none"]) == {"abc": example().image_scores}


def test_a_pipe_in_the_place_of_a_record_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "0123456789ab.json")
    records, broken = load_all(tmp_path)
    assert not records and broken == [f"{tmp_path}/0123456789ab.json: not a readable record (is no regular file)"]
