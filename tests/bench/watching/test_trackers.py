"""Trackers by name in a sweep: what they are told, where it goes, and what happens where they cannot be used."""

import struct
from pathlib import Path

import pytest
import yaml
from tensorboardX.proto.event_pb2 import Event

from bench import run
from bench.config.axes import Axis
from bench.config.errors import ConfigError
from bench.config.expand import expand
from bench.config.sweep import Sweep, load_sweep
from bench.records.memory import Memory
from bench.records.record import CurvePoint, Timing, TrialRecord
from bench.training.loop import Epoch
from bench.watching import trackers, watchers
from bench.watching.trackers import Tracking


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
            "track: no tracker 'tensorbord'. Did you mean 'tensorboard'? Known: tensorboard, wandb, mlflow",
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
    monkeypatch.setattr(watchers, "find_spec", lambda name: None if name in ("wandb", "mlflow") else object())
    path = write_sweep(tmp_path, tiny, track=["wandb", "mlflow", "tensorboard"])
    assert run.main([str(path), "--results", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert "track: wandb needs the package wandb. pip install wandb, or set track=[]" in said
    assert "track: mlflow needs the package mlflow. pip install mlflow" in said and "tensorboard needs" not in said
    assert not (tmp_path / "out").exists()


def test_what_the_serial_executor_cannot_do_is_said(monkeypatch):
    monkeypatch.setattr(watchers, "find_spec", lambda name: object())
    watchers.check_trackers(["tensorboard", "mlflow"], "serial")
    watchers.check_trackers(["wandb"], "ray")
    with pytest.raises(ConfigError, match="wandb logs from a process of Ray, and --executor serial starts none"):
        watchers.check_trackers(["wandb"], "serial")


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
    told = Tracking(sweep._replace(track=("tensorboard",)), trials, tmp_path, said.append)
    told.started(0)
    told.epoch(0, Epoch(1, 0.9, None, 0.1))
    told.epoch(0, Epoch(2, 0.5, 0.6, 0.1))
    told.finished(0, record(trials[0]))
    told.started(1)
    told.finished(1, record(trials[1], "error"))
    (file,) = (tmp_path / "tracking" / "tensorboard" / trials[0].trial_id).iterdir()
    values = {(v.tag, e.step): v.simple_value for e in events(file) for v in e.summary.value if v.simple_value}
    assert values["ray/tune/train_loss", 1] == pytest.approx(0.9)
    assert values["ray/tune/train_loss", 2] == pytest.approx(0.5)
    assert values["ray/tune/val_loss", 2] == pytest.approx(0.6) and ("ray/tune/val_loss", 1) not in values
    assert values["ray/tune/test.s_measure", 1] == pytest.approx(0.7)
    assert values["ray/tune/training.rss_bytes", 1] == 2**20
    assert not any("train_seconds" in tag or "nvml" in tag for tag, _ in values)  # not measured is not zero
    assert said == []


class Fake:
    """A logger callback of Ray that writes down what it is told."""

    def __init__(self, **options):
        self.options, self.told = options, []

    def setup(self):
        self.told.append(("setup",))

    def log_trial_start(self, trial):
        self.told.append(("start", str(trial), trial.config["model.adapter.rank"], trial.experiment_dir_name))

    def log_trial_result(self, iteration, trial, result):
        self.told.append(("result", iteration, result))

    def log_trial_end(self, trial, failed):
        self.told.append(("end", str(trial), failed))

    def on_experiment_end(self, trials):
        self.told.append(("all", len(trials)))


@pytest.mark.parametrize("name, replaced", [("wandb", "WandbLoggerCallback"), ("mlflow", "MLflowLoggerCallback")])
def test_other_trackers_are_told_the_same_through_rays_callbacks(sweep, tmp_path, monkeypatch, name, replaced):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(trackers, replaced, Fake)
    trials = expand(sweep)
    watcher = Tracking(sweep._replace(track=(name,)), trials, tmp_path, pytest.fail)
    fake = watcher.callbacks[name]
    watcher.started(0)
    watcher.epoch(0, Epoch(1, 0.9, 0.8, 0.1))
    watcher.finished(0, record(trials[0]))
    assert ("all", 2) not in fake.told
    watcher.finished(1, record(trials[1], "error"))  # it was another driver's, and never started here
    assert fake.told[:3] == [
        ("setup",),
        ("start", "2 seed 0", 2, "mine"),
        ("result", 1, {"training_iteration": 1, "train_loss": 0.9, "val_loss": 0.8, "lr": 0.1}),
    ]
    assert fake.told[3][2]["test.s_measure"] == 0.7 and fake.told[4] == ("end", "2 seed 0", False)
    assert fake.told[5:] == [("all", 2)]
    place = str((tmp_path / "tracking").resolve())
    assert place in " ".join(map(str, fake.options.values())) and sweep.name in " ".join(
        map(str, fake.options.values())
    )


def test_a_tracker_that_fails_is_said_once_and_the_others_go_on(sweep, tmp_path, monkeypatch):
    class Broken(Fake):
        def log_trial_result(self, iteration, trial, result):
            raise OSError("no route to host")

    monkeypatch.setattr(trackers, "WandbLoggerCallback", Broken)
    monkeypatch.setattr(trackers, "MLflowLoggerCallback", Fake)
    said: list[str] = []
    watcher = Tracking(sweep._replace(track=("wandb", "mlflow")), expand(sweep), tmp_path, said.append)
    watcher.started(0)
    fake = watcher.callbacks["mlflow"]
    for epoch in (1, 2, 3):
        watcher.epoch(0, Epoch(epoch, 0.9, None, 0.1))
    assert said == ["note: wandb is told no more (OSError: no route to host); the sweep goes on"]
    assert [what[1] for what in fake.told if what[0] == "result"] == [1, 2, 3]


def test_a_tracker_that_cannot_be_set_up_is_the_users_to_mend(sweep, tmp_path, monkeypatch):
    class NoKey(Fake):
        def setup(self):
            raise ValueError("no API key")

    monkeypatch.setattr(trackers, "WandbLoggerCallback", NoKey)
    with pytest.raises(ConfigError, match="track: wandb cannot be set up: no API key"):
        Tracking(sweep._replace(track=("wandb",)), expand(sweep), tmp_path, pytest.fail)
