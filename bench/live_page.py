"""Rebuilds a sweep's report while it runs, so that a long one can be watched from a browser."""

import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from bench import report
from bench.record import TrialRecord
from bench.report import results
from bench.train import Epoch

SHARE = 0.05  # of the time at most goes into rebuilding, however large the sweep is
NICE = 10  # below the trials, which share the cores


class LivePage:
    """A ``Watcher`` that rebuilds the report in the background: at once, and then whenever something has changed.

    folder: the results folder, which holds its manifest; every: seconds between two rebuilds, ``None`` for none at all; say:
    prints a line. A rebuild that fails is said once, and the sweep goes on.
    """

    def __init__(self, folder: Path, every: float | None, say: Callable[[str], None]) -> None:
        self.folder, self.every, self.say = folder, every, say
        self.changed, self.stopped = True, threading.Event()
        self.failed = False
        self.thread = threading.Thread(target=self._run, name="live page", daemon=True)

    def __enter__(self) -> "LivePage":
        if self.every:
            self.thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Returns when nothing is being written any more: the final report comes next."""
        self.stopped.set()
        if self.every:
            self.thread.join()

    def started(self, index: int) -> None:
        """A trial that runs has no record yet: nothing to be rebuilt."""

    def epoch(self, index: int, epoch: Epoch) -> None:
        """Likewise."""

    def finished(self, index: int, record: TrialRecord) -> None:
        self.changed = True

    def _run(self) -> None:
        with suppress(OSError, AttributeError):  # a thread has its own niceness on Linux alone
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
        pause = 0.0
        while not self.stopped.wait(pause):
            pause = self.every
            if self.changed:
                self.changed = False
                started = time.monotonic()
                self._rebuild()
                pause = max(self.every, (time.monotonic() - started) / SHARE)

    def _rebuild(self) -> None:
        try:
            found, _ = results.load(self.folder)
            report.write(found, self.folder)
        except Exception as error:  # nothing about a picture of the results may end the results
            if not self.failed:
                self.say(f"note: the page could not be rebuilt ({type(error).__name__}: {error}); the sweep goes on")
            self.failed = True
