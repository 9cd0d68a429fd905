"""The process of a trial: runs the trial that was requested, reports its events, and saves its record.

``python -m bench.processes.trial_process`` reads the request (a ``bench.processes.request.Request``) from standard
input and writes events (``bench.processes.events``) to standard output. A process that the fork server has forked
calls ``run_requested`` instead.
"""

import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from bench.config.trial import TrialConfig
from bench.processes.events import report_events
from bench.processes.request import Request
from bench.records.record import TrialRecord
from bench.records.store import save_or_keep
from bench.system.process_tree import exit_with_parent
from bench.training import training_state
from bench.training.data_parallel import Share
from bench.trial import run_trial

HEARTBEAT_SECONDS = 2.0


def run_requested(request: Request) -> None:
    """Runs a trial in this process, which runs nothing else and ends with its parent."""
    threading.Thread(target=exit_with_parent, args=(os.getppid(), 1), daemon=True).start()
    config = TrialConfig.model_validate_json(request.config)
    with suppress(OSError):  # the name in a list of processes, on Linux
        Path("/proc/self/comm").write_text(f"trial-{config.trial_id[:8]}")
    with report_events() as (report_epoch, heartbeat):
        record = run_trial(
            config,
            threads=request.threads,
            trials_at_once=request.trials_at_once,
            on_epoch=report_epoch,
            on_step=throttled(heartbeat),
            checkpoints=checkpoints_of(request),
        )
    save_record(record, request)


def checkpoints_of(request: Request, share: Share = Share()) -> training_state.TrainingStates:
    """The training states from which a requested trial resumes."""
    folder = training_state.place(Path(request.folder), TrialConfig.model_validate_json(request.config).trial_id)
    return training_state.TrainingStates(folder, request.checkpoint_seconds, share)


def save_record(record: TrialRecord, request: Request) -> None:
    """Saves the record in the requested folder."""
    if record.provenance is not None:
        provenance = record.provenance.model_copy(update={"node": request.node})
        record = record.model_copy(update={"provenance": provenance})
    save_or_keep(record, Path(request.folder))


def throttled(call: Callable[[], Any], seconds: float = HEARTBEAT_SECONDS) -> Callable[[], None]:
    """Returns a function that makes the call at most once in this time."""
    last = -seconds

    def call_if_due() -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= seconds:
            last = now
            call()

    return call_if_due


if __name__ == "__main__":
    from bench.processes.preload import import_for  # a fork server has imported it before

    requested = Request.from_json(sys.stdin.read())
    import_for([requested.config])
    run_requested(requested)
