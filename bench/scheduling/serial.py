"""Runs trials one after another, each in a process of its own. ``bench.scheduling.ray_tune`` runs them side by side.

A process that dies leaves no record, so ``bench.scheduling.trial_queue`` writes an ``error`` record for it: every trial ends as exactly
one record, and what was finished before is never touched.
"""

import queue
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from functools import partial

from bench.processes.client import END_SECONDS, ForkServer, Process, Request, start
from bench.processes.events import hear
from bench.scheduling.trial_queue import Work

POLL_SECONDS = 0.25


def run_serially(work: Work, server: ForkServer | None, *, threads: int, gpus_per_trial: int = 1) -> None:
    """Every trial in a process of its own; Ray is not needed. Leaves one record for each that was not another driver's.

    server: forks them; not needed for trials on several GPUs, which have a process for each.
    """
    while not work.over:
        index = work.take()
        if index is None:
            time.sleep(POLL_SECONDS)
            continue
        work.started(index)
        reason, own = _run(work, index, threads, gpus_per_trial, server)
        if own or not work.once_more(index, reason):
            work.settle(index, reason)


def _run(work: Work, index: int, threads: int, gpus: int, server: ForkServer | None) -> tuple[str, bool]:
    """Returns how the trial's process ended, and whether that was its own doing and not that of who forks trials."""
    config = work.trials[index].config.model_dump_json()
    request = Request(config, str(work.folder), threads, work.checkpoint_seconds, gpus=gpus)
    try:
        process = start(request, server and server.address)
    except OSError as error:
        return str(error), False
    _follow(work, index, process)
    return process.how_it_ended, process.exit_code is not None


def _follow(work: Work, index: int, process: Process) -> None:
    """Until the process says no more: hands on its epochs, and kills it when it is overdue or this one is to stop."""
    lines: queue.Queue[str | None] = queue.Queue()
    reader = threading.Thread(target=_read, args=(process, lines), daemon=True)
    reader.start()
    line: str | None = ""
    try:
        while line is not None:
            work.tick()
            if work.overdue(index):
                process.kill()
            with suppress(queue.Empty):
                line = lines.get(timeout=POLL_SECONDS)
                if line is not None:
                    hear(line, partial(work.epoch, index), partial(work.alive, index))
    except BaseException:
        process.kill()
        reader.join(3 * END_SECONDS)  # for its end, and for those of two processes that do not end by themselves
        raise


def _read(source: Iterable[str], lines: "queue.Queue[str | None]") -> None:
    try:
        for line in source:
            lines.put(line)
    finally:
        lines.put(None)
