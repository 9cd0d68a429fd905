"""Processes that somebody has started: whether they live, and how they are ended without fail.

A driver ends all that it has started, also where those between have died.

A process whose parent was killed becomes another's child, so a list of children loses it. What is started here
carries a mark in its environment, which its own children inherit. Ray's helpers overwrite theirs with the title that
they show: those are noted by number while they are children still.
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
END_SECONDS = 10.0
POLL_MILLISECONDS = 500


def is_dead(process: psutil.Process | None) -> bool:
    """Also true of one whose number is another's by now, and of ``None``, which was never seen alive."""
    with suppress(psutil.NoSuchProcess):
        return process is None or not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    return True


def end(process: psutil.Process | None) -> None:
    """Kills a process that leads a group, with its group, and waits for its death.

    One that the kernel does not let go, in a call that nothing interrupts, is left after ``END_SECONDS``.
    """
    deadline = time.monotonic() + END_SECONDS
    while not is_dead(process) and time.monotonic() < deadline:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        time.sleep(0.01)


def end_with(parent: int, listener: int | None = None) -> None:
    """Ends this process with the one that started it: a driver that was killed cannot end its trials, which would run
    beside those of the next one.

    listener: a descriptor whose other end is who listens; that end tells, too, for the parent may be stopped.
    """
    connection = select.poll()
    if listener is not None:
        connection.register(listener, 0)  # that it is closed, or broken, is told without being asked for
    while os.getppid() == parent and not connection.poll(POLL_MILLISECONDS):
        pass
    os._exit(1)


class Family:
    """What is started within the ``with``."""

    def __init__(self) -> None:
        self._mark = f"{os.getpid()}-{uuid4().hex}"
        self._noted: set[psutil.Process] = set()
        self._others: set[psutil.Process] = set()

    def __enter__(self) -> "Family":
        self._before = os.environ.get(MARK)
        self._others = _children()
        os.environ[MARK] = self._mark
        return self

    def __exit__(self, *problem: Any) -> None:
        if self._before is None:
            del os.environ[MARK]
        else:
            os.environ[MARK] = self._before

    def note(self) -> set[psutil.Process]:
        """Notes the children of now, and theirs; returns all that were noted."""
        self._noted |= _children() - self._others
        return self._noted

    def end(self) -> None:
        """Kills all that live, and waits for their death, but not for one that the kernel does not let go."""
        deadline = time.monotonic() + END_SECONDS
        while (alive := self._alive()) and time.monotonic() < deadline:
            for process in alive:
                with suppress(psutil.Error):
                    process.kill()
            time.sleep(0.05)

    def _alive(self) -> list[psutil.Process]:
        marked = [
            process for process in psutil.process_iter() if process.pid != os.getpid() and self._is_marked(process)
        ]
        return [process for process in {*marked, *self.note()} if not is_dead(process)]

    def _is_marked(self, process: psutil.Process) -> bool:
        with suppress(psutil.Error, OSError):  # another user's
            return process.environ().get(MARK) == self._mark
        return False


def _children() -> set[psutil.Process]:
    return set(psutil.Process().children(recursive=True))
