"""The trials that a driver has still to run: handed out one at a time, watched while they run, settled when they end.

Both executors take their trials from here, so that what follows holds for both: a trial is claimed before it starts, so
that two drivers on one results folder share the work; each ends as exactly one record, whatever becomes of its process;
none runs longer, or stays silent longer, than it may.
"""

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from bench.config.expand import Trial
from bench.records.record import TrialRecord
from bench.records.schema import NewerVersion
from bench.records.store import load, unsaved
from bench.scheduling import cluster
from bench.search.early_stopping import EarlyStopping
from bench.system.files import set_aside
from bench.system.locks import Claim, owner
from bench.training import training_state
from bench.training.loop import Epoch
from bench.watching.display import Watcher, duration

LOOK_SECONDS = 1.0
MOST_PER_LOOK = 10.0


@dataclass(frozen=True)
class Limits:
    """How long a trial may take, and how long it may show no sign of life, in seconds; ``None`` is without end."""

    trial: float | None = None
    silence: float | None = 1800.0


class Work:
    """The trials of one driver; indices count them from 0. ``asked``: whether somebody wants no more to start."""

    def __init__(
        self,
        trials: Sequence[Trial],
        folder: Path,
        watcher: Watcher,
        *,
        say: Callable[[str], None],
        asked: Callable[[], bool] = lambda: False,
        limits: Limits = Limits(),
        checkpoint_seconds: float = training_state.EVERY_SECONDS,
        stopping: EarlyStopping | None = None,
    ) -> None:
        self.trials, self.folder, self.watcher = trials, folder, watcher
        self.checkpoint_seconds = checkpoint_seconds
        self.records: dict[str, TrialRecord] = {}
        """What became of the trials that ended here, on disk or not."""
        self.problems: list[str] = []
        """What could not be written."""
        self.died: str | None = None
        """What has died of that which runs the trials, so that the others cannot run."""
        self.asked = asked
        self._say, self._limits, self._stopping = say, limits, stopping
        self._waiting = list(range(len(trials)))
        self._before = {index: _digest(self._path(index)) for index in self._waiting}  # of earlier errors
        self._claims: dict[int, Claim | None] = {}
        self._started: dict[int, float] = {}
        self._alive: dict[int, float] = {}
        self._verdicts: dict[int, str] = {}
        self._second: set[int] = set()  # trials that were handed out once more
        self._said: set[str] = set()
        self._clock, self._looked, self._next_look = 0.0, time.monotonic(), 0.0

    @property
    def over(self) -> bool:
        """Whether no trial will be handed out any more."""
        return not self._waiting or self.asked()

    def take(self) -> int | None:
        """A trial that is to run now. ``None`` where there is none at present: those left are other drivers'."""
        self.tick()
        if self.over or time.monotonic() < self._next_look:
            return None
        for index in list(self._waiting):
            if not self._claim(index):
                continue
            self._waiting.remove(index)
            done = self._done_elsewhere(index)
            if done is None:
                with suppress(OSError):  # an old error: a new death must not hide behind it
                    self._path(index).unlink(missing_ok=True)
                return index
            self._release(index)
            self.watcher.finished(index, done)
        self._next_look = time.monotonic() + LOOK_SECONDS
        return None

    def started(self, index: int) -> None:
        self._started[index] = self._alive[index] = self._clock
        if self._stopping:
            self._stopping.started(self.trials[index])
        self.watcher.started(index)

    def alive(self, index: int) -> None:
        """The trial has done a step."""
        self._alive[index] = self._clock

    def epoch(self, index: int, epoch: Epoch) -> None:
        self.alive(index)
        self.watcher.epoch(index, epoch)
        if self._stopping and not self._stopping.goes_on(self.trials[index], epoch):
            self._verdicts[index] = "stopped early"

    def tick(self) -> None:
        """Call often. The driver's own clock counts no more than a few seconds at a time, so that a driver that was
        stopped for an hour does not blame its trials."""
        now = time.monotonic()
        self._clock += min(now - self._looked, MOST_PER_LOOK)
        self._looked = now
        if self.asked():
            names = "; ".join(self._name(index) for index in self._started) or "none"
            self._say_once(f"stopping: no more trials start, these are finished: {names}. Ctrl-C again stops at once")

    def overdue(self, index: int) -> str | None:
        """Why a running trial is to be killed now; its record will say it."""
        if index in self._verdicts:
            return self._verdicts[index]
        config = self.trials[index].config
        limit, silence = self._limits.trial, self._limits.silence
        if limit is not None and self._clock - self._started[index] > limit:
            self._verdicts[index] = f"timed out after {duration(limit)} (--trial-time-limit)"
        elif silence is not None:
            waits = 60 * config.memory.wait_minutes if config.memory.foreign_process == "wait" else 0.0
            if self._clock - self._alive[index] > silence + waits:
                self._verdicts[index] = f"no sign of life for {duration(silence + waits)} (--stall-limit); killed"
        return self._verdicts.get(index)

    def receive(self, index: int, files: Mapping[str, bytes]) -> None:
        """A trial's record has come from a machine that does not see the results folder."""
        trial_id = self.trials[index].trial_id
        try:
            cluster.unpack(files, trial_id, self.folder)
        except OSError:
            with suppress(OSError):  # ``settle`` says what is where
                unsaved().mkdir(parents=True, exist_ok=True)
                cluster.unpack(files, trial_id, unsaved())

    def note(self, index: int, text: str) -> None:
        """Says something about a trial, once."""
        self._say_once(f"note: {self._name(index)}: {text}")

    def has_ended(self, index: int) -> bool:
        """Whether the trial has left its record."""
        return _digest(self._path(index)) not in (None, self._before[index])

    def settle(self, index: int, reason: str) -> None:
        """A trial's process has ended. Without a record of its own it gets an error with ``reason``."""
        self._started.pop(index, None)
        record = self._settled(index, self._verdicts.get(index, reason.strip()))
        self.records[record.trial_id] = record
        if record.status != "error":
            training_state.remove(self.folder, record.trial_id)
        self._release(index)
        self.watcher.finished(index, record)
        for note in record.notes:
            self._say(f"note: {self._name(index)}: {note}")

    def again(self, index: int) -> None:
        """The trial's machine died under it: it is handed out once more."""
        self._started.pop(index, None)
        self._release(index)
        self._waiting.append(index)

    def once_more(self, index: int, reason: str) -> bool:
        """Hands a trial out again whose process was lost by no fault of its own; it goes on from its last checkpoint.

        Returns false where it has to be settled instead: after its second loss, where it has left a record, and where
        it was to be ended anyway.
        """
        kept = (unsaved() / self._path(index).name).exists()
        if index in self._second or index in self._verdicts or kept or self.has_ended(index):
            return False
        self._second.add(index)
        self.note(index, f"{reason.strip().splitlines()[-1]}; the trial is started once more, from its last checkpoint")
        self.again(index)
        return True

    def release(self) -> None:
        """Gives up what is still claimed: somebody else may go on with it."""
        for index in list(self._claims):
            self._release(index)

    def _settled(self, index: int, reason: str) -> TrialRecord:
        trial, path = self.trials[index], self._path(index)
        if self._stopping:
            try:
                self._stopping.settle(trial, self.folder)
            except OSError as error:
                self.problems.append(f"{self._name(index)}: stopped early, which cannot be written: {error}")
        if self.has_ended(index):
            try:
                return load(path)
            except NewerVersion as error:  # of another driver, which knows it better
                return _unread(trial, error)
            except (ValidationError, OSError) as error:
                reason = f"{reason}\nits record cannot be read: {error}"
                with suppress(OSError):
                    set_aside(path)
        elsewhere = unsaved() / path.name
        if elsewhere.exists():
            self.problems.append(f"{self._name(index)}: {self.folder} took no record; it is kept as {elsewhere}")
            return load(elsewhere)
        config = trial.config.model_dump(mode="json")
        record = TrialRecord(trial_id=trial.trial_id, status="error", error=reason, config=config)
        try:
            record.save(self.folder)
        except OSError as error:
            self.problems.append(f"{self._name(index)}: its error cannot be written: {error}")
        return record

    def _claim(self, index: int) -> bool:
        path = self.folder / training_state.FOLDER / f"{self.trials[index].trial_id}.lock"
        try:
            claim = Claim.take(path)
        except OSError as error:
            self._say_once(f"note: no locks below {self.folder} ({error}): do not run two drivers on it")
            self._claims[index] = None
            return True
        if claim is None:
            self._say_once(f"{self._name(index)} is being run by {owner(path)}; waiting for what becomes of it")
            return False
        self._claims[index] = claim
        return True

    def _release(self, index: int) -> None:
        claim = self._claims.pop(index, None)
        if claim is not None:
            claim.release()

    def _done_elsewhere(self, index: int) -> TrialRecord | None:
        """The record that another driver has made since this one looked; an error of before does not count."""
        path = self._path(index)
        try:
            record = load(path)
        except NewerVersion as error:
            return _unread(self.trials[index], error)
        except (ValidationError, OSError):
            return None
        return record if record.status != "error" or _digest(path) != self._before[index] else None

    def _path(self, index: int) -> Path:
        return self.folder / f"{self.trials[index].trial_id}.json"

    def _name(self, index: int) -> str:
        trial = self.trials[index]
        return f"{', '.join(trial.point)} seed {trial.seed}"

    def _say_once(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            self._say(text)


def _unread(trial: Trial, error: NewerVersion) -> TrialRecord:
    """Stands for a record that another driver has made and this version cannot read; it is not written."""
    config = trial.config.model_dump(mode="json")
    return TrialRecord(trial_id=trial.trial_id, status="error", error=str(error), config=config)


def _digest(path: Path) -> str | None:
    try:
        return hashlib.blake2b(path.read_bytes()).hexdigest()
    except OSError:
        return None
