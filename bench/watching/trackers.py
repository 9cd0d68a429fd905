"""TensorBoard, Weights & Biases and MLflow, by name in the sweep, through Ray's integrations.

Ray's logger callbacks are told about our trials rather than about Tune's, whose configuration is a message to a worker:
here a run's parameters are the trial's fields, and its metrics are losses by epoch and the final scores.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ray.air.integrations.mlflow import MLflowLoggerCallback
from ray.air.integrations.wandb import WandbLoggerCallback
from ray.tune.logger import LoggerCallback, TBXLoggerCallback

from bench.config.errors import ConfigError
from bench.config.expand import Trial
from bench.config.sweep import Sweep
from bench.records.record import TrialRecord
from bench.training.loop import Epoch

PROJECT = "sam3-bench"


@dataclass(eq=False)
class Run:
    """A trial as Ray's callbacks look at it: what they ask of Tune's own class, and nothing else."""

    trial_id: str
    name: str
    experiment_dir_name: str
    config: dict[str, Any]
    local_path: str

    @property
    def evaluated_params(self) -> dict[str, Any]:
        return self.config

    def init_local_path(self) -> None:
        Path(self.local_path).mkdir(parents=True, exist_ok=True)

    def __str__(self) -> str:
        return self.name


class Tracking:
    """A ``Watcher`` that hands on to trackers what it is told. One that fails is said once and left out from there on.

    folder: of the sweep's results; local files go to its ``tracking``. Raises ``ConfigError`` for a tracker that cannot
    be set up, such as W&B without a key.
    """

    def __init__(self, sweep: Sweep, trials: Sequence[Trial], folder: Path, say: Callable[[str], None]) -> None:
        self.say, self.left = say, len(trials)
        self.begun: set[int] = set()
        place = (folder / "tracking").resolve()
        self.runs = [_run(sweep, trial, place) for trial in trials]
        self.callbacks: dict[str, LoggerCallback] = {}
        for name in sweep.track:
            try:
                self.callbacks[name] = callback = _made(name, sweep, place)
                callback.setup()
            except Exception as error:
                raise ConfigError(f"track: {name} cannot be set up: {error}") from None

    def started(self, index: int) -> None:
        self.begun.add(index)
        self._tell("log_trial_start", self.runs[index])

    def epoch(self, index: int, epoch: Epoch) -> None:
        told = {name: value for name, value in asdict(epoch).items() if name != "epoch" and value is not None}
        self._tell("log_trial_result", epoch.epoch, self.runs[index], {"training_iteration": epoch.epoch, **told})

    def finished(self, index: int, record: TrialRecord) -> None:
        if index in self.begun:  # else another driver ran it, and told its own trackers
            if final := _final(record):
                epoch = record.curve[-1].epoch if record.curve else 1
                self._tell("log_trial_result", epoch, self.runs[index], {"training_iteration": epoch, **final})
            self._tell("log_trial_end", self.runs[index], record.status != "ok")
        self.left -= 1
        if not self.left:  # while Ray still runs: W&B uploads from an actor of its own
            self._tell("on_experiment_end", self.runs)

    def _tell(self, event: str, *what: Any) -> None:
        for name, callback in list(self.callbacks.items()):
            try:
                getattr(callback, event)(*what)
            except Exception as error:  # a tracker may not end a sweep
                self.say(f"note: {name} is told no more ({type(error).__name__}: {error}); the sweep goes on")
                del self.callbacks[name]


def _made(name: str, sweep: Sweep, place: Path) -> LoggerCallback:
    place.mkdir(parents=True, exist_ok=True)
    if name == "tensorboard":
        return TBXLoggerCallback()
    if name == "wandb":
        return WandbLoggerCallback(project=PROJECT, group=sweep.name, dir=str(place))
    uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{place / 'mlflow.db'}"
    return MLflowLoggerCallback(tracking_uri=uri, experiment_name=f"{PROJECT}/{sweep.name}")


def _run(sweep: Sweep, trial: Trial, place: Path) -> Run:
    name = f"{', '.join(trial.point)} seed {trial.seed}"
    path = place / "tensorboard" / trial.trial_id
    return Run(trial.trial_id, name, sweep.name, _flat(trial.config.model_dump(mode="json")), str(path))


def _flat(fields: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Fields by dotted path; lists as text, because no tracker takes them."""
    flat: dict[str, Any] = {}
    for name, value in fields.items():
        path = f"{prefix}{name}"
        if isinstance(value, dict):
            flat |= _flat(value, f"{path}.")
        elif value is not None:
            flat[path] = value if isinstance(value, bool | int | float | str) else str(value)
    return flat


def _final(record: TrialRecord) -> dict[str, float]:
    """Scores, peak memory and speed of a finished trial; what was not measured is left out."""
    found = {f"test.{name}": value for name, value in (record.scores or {}).items()}
    found |= {f"val.{name}": value for name, value in (record.val_scores or {}).items()}
    for phase, memory in (record.memory or {}).items():
        fields = memory.model_dump()
        found |= {f"{phase}.{name}": value for name, value in fields.items() if name.endswith("_bytes")}
    if record.timing:
        found |= {f"timing.{name}": value for name, value in record.timing.model_dump().items()}
    return {name: float(value) for name, value in found.items() if value is not None}
