"""Checks whether Ray lives. Ray's own calls do not show it: they wait for an answer that never comes.

A driver that has started Ray sees the death of Ray's processes, which are its children. A process that hangs, and a
cluster whose head is lost, are noticed by requests that stay without an answer.
"""

import signal
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress

import psutil

from bench.system.process_tree import is_dead

NAMES = {"raylet": "raylet", "gcs_server": "GCS"}
ASK_SECONDS = 2.0
SILENT_SECONDS = 45.0
"""Time that Ray may leave requests without an answer."""
MOST_PER_CHECK = 2.0
"""Largest silence that is counted between two checks, in seconds."""
EXIT_SECONDS = 2.0


class RayWatch:
    """Observes Ray within the ``with``; ``problem`` says how it has failed."""

    def __init__(self, ask: Callable[[], bool], started: Iterable[psutil.Process] = ()) -> None:
        """ask: requests from Ray whether this machine is one of its living nodes; may be slow, and raise any exception.
        started: the processes of a Ray that was started here."""
        self.ask = ask
        self.watched: dict[str, psutil.Process] = {}
        for process in started:
            with suppress(psutil.NoSuchProcess):
                if process.name() in NAMES:
                    self.watched[NAMES[process.name()]] = process
        self._answered, self._lost, self._left = threading.Event(), threading.Event(), threading.Event()
        self._silent, self._last_check = 0.0, time.monotonic()
        self._thread = threading.Thread(target=self._ask_repeatedly, name="watch Ray", daemon=True)

    def __enter__(self) -> "RayWatch":
        self._thread.start()
        return self

    def __exit__(self, *problem: object) -> None:
        self._left.set()

    def _ask_repeatedly(self) -> None:
        while not self._left.wait(ASK_SECONDS):
            self._ask()

    def _ask(self) -> None:
        with suppress(Exception):  # Ray raises exceptions of any kind
            (self._answered if self.ask() else self._lost).set()

    def has_died(self) -> bool:
        """Whether Ray is known to be dead, without a request."""
        return self._lost.is_set() or any(map(is_dead, self.watched.values()))

    def dies(self) -> bool:
        """Whether Ray is dead, after a request to it, which may be slow."""
        self._ask()
        return self.has_died()

    def problem(self) -> str | None:
        """Returns how Ray has failed, in words; ``None`` while it lives.

        Call it several times a second: time without calls, because this process was stopped, is no silence of Ray.
        """
        for name, process in self.watched.items():
            if is_dead(process):
                return f"Ray's {name} (process {process.pid}) {_how(process)}"
        if self._lost.is_set():
            return "Ray takes this machine for dead: its raylet does not answer"
        now = time.monotonic()
        self._silent += min(now - self._last_check, MOST_PER_CHECK)
        self._last_check = now
        if self._answered.is_set():
            self._answered.clear()
            self._silent = 0.0
        if self._silent > SILENT_SECONDS:
            self._lost.set()
            return f"Ray has not answered for {SILENT_SECONDS:.0f} s"
        return None


def _how(process: psutil.Process) -> str:
    """How a child of this process has ended; no other code has waited for it.

    Its first thread may be dead before its others are, and only the death of all gives the exit status.
    """
    with suppress(psutil.Error):
        code = process.wait(EXIT_SECONDS)
        if code is not None and code < 0:
            return f"was killed by {signal.Signals(-code).name}"
    return "has ended"
