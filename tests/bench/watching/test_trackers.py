"""Trackers by name in a sweep: what they record, where it goes, and what happens where they cannot be used."""

import struct
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from tensorboardX.proto.event_pb2 import Event

from bench import run
from bench.config.axes import Axis
from bench.config.errors import ConfigError
from bench.config.expand import expand
from bench.config.sweep import TRACKERS, Sweep, load_sweep
from bench.records.memory import Memory
from bench.records.record import CurvePoint, Timing, TrialRecord
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
    axis = Axis.over("model.adapter.rank", {"2": 2, "4": 4})
    return Sweep("mine", "How?", "embedded", tiny, (axis,), (0,))


def record(trial, status="ok"):
    ok = status == "ok"
    return TrialRecord(
        trial_id=trial.trial_id,
        status=status,
        error="" if ok else "died",
        config={},
        scores={"s_measure": 0.7} if ok else None,
        val_scores={"s_measure": 0.6} if ok else None,
        memory={"training": Memory(rss_bytes=2**20)} if ok else None,
        timing=Timing(
            train_seconds=None, train_images_per_second=None, inference_images_per_second=5.0, total_seconds=2.0
        )
        if ok
        else None,
        curve=[CurvePoint(epoch=1, train_loss=0.9, val_loss=None, lr=0.1)] if ok else [],
    )


def events(path: Path) -> list[Event]:
    """What an event file of TensorBoard holds; each entry stands between its length and two checksums."""
    content, found = path.read_bytes(), []
    while content:
        (length,) = struct.unpack("<Q", content[:8])
        found.append(Event.FromString(content[12 : 12 + length]))
        content = content[16 + length :]
    return found


def test_tensorboard_gets_losses_by_epoch_and_the_final_scores(sweep, tmp_path):
    said: list[str] = []
    trials = expand(sweep)
    watcher = Tracking(sweep._replace(track=("tensorboard",)), trials, tmp_path, said.append)
    watcher.started(0)
    watcher.epoch(0, Epoch(1, 0.9, None, 0.1))
    watcher.epoch(0, Epoch(2, 0.5, 0.6, 0.1))
    watcher.finished(0, record(trials[0]))
    watcher.started(1)
    watcher.finished(1, record(trials[1], "error"))
    (file,) = (tmp_path / "tracking" / "tensorboard" / trials[0].trial_id).iterdir()
    values = {(v.tag, e.step): v.simple_value for e in events(file) for v in e.summary.value if v.simple_value}
    assert values["ray/tune/train_loss", 1] == pytest.approx(0.9)
    assert values["ray/tune/train_loss", 2] == pytest.approx(0.5)
    assert values["ray/tune/val_loss", 2] == pytest.approx(0.6) and ("ray/tune/val_loss", 1) not in values
    assert values["ray/tune/test.s_measure", 1] == pytest.approx(0.7)
    assert values["ray/tune/training.rss_bytes", 1] == 2**20
    assert not any("train_seconds" in tag or "nvml" in tag for tag, _ in values)  # not measured is not zero
    assert said == []


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
    watcher.finished(0, record(trials[0]))
    assert ("close",) not in calls
    watcher.finished(1, record(trials[1], "error"))  # another driver ran it, and it never started here
    assert calls[:3] == [
        ("setup", "mine", (tmp_path / "tracking").resolve()),
        ("start", "2 seed 0", 2),
        ("log", 1, {"train_loss": 0.9, "val_loss": 0.8, "lr": 0.1}),
    ]
    assert calls[3][2]["test.s_measure"] == 0.7 and calls[4] == ("end", "2 seed 0", False)
    assert calls[5:] == [("close",)]


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


