"""Runs trials one after another, each in a process of its own. ``bench.schedule_ray`` runs them side by side.

A process that dies leaves no record, so ``bench.work`` writes an ``error`` record for it: every trial ends as exactly
one record, and what was finished before is never touched.
"""

import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from functools import partial
from typing import IO

from bench.telling import hear
from bench.work import Work

POLL_SECONDS = 0.25


def run_serially(work: Work, *, threads: int, gpus_per_trial: int = 1) -> None:
    """Every trial in a fresh process; Ray is not needed. Leaves one record for each that was not another driver's."""
    while not work.over:
        index = work.take()
        if index is None:
            time.sleep(POLL_SECONDS)
        else:
            _run(work, index, threads, gpus_per_trial)


def _run(work: Work, index: int, threads: int, gpus_per_trial: int) -> None:
    trial = work.trials[index]
    work.started(index)
    with tempfile.TemporaryFile() as complaints:
        command = [sys.executable, "-m", "bench.trial", str(work.folder), str(threads), str(work.checkpoint_seconds)]
        if gpus_per_trial > 1:
            command = [sys.executable, "-m", "bench.ranks", str(work.folder), str(threads), str(gpus_per_trial)]
        command.append(str(os.getpid()))
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": complaints, "text": True}
        child = subprocess.Popen(command, start_new_session=True, **pipes)  # Ctrl-C is for the driver
        with child:
            try:
                with suppress(BrokenPipeError):  # it died before it had read its trial; how, is said below
                    child.stdin.write(trial.config.model_dump_json())
                    child.stdin.close()
                _follow(work, index, child)
            except BaseException:
                child.kill()
                raise
        complaints.seek(0)
        said = complaints.read().decode(errors="replace")
    work.settle(index, f"{said}\n{how_it_ended(child.returncode)}")


def _follow(work: Work, index: int, child: subprocess.Popen) -> None:
    """Until the child says no more: hands on its epochs, and kills it when it is overdue."""
    lines: queue.Queue[str | None] = queue.Queue()
    threading.Thread(target=_read, args=(child.stdout, lines), daemon=True).start()
    line: str | None = ""
    while line is not None:
        work.tick()
        if work.overdue(index):
            child.kill()
        try:
            line = lines.get(timeout=POLL_SECONDS)
        except queue.Empty:
            continue
        if line is not None:
            hear(line, partial(work.epoch, index), partial(work.alive, index))


def _read(source: IO[str], lines: "queue.Queue[str | None]") -> None:
    for line in source:
        lines.put(line)
    lines.put(None)


def how_it_ended(code: int) -> str:
    """An exit code in words."""
    if code >= 0:
        return f"the process ended with code {code} and without a record"
    hint = " (often the kernel's doing, when memory runs out)" if -code == signal.SIGKILL else ""
    return f"the process was killed by {signal.Signals(-code).name}{hint}"
