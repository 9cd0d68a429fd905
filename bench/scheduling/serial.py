"""Runs trials one after another, each in a process of its own. ``bench.scheduling.ray_tune`` runs them at the same time.

A process that dies leaves no record, so ``bench.scheduling.trial_queue`` writes an ``error`` record for it. Every trial
ends as exactly one record, and finished records are never changed.
"""

import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from queue import Empty, Queue

from bench.processes.client import END_SECONDS, ForkServer, RunningTrial, start
from bench.processes.events import dispatch_event
from bench.processes.request import Request
from bench.scheduling.trial_queue import TrialQueue

POLL_SECONDS = 0.25


def run_serially(queue: TrialQueue, server: ForkServer | None, *, threads: int, gpus_per_trial: int = 1) -> None:
    """Runs every trial in a process of its own, without Ray; leaves one record for each that no other driver runs.

    server: forks them; not needed for trials on several GPUs, which have a process for each.
    """
    while not queue.exhausted:
        index = queue.take()
        if index is None:
            time.sleep(POLL_SECONDS)
            continue
        queue.start(index)
        reason, is_lost = _run(queue, index, threads, gpus_per_trial, server)
        if not is_lost or not queue.retry_once(index, reason):
            queue.finish(index, reason)


def _run(queue: TrialQueue, index: int, threads: int, gpus: int, server: ForkServer | None) -> tuple[str, bool]:
    """Returns how the trial's process ended, and whether it was lost because its fork server failed."""
    config = queue.trials[index].config.model_dump_json()
    request = Request(config, str(queue.folder), threads, queue.checkpoint_seconds, gpus=gpus)
    try:
        process = start(request, server and server.address)
    except OSError as error:
        return str(error), True
    _follow(queue, index, process)
    return process.how_it_ended, process.exit_code is None


def _follow(queue: TrialQueue, index: int, process: RunningTrial) -> None:
    """Passes the events of a process on until it ends; kills it when the queue wants it or this process is stopped."""
    lines: Queue[str | None] = Queue()
    reader = threading.Thread(target=_read, args=(process, lines), daemon=True)
    reader.start()
    line: str | None = ""
    try:
        while line is not None:
            queue.tick()
            if queue.kill_reason(index):
                process.kill()
            with suppress(Empty):
                line = lines.get(timeout=POLL_SECONDS)
                if line is not None:
                    dispatch_event(line, partial(queue.report_epoch, index), partial(queue.heartbeat, index))
    except BaseException:
        process.kill()
        reader.join(3 * END_SECONDS)  # for its end, and for those of its server and its trial if they hang
        raise


def _read(source: Iterable[str], lines: "Queue[str | None]") -> None:
    try:
        for line in source:
            lines.put(line)
    finally:
        lines.put(None)
