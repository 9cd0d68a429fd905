"""Runs trials one after another, each in a process of its own, and settles what became of a process.

A process that dies leaves no record, so whoever started it writes an ``error`` record for it: every trial ends as
exactly one record, and what was finished before is never touched. ``bench.schedule_ray`` runs them side by side.
"""

import json
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.early_stopping import EarlyStopping
from bench.progress import Watcher
from bench.record import TrialRecord, load
from bench.sweep import Trial
from bench.train import Epoch


def run_serially(
    trials: list[Trial], folder: Path, watcher: Watcher, *, threads: int, stopping: EarlyStopping | None = None
) -> None:
    """Every trial in a fresh process; Ray is not needed. Leaves one record for each in ``folder``.

    A trial that ``stopping`` gives up is killed and leaves the record ``stopped early``.
    """
    for index, trial in enumerate(trials):
        watcher.started(index)
        if stopping:
            stopping.started(trial)
        with tempfile.TemporaryFile() as complaints:
            command = [sys.executable, "-m", "bench.trial", str(folder), str(threads)]
            child = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=complaints, text=True
            )
            with child:
                try:
                    child.stdin.write(trial.config.model_dump_json())
                    child.stdin.close()
                    for line in child.stdout:
                        epoch = json.loads(line)
                        watcher.epoch(index, epoch["epoch"], epoch["train_loss"], epoch["val_loss"])
                        if stopping and not stopping.goes_on(trial, Epoch(**epoch)):
                            child.kill()
                            break
                except BrokenPipeError:
                    pass  # it died before it had read its trial; how, is said below
                except BaseException:
                    child.kill()
                    raise
            complaints.seek(0)
            said = complaints.read().decode(errors="replace")
        if stopping:
            stopping.settle(trial, folder)
        watcher.finished(index, settle(trial, folder, f"{said}\n{_how_it_ended(child.returncode)}"))


def forget_errors(trials: list[Trial], folder: Path) -> None:
    """Removes the error records of trials that are about to run again, so that a new death cannot hide behind one."""
    for trial in trials:
        (folder / f"{trial.trial_id}.json").unlink(missing_ok=True)


def settle(trial: Trial, folder: Path, reason: str) -> TrialRecord:
    """The record that the trial's process left; without one, an ``error`` record with ``reason`` is written."""
    path = folder / f"{trial.trial_id}.json"
    if path.exists():
        return load(path)
    config = trial.config.model_dump(mode="json")
    record = TrialRecord(trial_id=trial.trial_id, status="error", error=reason.strip(), config=config)
    record.save(folder)
    return record


def _how_it_ended(code: int) -> str:
    """An exit code in words."""
    if code >= 0:
        return f"the process ended with code {code} and without a record"
    hint = " (often the kernel's doing, when memory runs out)" if -code == signal.SIGKILL else ""
    return f"the process was killed by {signal.Signals(-code).name}{hint}"
