"""The queue of a driver's trials: hands them out one at a time, observes them while they run, and records how they end.

Both executors take their trials from here, so the same rules hold for both. A trial is locked before it starts, so two
drivers on one results folder share the trials. Each trial ends as exactly one record, however its process ends. No
trial exceeds its time limits.
"""

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from bench.config.expand import Trial
from bench.records.record import TrialRecord
from bench.records.schema import NewerVersion
from bench.records.store import load, unsaved
from bench.scheduling import cluster
from bench.scheduling.time_limits import Limits, TimeLimits
from bench.search.early_stopping import EarlyStopping
from bench.system.files import set_aside
from bench.system.locks import ProcessLock, owner_of
from bench.training import training_state
from bench.training.loop import Epoch
from bench.watching.display import Watcher

RETRY_SECONDS = 1.0
"""Time between two attempts to lock trials that other drivers have locked."""


class TrialQueue:
    """The trials of one driver, which are numbered from 0."""

    def __init__(
        self,
        trials: Sequence[Trial],
        folder: Path,
        watcher: Watcher,
        *,
        say: Callable[[str], None],
        stop_requested: Callable[[], bool] = lambda: False,
        limits: Limits = Limits(),
        checkpoint_seconds: float = training_state.EVERY_SECONDS,
        stopping: EarlyStopping | None = None,
    ) -> None:
        """folder: where records are saved. say: prints a line. stop_requested: true when no further trial shall start.
        checkpoint_seconds: time between two training states of a trial. stopping: the rule of early stopping."""
        self.trials, self.folder, self.watcher = trials, folder, watcher
        self.checkpoint_seconds, self.stop_requested = checkpoint_seconds, stop_requested
        self.records: dict[str, TrialRecord] = {}
        """Records of the trials that this driver has ended, on disk or not."""
        self.problems: list[str] = []
        """Files that could not be written, one line each."""
        self.died: str | None = None
        """How the executor died, so that the other trials cannot run; ``None`` while it lives."""
        self.time_limits = TimeLimits(limits)
        self._say, self._stopping = say, stopping
        self._waiting = list(range(len(trials)))
        self._old_digests = {index: _digest(self._path(index)) for index in self._waiting}
        self._locks: dict[int, ProcessLock | None] = {}
        self._kill_reasons: dict[int, str] = {}
        self._retried: set[int] = set()
        self._said: set[str] = set()
        self._next_attempt = 0.0

    # --- trials that wait ---------------------------------------------------------------------------------------------

    @property
    def exhausted(self) -> bool:
        """Whether no further trial will be handed out."""
        return not self._waiting or self.stop_requested()

    def take(self) -> int | None:
        """Locks the next trial and returns its number; ``None`` while other drivers run those that are left."""
        self.tick()
        if self.exhausted or time.monotonic() < self._next_attempt:
            return None
        for index in list(self._waiting):
            if not self._lock(index):
                continue
            self._waiting.remove(index)
            record = self._record_of_another_driver(index)
            if record is None:
                with suppress(OSError):  # an old error: it must not hide a new failure
                    self._path(index).unlink(missing_ok=True)
                return index
            self._release_lock(index)
            self.watcher.finished(index, record)
        self._next_attempt = time.monotonic() + RETRY_SECONDS
        return None

    def put_back(self, index: int) -> None:
        """Puts a trial whose process was lost back in the queue."""
        self.time_limits.stop(index)
        self._release_lock(index)
        self._waiting.append(index)

    def retry_once(self, index: int, reason: str) -> bool:
        """Puts a trial back that failed because its executor failed; it resumes from its last checkpoint.

        Returns false where the trial has to be finished instead: after its second loss, if it has left a record, or if
        it already had a reason to be killed.
        """
        is_kept = (unsaved() / self._path(index).name).exists()
        if index in self._retried or index in self._kill_reasons or is_kept or self.has_record(index):
            return False
        self._retried.add(index)
        self.note(index, f"{reason.strip().splitlines()[-1]}; the trial is started once more, from its last checkpoint")
        self.put_back(index)
        return True

    def release_locks(self) -> None:
        """Releases all locks, so that another driver can run these trials."""
        for index in list(self._locks):
            self._release_lock(index)

    # --- trials that run ----------------------------------------------------------------------------------------------

    def start(self, index: int) -> None:
        """Notes that a trial's process is being started."""
        self.time_limits.start(index)
        if self._stopping:
            self._stopping.start(self.trials[index])
        self.watcher.started(index)

    def heartbeat(self, index: int) -> None:
        """Notes that a trial has done a step."""
        self.time_limits.heartbeat(index)

    def report_epoch(self, index: int, epoch: Epoch) -> None:
        """Passes an epoch on to the watchers and to early stopping."""
        self.heartbeat(index)
        self.watcher.epoch(index, epoch)
        if self._stopping and not self._stopping.continues(self.trials[index], epoch):
            self._kill_reasons[index] = "stopped early"

    def tick(self) -> None:
        """Advances the clock of the time limits; executors call it several times a second."""
        self.time_limits.tick()
        if self.stop_requested():
            names = "; ".join(self._name(index) for index in self.time_limits.running) or "none"
            self._say_once(
                f"stopping: no more trials start. Still running to their end: {names}. Ctrl-C again stops them"
            )

    def kill_reason(self, index: int) -> str | None:
        """Returns why a running trial has to be killed now, in words for its record; ``None`` if it may go on."""
        if index not in self._kill_reasons:
            reason = self.time_limits.exceeded(index, self.trials[index].config)
            if reason is None:
                return None
            self._kill_reasons[index] = reason
        return self._kill_reasons[index]

    def note(self, index: int, text: str) -> None:
        """Prints a note about a trial, once."""
        self._say_once(f"note: {self._name(index)}: {text}")

    # --- trials that end ----------------------------------------------------------------------------------------------

    def receive_files(self, index: int, files: Mapping[str, bytes]) -> None:
        """Saves a record whose files come from a machine that does not have the results folder."""
        trial_id = self.trials[index].trial_id
        try:
            cluster.unpack(files, trial_id, self.folder)
        except OSError:
            with suppress(OSError):  # ``finish`` reports where the files are
                unsaved().mkdir(parents=True, exist_ok=True)
                cluster.unpack(files, trial_id, unsaved())

    def has_record(self, index: int) -> bool:
        """Whether the trial has saved its record."""
        return _digest(self._path(index)) not in (None, self._old_digests[index])

    def finish(self, index: int, reason: str) -> None:
        """Ends a trial whose process has ended. A trial without a record of its own gets an error with ``reason``."""
        self.time_limits.stop(index)
        record = self._final_record(index, self._kill_reasons.get(index, reason.strip()))
        self.records[record.trial_id] = record
        if record.status != "error":
            training_state.remove(self.folder, record.trial_id)
        self._release_lock(index)
        self.watcher.finished(index, record)
        for note in record.notes:
            self._say(f"note: {self._name(index)}: {note}")

    def _final_record(self, index: int, reason: str) -> TrialRecord:
        trial, path = self.trials[index], self._path(index)
        if self._stopping:
            try:
                self._stopping.save_record(trial, self.folder)
            except OSError as error:
                self.problems.append(f"{self._name(index)}: stopped early, which cannot be written: {error}")
        if self.has_record(index):
            try:
                return load(path)
            except NewerVersion as error:  # another driver of a newer version has saved it
                return _unreadable(trial, error)
            except (ValueError, OSError) as error:
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

    def _record_of_another_driver(self, index: int) -> TrialRecord | None:
        """The record that another driver has saved since this one started; older errors do not count."""
        path = self._path(index)
        try:
            record = load(path)
        except NewerVersion as error:
            return _unreadable(self.trials[index], error)
        except (ValueError, OSError):
            return None
        return record if record.status != "error" or self.has_record(index) else None

    # --- locks --------------------------------------------------------------------------------------------------------

    def _lock(self, index: int) -> bool:
        """Whether the trial could be locked. Where the file system has no locks, a note says so and no lock is held."""
        path = self.folder / training_state.FOLDER / f"{self.trials[index].trial_id}.lock"
        try:
            lock = ProcessLock.acquire(path)
        except OSError as error:
            self._say_once(f"note: no locks below {self.folder} ({error}): do not run two drivers on it")
            self._locks[index] = None
            return True
        if lock is None:
            self._say_once(f"{self._name(index)} is being run by {owner_of(path)}; waiting for its record")
            return False
        self._locks[index] = lock
        return True

    def _release_lock(self, index: int) -> None:
        lock = self._locks.pop(index, None)
        if lock is not None:
            lock.release()

    # --- names --------------------------------------------------------------------------------------------------------

    def _path(self, index: int) -> Path:
        return self.folder / f"{self.trials[index].trial_id}.json"

    def _name(self, index: int) -> str:
        return self.trials[index].name

    def _say_once(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            self._say(text)


def _unreadable(trial: Trial, error: NewerVersion) -> TrialRecord:
    """Stands for a record that another driver has saved and this version cannot read; it is not written."""
    config = trial.config.model_dump(mode="json")
    return TrialRecord(trial_id=trial.trial_id, status="error", error=str(error), config=config)


def _digest(path: Path) -> str | None:
    """Identifies the content of a file; ``None`` if there is none."""
    try:
        return hashlib.blake2b(path.read_bytes()).hexdigest()
    except OSError:
        return None
