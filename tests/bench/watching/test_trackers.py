"""The trackers: what each writes where."""

import struct
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from tensorboardX.proto.event_pb2 import Event
from tracked import record, two_ranks

from bench.config.expand import expand
from bench.training.loop import Epoch
from bench.watching.tracking import Tracking


@pytest.fixture
def sweep(tiny):
    return two_ranks(tiny)


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
    assert options["name"] == "rank 2 seed 0" and options["config"]["model.adapter.rank"] == 2
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
    assert [call for call in client.calls if call[0] == "run"] == [
        ("run", "7", "rank 2 seed 0"),
        ("run", "7", "rank 4 seed 0"),
    ]
    assert client.calls.count(("parameter", "rank 2 seed 0", "model.adapter.rank", 2)) == 1
    assert ("metric", "rank 2 seed 0", "train_loss", 0.9, 1) in client.calls
    assert ("metric", "rank 2 seed 0", "test.s_measure", 0.7, 1) in client.calls
    ends = [call for call in client.calls if call[0] == "end"]
    assert ends == [("end", "rank 2 seed 0", "FINISHED"), ("end", "rank 4 seed 0", "FAILED")]
