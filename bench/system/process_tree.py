"""Processes and their descendants: whether they live, and how they are killed without fail.

A driver kills all processes that it has started, also where those between have died. A process whose parent was killed
becomes a child of another process, so a list of children loses it. For that reason a process that is started here
carries a mark in its environment, which its children inherit. Ray's helpers overwrite their environment with the title
that they show. Those are tracked by their numbers while they are still children.
"""

import os
import select
import signal
import time
from contextlib import suppress
from typing import Any
from uuid import uuid4

import psutil

MARK = "SAM3_BENCH_DRIVER"
KILL_SECONDS = 10.0
"""Longest wait for the death of processes that were killed."""
POLL_MILLISECONDS = 500


def is_dead(process: psutil.Process | None) -> bool:
    """Whether a process has ended; also true if another process has its number now, and for ``None``."""
    with suppress(psutil.NoSuchProcess):
        return process is None or not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    return True


def kill_group(process: psutil.Process | None) -> None:
    """Kills a process that leads a group, with its group, and waits for its death.

    The wait ends after ``KILL_SECONDS``: the kernel does not end a process within a call that nothing interrupts.
    """
    deadline = time.monotonic() + KILL_SECONDS
    while not is_dead(process) and time.monotonic() < deadline:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        time.sleep(0.01)


def exit_with_parent(parent: int, listener: int | None = None) -> None:
    """Waits until the parent has ended, and then ends this process.

    A driver that was killed cannot end its trials, which would run at the same time as those of the next driver.
    listener: a descriptor whose other end the driver holds. Its end counts, too, for the parent may be stopped.
    """
    connection = select.poll()
    if listener is not None:
        connection.register(listener, 0)  # that it is closed or broken is always reported
    while os.getppid() == parent and not connection.poll(POLL_MILLISECONDS):
        pass
    os._exit(1)


class ProcessTree:
    """All processes that are started within the ``with``."""

    def __init__(self) -> None:
        self._mark = f"{os.getpid()}-{uuid4().hex}"
        self._tracked: set[psutil.Process] = set()
        self._others: set[psutil.Process] = set()

    def __enter__(self) -> "ProcessTree":
        self._before = os.environ.get(MARK)
        self._others = _children()
        os.environ[MARK] = self._mark
        return self

    def __exit__(self, *problem: Any) -> None:
        if self._before is None:
            del os.environ[MARK]
        else:
            os.environ[MARK] = self._before

    def track_children(self) -> set[psutil.Process]:
        """Tracks the present children and their children; returns all processes that were tracked so far."""
        self._tracked |= _children() - self._others
        return self._tracked

    def kill(self) -> None:
        """Kills all processes that live, and waits for their death, for ``KILL_SECONDS`` at most."""
        deadline = time.monotonic() + KILL_SECONDS
        while (alive := self._alive()) and time.monotonic() < deadline:
            for process in alive:
                with suppress(psutil.Error):
                    process.kill()
            time.sleep(0.05)

    def _alive(self) -> list[psutil.Process]:
        found = set(self.track_children())
        for process in psutil.process_iter():
            if process.pid != os.getpid() and self._is_marked(process):
                found.add(process)
        return [process for process in found if not is_dead(process)]

    def _is_marked(self, process: psutil.Process) -> bool:
        with suppress(psutil.Error, OSError):  # a process of another user
            return process.environ().get(MARK) == self._mark
        return False


def _children() -> set[psutil.Process]:
    return set(psutil.Process().children(recursive=True))