class FakeWandb:
    """What is used of the package ``wandb``; keeps its runs."""

    Settings = SimpleNamespace

    def __init__(self):
        self.runs = []

    def login(self, prompt):
        return True

    def init(self, **options):
        run = SimpleNamespace(options=options, logged=[], code=None)
        run.log = lambda metrics, step: run.logged.append((step, metrics))
        run.finish = lambda code: setattr(run, "code", code)
        self.runs.append(run)
        return run


def test_wandb_gets_a_run_for_each_trial_in_a_group_for_the_sweep(sweep, tmp_path, monkeypatch):
    wandb = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    trials = expand(sweep)
    watcher = Tracking(sweep._replace(track=("wandb",)), trials, tmp_path, pytest.fail)
    for index, status in enumerate(("ok", "error")):
        watcher.started(index)
        watcher.epoch(index, Epoch(1, 0.9, None, 0.1))
        watcher.started(index)  # once more, after its process was lost
        watcher.finished(index, record(trials[index], status))
    (first, second), options = wandb.runs, wandb.runs[0].options
    assert (options["project"], options["group"], options["id"]) == ("sam3-bench", "mine", trials[0].trial_id)
    assert options["name"] == "2 seed 0" and options["config"]["model.adapter.rank"] == 2
    assert options["dir"] == str((tmp_path / "tracking").resolve())
    assert options["settings"].reinit == "create_new", "trials run at the same time in one process"
    assert first.logged[0] == (1, {"training_iteration": 1, "train_loss": 0.9, "lr": 0.1})
    assert first.logged[1][1]["test.s_measure"] == 0.7
    assert (first.code, second.code) == (0, 1), "and their uploads are done"


class FakeMlflowClient:
    """What is used of ``mlflow.MlflowClient``; keeps the calls."""

    def __init__(self, tracking_uri):
        self.uri, self.calls = tracking_uri, []

    def get_experiment_by_name(self, name):
        self.calls.append(("experiment", name))

    def create_experiment(self, name):
        return "7"

    def create_run(self, experiment_id, run_name, tags):
        self.calls.append(("run", experiment_id, run_name))
        return SimpleNamespace(info=SimpleNamespace(run_id=run_name))

    def log_param(self, run_id, key, value):
        self.calls.append(("parameter", run_id, key, value))

    def log_metric(self, run_id, key, value, step):
        self.calls.append(("metric", run_id, key, value, step))

    def set_terminated(self, run_id, status):
        self.calls.append(("end", run_id, status))


@pytest.mark.parametrize("uri", [None, "http://server:5000"])
def test_mlflow_gets_a_run_for_each_trial_in_an_experiment_for_the_sweep(sweep, tmp_path, monkeypatch, uri):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    if uri:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setitem(sys.modules, "mlflow", SimpleNamespace(MlflowClient=FakeMlflowClient))
    trials = expand(sweep)
    watcher = Tracking(sweep._replace(track=("mlflow",)), trials, tmp_path, pytest.fail)
    for index, status in enumerate(("ok", "error")):
        watcher.started(index)
        watcher.epoch(index, Epoch(1, 0.9, None, 0.1))
        watcher.started(index)  # once more, after its process was lost
        watcher.finished(index, record(trials[index], status))
    client = watcher.trackers["mlflow"].client
    assert client.uri == (uri or f"sqlite:///{(tmp_path / 'tracking').resolve() / 'mlflow.db'}")
    assert client.calls[0] == ("experiment", "sam3-bench/mine")
    assert [call for call in client.calls if call[0] == "run"] == [("run", "7", "2 seed 0"), ("run", "7", "4 seed 0")]
    assert client.calls.count(("parameter", "2 seed 0", "model.adapter.rank", 2)) == 1
    assert ("metric", "2 seed 0", "train_loss", 0.9, 1) in client.calls
    assert ("metric", "2 seed 0", "test.s_measure", 0.7, 1) in client.calls
    ends = [call for call in client.calls if call[0] == "end"]
    assert ends == [("end", "2 seed 0", "FINISHED"), ("end", "4 seed 0", "FAILED")]
