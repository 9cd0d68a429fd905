"""Runs trials one after another, each in a process of its own. ``bench.schedule_ray`` runs them side by side.

A process that dies leaves no record, so ``bench.work`` writes an ``error`` record for it: every trial ends as exactly
one record, and what was finished before is never touched.
"""

import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial

from bench.forked import ForkServer, Request, in_words
from bench.telling import hear
from bench.work import Work

POLL_SECONDS = 0.25
END_SECONDS = 10
"""How long to wait for the end of a process that was killed."""


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
        if gpus_per_trial > 1:
            how = _run_parallel(work, index, threads, gpus_per_trial)
        else:
            how = _run(work, index, threads, server)
        work.settle(index, how)


def _run(work: Work, index: int, threads: int, server: ForkServer) -> str:
    """Returns how the trial's process ended."""
    config = work.trials[index].config.model_dump_json()
    try:
        process = server.run(Request(config, str(work.folder), threads, work.checkpoint_seconds))
    except OSError as error:
        return str(error)
    _follow(work, index, process, process.kill)
    return process.how_it_ended


def _run_parallel(work: Work, index: int, threads: int, gpus: int) -> str:
    """The same of a trial on several GPUs."""
    command = [sys.executable, "-m", "bench.ranks", str(work.folder), str(threads), str(gpus), str(os.getpid())]
    with tempfile.TemporaryFile() as complaints:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": complaints, "text": True}
        with subprocess.Popen(command, start_new_session=True, **pipes) as child:  # Ctrl-C is for the driver
            with suppress(BrokenPipeError):  # it died before it had read its trial; how, is said below
                child.stdin.write(work.trials[index].config.model_dump_json())
                child.stdin.close()
            _follow(work, index, child.stdout, child.kill)
        complaints.seek(0)
        return f"{complaints.read().decode(errors='replace')}\n{in_words(child.returncode)}"


def _follow(work: Work, index: int, source: Iterable[str], kill: Callable[[], None]) -> None:
    """Until the process says no more: hands on its epochs, and kills it when it is overdue or this one is to stop."""
    lines: queue.Queue[str | None] = queue.Queue()
    reader = threading.Thread(target=_read, args=(source, lines), daemon=True)
    reader.start()
    line: str | None = ""
    try:
        while line is not None:
            work.tick()
            if work.overdue(index):
                kill()
            with suppress(queue.Empty):
                line = lines.get(timeout=POLL_SECONDS)
                if line is not None:
                    hear(line, partial(work.epoch, index), partial(work.alive, index))
    except BaseException:
        kill()
        reader.join(END_SECONDS)
        raise


def _read(source: Iterable[str], lines: "queue.Queue[str | None]") -> None:
    for line in source:
        lines.put(line)
    lines.put(None)
