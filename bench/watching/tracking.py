"""Passes what happens to trials on to the trackers that a sweep names (``bench.watching.trackers``).

A run's parameters are the fields of the trial's configuration. Its metrics are losses by epoch and the final scores.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bench.config.errors import ConfigError
from bench.config.expand import Trial
from bench.config.paths import flatten
from bench.config.sweep import TRACKERS, Sweep
from bench.config.trial import TrialConfig
from bench.records.record import TrialRecord
from bench.training.loop import Epoch
from bench.watching.trackers import Run, Tracker, Value


def check_trackers(names: Sequence[str]) -> None:
    """Raises ``ConfigError`` for every tracker whose package is not installed."""
    errors = []
    for name in names:
        entry = TRACKERS.module(name)
        if find_spec(entry.PACKAGE) is None:
            errors.append(f"track: {name} needs the package {entry.PACKAGE}. {entry.INSTALL}, or set track=[]")
    if errors:
        raise ConfigError(*errors)


class Tracking:
    """A ``Watcher`` that passes events on to trackers.

    A tracker that fails is reported once and gets no further events; the sweep goes on.
    """

    def __init__(self, sweep: Sweep, trials: Sequence[Trial], folder: Path, say: Callable[[str], None]) -> None:
        """folder: of the sweep's results; local files go to its ``tracking``. say: prints a line.

        Raises ``ConfigError`` for a tracker that cannot be set up, such as W&B without a key.
        """
        self.trials, self.say, self.pending = trials, say, len(trials)
        self.trackers: dict[str, Tracker] = {}
        self.runs: dict[int, dict[str, Run]] = {}
        """Runs of the trials that were started here, by the tracker's name."""
        place = (folder / "tracking").resolve()
        place.mkdir(parents=True, exist_ok=True)
        for name in sweep.track:
            try:
                self.trackers[name] = TRACKERS.module(name).Tracker(sweep.name, place)
            except Exception as error:
                raise ConfigError(f"track: {name} cannot be set up: {error}") from None

    def started(self, index: int) -> None:
        trial = self.trials[index]
        parameters = _parameters(trial.config)
        runs = self.runs.setdefault(index, {})

        def start(tracker: str) -> None:
            runs[tracker] = self.trackers[tracker].start(trial.trial_id, trial.name, parameters)

        self._for_each_tracker(start)

    def epoch(self, index: int, epoch: Epoch) -> None:
        metrics = {name: value for name, value in asdict(epoch).items() if name != "epoch" and value is not None}
        self._for_each_tracker(lambda tracker: self.runs[index][tracker].log(metrics, epoch.epoch))

    def finished(self, index: int, record: TrialRecord) -> None:
        if index in self.runs:  # another driver has its own trackers
            metrics = _final_metrics(record)
            if metrics:
                epoch = record.curve[-1].epoch if record.curve else 1
                self._for_each_tracker(lambda tracker: self.runs[index][tracker].log(metrics, epoch))
            self._for_each_tracker(lambda tracker: self.runs[index][tracker].close(failed=record.status != "ok"))
        self.pending -= 1
        if not self.pending:
            self._for_each_tracker(lambda tracker: self.trackers[tracker].close())

    def _for_each_tracker(self, call: Callable[[str], Any]) -> None:
        for name in list(self.trackers):
            try:
                call(name)
            except Exception as error:  # a tracker may not end a sweep
                self.say(f"note: {name} gets no further events ({type(error).__name__}: {error}); the sweep goes on")
                del self.trackers[name]


def _parameters(config: TrialConfig) -> dict[str, Value]:
    """Returns the fields of a configuration by dotted path, without empty ones; lists as text, as trackers need it."""
    parameters: dict[str, Value] = {}
    for path, value in flatten(config.model_dump(mode="json")).items():
        if value is not None and value != {}:
            parameters[path] = value if isinstance(value, bool | int | float | str) else str(value)
    return parameters


def _final_metrics(record: TrialRecord) -> dict[str, float]:
    """Scores, peak memory, speed and energy of a finished trial, without those that were not measured."""
    found: dict[str, Any] = {}
    for split, scores in (("test", record.scores), ("val", record.val_scores), ("train", record.train_scores)):
        for name, value in (scores or {}).items():
            found[f"{split}.{name}"] = value
    for phase, memory in (record.memory or {}).items():
        for name, value in memory.model_dump().items():
            if name.endswith("_bytes"):
                found[f"{phase}.{name}"] = value
    if record.timing:
        for name, value in record.timing.model_dump().items():
            found[f"timing.{name}"] = value
    if record.energy:
        for name, value in record.energy.model_dump(exclude={"unknown"}).items():
            found[f"energy.{name}"] = value
    return {name: float(value) for name, value in found.items() if value is not None}
