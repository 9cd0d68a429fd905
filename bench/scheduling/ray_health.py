"""Whether Ray lives. Its own calls do not tell: they wait for an answer that never comes.

A driver that has started Ray sees the death of Ray's processes, which are its children. That a process hangs, or that
a cluster's head is gone, shows in questions that nobody answers.
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
"""How long Ray may leave questions unanswered."""
MOST_PER_LOOK = 2.0
EXIT_SECONDS = 2.0


class RayWatch:
    """Looks after Ray within the ``with``. ``problem`` says what has become of it."""

    def __init__(self, ask: Callable[[], bool], started: Iterable[psutil.Process] = ()) -> None:
        """ask: asks Ray whether this machine is one of its living nodes; it may take long, and raise anything.
        started: the processes of a Ray that was started here."""
        self.ask = ask
        self.watched: dict[str, psutil.Process] = {}
        for process in started:
            with suppress(psutil.NoSuchProcess):
                if process.name() in NAMES:
                    self.watched[NAMES[process.name()]] = process
        self._answered, self._given_up, self._left = threading.Event(), threading.Event(), threading.Event()
        self._silent, self._looked = 0.0, time.monotonic()
        self._thread = threading.Thread(target=self._ask_on, name="watch Ray", daemon=True)

    def __enter__(self) -> "RayWatch":
        self._thread.start()
        return self

    def __exit__(self, *problem: object) -> None:
        self._left.set()

    def _ask_on(self) -> None:
        while not self._left.wait(ASK_SECONDS):
            self._ask()

    def _ask(self) -> None:
        with suppress(Exception):  # Ray raises what it likes
            (self._answered if self.ask() else self._given_up).set()

    def has_died(self) -> bool:
        """As far as it is known without asking."""
        return self._given_up.is_set() or any(map(is_dead, self.watched.values()))

    def dies(self) -> bool:
        """The same, after Ray was asked, which may take as long as Ray likes."""
        self._ask()
        return self.has_died()

    def problem(self) -> str | None:
        """What has become of Ray, in words; ``None`` while it lives. Call often: time in which nobody calls, because
        this process was stopped, does not count as silence."""
        for name, process in self.watched.items():
            if is_dead(process):
                return f"Ray's {name} (process {process.pid}) {_how(process)}"
        if self._given_up.is_set():
            return "Ray takes this machine for dead: its raylet does not answer"
        now = time.monotonic()
        self._silent += min(now - self._looked, MOST_PER_LOOK)
        self._looked = now
        if self._answered.is_set():
            self._answered.clear()
            self._silent = 0.0
        if self._silent > SILENT_SECONDS:
            self._given_up.set()
            return f"Ray has not answered for {SILENT_SECONDS:.0f} s"
        return None


def _how(process: psutil.Process) -> str:
    """It is this process's child, and nobody else has waited for it.

    Its first thread may be dead before its others are, and only the death of all gives the exit status.
    """
    with suppress(psutil.Error):
        code = process.wait(EXIT_SECONDS)
        if code is not None and code < 0:
            return f"was killed by {signal.Signals(-code).name}"
    return "has ended"
