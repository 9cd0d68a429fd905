"""Trackers by name in a sweep: which events they get, and what happens where they cannot be used."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from tracked import record, two_ranks

from bench import run
from bench.config.errors import ConfigError
from bench.config.expand import expand
from bench.config.sweep import TRACKERS, load_sweep
from bench.records.energy import Energy
from bench.training.loop import Epoch
from bench.watching import tracking
from bench.watching.tracking import Tracking, check_trackers


def write_sweep(folder: Path, tiny, **more) -> Path:
    base = tiny.model_dump(mode="json", exclude={"seed"})
    raw = {"name": "mine", "question": "How?", "base": base, "axes": {"model.adapter.rank": [2, 4]}, "seeds": [0]}
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump({**raw, **more}))
    return path


def test_trackers_are_named_in_the_file_or_an_override_and_change_no_trial(tiny, tmp_path):
    path = write_sweep(tmp_path, tiny, track=["mlflow", "wandb"])
    assert load_sweep(path).track == ("mlflow", "wandb")
    assert load_sweep(path, overrides=["track=tensorboard"]).track == ("tensorboard",)
    assert load_sweep(path, overrides=["track=[]"]).track == ()
    ids = [[t.trial_id for t in expand(load_sweep(path, overrides=o))] for o in ([], ["track=[]"])]
    assert ids[0] == ids[1]


@pytest.mark.parametrize(
    "track, words",
    [
        (
            "[tensorbord]",
            "track: no tracker 'tensorbord'. Did you mean 'tensorboard'? Known: mlflow, tensorboard, wandb",
        ),
        ("3", "track: a list of trackers is needed, as in [tensorboard] (got 3)"),
        ("[3]", "track: a list of trackers is needed"),
        ("[wandb,wandb]", "track: names wandb twice"),
    ],
)
def test_unknown_trackers_end_in_one_line(tiny, tmp_path, capsys, track, words):
    path = write_sweep(tmp_path, tiny)
    assert run.main([str(path), f"track={track}", "--results", str(tmp_path / "out")]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_missing_packages_are_said_before_work_starts(tiny, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(tracking, "find_spec", lambda name: None if name in ("wandb", "mlflow") else object())
    path = write_sweep(tmp_path, tiny, track=["wandb", "mlflow", "tensorboard"])
    assert run.main([str(path), "--results", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert "track: wandb needs the package wandb. pip install wandb, or set track=[]" in said
    assert "track: mlflow needs the package mlflow. pip install mlflow" in said and "tensorboard needs" not in said
    assert not (tmp_path / "out").exists()


def test_trackers_need_their_packages_only(monkeypatch):
    monkeypatch.setattr(tracking, "find_spec", lambda name: object())
    check_trackers(["tensorboard", "mlflow", "wandb"])


@pytest.mark.parametrize("name", TRACKERS.names())
def test_every_entry_names_its_package_and_how_to_install_it(name):
    entry = TRACKERS.module(name)
    assert entry.INSTALL == f"pip install {entry.PACKAGE}"
    assert all(callable(getattr(entry.Tracker, method)) for method in ("start", "close"))


@pytest.fixture
def sweep(tiny):
    return two_ranks(tiny)


class FakeTracker:
    """A tracker that notes its calls."""

    def __init__(self, sweep, folder):
        self.calls = [("setup", sweep, folder)]

    def start(self, trial_id, name, parameters):
        self.calls.append(("start", name, parameters["model.adapter.rank"]))
        return FakeRun(self.calls, name)

    def close(self):
        self.calls.append(("close",))


class FakeRun:
    def __init__(self, calls, name):
        self.calls, self.name = calls, name

    def log(self, metrics, epoch):
        self.calls.append(("log", epoch, dict(metrics)))

    def close(self, failed):
        self.calls.append(("end", self.name, failed))


def test_a_tracker_gets_every_event_of_the_trials_that_run_here(sweep, tmp_path, monkeypatch):
    monkeypatch.setattr(TRACKERS.module("mlflow"), "Tracker", FakeTracker)
    trials = expand(sweep)
    watcher = Tracking(sweep._replace(track=("mlflow",)), trials, tmp_path, pytest.fail)
    calls = watcher.trackers["mlflow"].calls
    watcher.started(0)
    watcher.epoch(0, Epoch(1, 0.9, 0.8, 0.1))
    energy = Energy(train_joules_per_image=2.5, unknown={"inference": "the window was too short"})
    watcher.finished(0, record(trials[0]).model_copy(update={"energy": energy}))
    assert ("close",) not in calls
    watcher.finished(1, record(trials[1], "error"))  # another driver ran it, and it never started here
    assert calls[:3] == [
        ("setup", "mine", (tmp_path / "tracking").resolve()),
        ("start", "rank 2 seed 0", 2),
        ("log", 1, {"train_loss": 0.9, "val_loss": 0.8, "lr": 0.1}),
    ]
    final = calls[3][2]
    assert final["test.s_measure"] == 0.7 and final["energy.train_joules_per_image"] == 2.5
    assert [name for name in final if name.startswith("energy.")] == ["energy.train_joules_per_image"]
    assert calls[4] == ("end", "rank 2 seed 0", False)
    assert calls[5:] == [("close",)]


def test_a_tracker_is_added_by_its_entry_alone(sweep, tiny, tmp_path, monkeypatch):
    monkeypatch.setitem(TRACKERS.__dict__, "_names", [*TRACKERS.names(), "mine"])
    entry = SimpleNamespace(PACKAGE="not_there", INSTALL="conda install not_there", Tracker=FakeTracker)
    monkeypatch.setitem(sys.modules, "bench.watching.trackers.mine", entry)
    assert load_sweep(write_sweep(tmp_path, tiny, track=["mine"])).track == ("mine",)
    with pytest.raises(ConfigError, match="mine needs the package not_there. conda install not_there, or set track="):
        check_trackers(["mine"])
    watcher = Tracking(sweep._replace(track=("mine",)), expand(sweep), tmp_path, pytest.fail)
    watcher.started(0)
    assert watcher.trackers["mine"].calls[1] == ("start", "rank 2 seed 0", 2)


def test_a_tracker_that_fails_is_said_once_and_the_others_go_on(sweep, tmp_path, monkeypatch):
    class BrokenTracker(FakeTracker):
        def start(self, trial_id, name, parameters):
            return BrokenRun(self.calls, name)

    class BrokenRun(FakeRun):
        def log(self, metrics, epoch):
            raise OSError("no route to host")

    monkeypatch.setattr(TRACKERS.module("wandb"), "Tracker", BrokenTracker)
    monkeypatch.setattr(TRACKERS.module("mlflow"), "Tracker", FakeTracker)
    said: list[str] = []
    watcher = Tracking(sweep._replace(track=("wandb", "mlflow")), expand(sweep), tmp_path, said.append)
    calls = watcher.trackers["mlflow"].calls
    watcher.started(0)
    for epoch in (1, 2, 3):
        watcher.epoch(0, Epoch(epoch, 0.9, None, 0.1))
    assert said == ["note: wandb gets no further events (OSError: no route to host); the sweep goes on"]
    assert [call[1] for call in calls if call[0] == "log"] == [1, 2, 3]


def test_a_tracker_that_cannot_be_set_up_is_the_users_to_mend(sweep, tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(login=lambda prompt: False))
    message = "track: wandb cannot be set up: there is no API key. Run 'wandb login', or set WANDB_MODE=offline"
    with pytest.raises(ConfigError, match=message):
        Tracking(sweep._replace(track=("wandb",)), expand(sweep), tmp_path, pytest.fail)
