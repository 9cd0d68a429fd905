"""The process of a trial: runs the trial that was requested, reports its epochs, and saves its record.

``python -m bench.processes.trial_process`` reads the request (a ``bench.processes.client.Request``) from standard
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
from bench.processes.client import Request
from bench.processes.events import telling
from bench.records.record import TrialRecord
from bench.records.store import save_or_keep
from bench.system.process_tree import end_with
from bench.training import training_state
from bench.training.data_parallel import Share
from bench.trial import run_trial

SIGN_OF_LIFE_SECONDS = 2.0


def run_requested(request: Request) -> None:
    """Runs a trial in this process, which is its own and ends with the one that started it."""
    threading.Thread(target=end_with, args=(os.getppid(), 1), daemon=True).start()
    config = TrialConfig.model_validate_json(request.config)
    with suppress(OSError):  # as a list of processes shows it, on Linux
        Path("/proc/self/comm").write_text(f"trial-{config.trial_id[:8]}")
    with telling() as (tell, alive):
        record = run_trial(
            config,
            threads=request.threads,
            trials_at_once=request.trials_at_once,
            on_epoch=tell,
            on_step=seldom(alive),
            checkpoints=checkpoints_of(request),
        )
    leave(record, request)


def checkpoints_of(request: Request, share: Share = Share()) -> training_state.TrainingStates:
    """Where a requested trial goes on from."""
    folder = training_state.place(Path(request.folder), TrialConfig.model_validate_json(request.config).trial_id)
    return training_state.TrainingStates(folder, request.checkpoint_seconds, share)


def leave(record: TrialRecord, request: Request) -> None:
    """Writes the record to where it was requested."""
    if record.provenance is not None:
        came_from = record.provenance.model_copy(update={"node": request.node})
        record = record.model_copy(update={"provenance": came_from})
    save_or_keep(record, Path(request.folder))


def seldom(call: Callable[[], Any], seconds: float = SIGN_OF_LIFE_SECONDS) -> Callable[[], None]:
    """``call``, made at most once in so many seconds."""
    last = -seconds

    def maybe() -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= seconds:
            last = now
            call()

    return maybe


if __name__ == "__main__":
    from bench.processes.preload import import_for  # a fork server has done it before

    requested = Request.from_json(sys.stdin.read())
    import_for([requested.config])
    run_requested(requested)
