"""Rebuilds a sweep's page while it runs, so that a long one can be watched from a browser."""

import os
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType

from bench.config.expand import Trial
from bench.leaderboard import results
from bench.records.record import MANIFEST, TrialRecord
from bench.report import page
from bench.system.files import write_whole
from bench.training.loop import Epoch

SHARE = 0.05
"""Largest share of the time that rebuilding takes, however large the sweep is."""
NICE = 10
"""Niceness of the thread: the trials share the cores and have priority."""
POLL_SECONDS = 0.2


class LivePage:
    """Rebuilds the page in the background: at once, and then whenever a trial has started or ended.

    folder: the results folder; the page is built when the run has written its manifest there. every: seconds between
    two rebuilds, ``None`` for no page at all. say: prints a line. The first rebuild that fails is reported, and the
    sweep goes on.
    """

    def __init__(self, folder: Path, every: float | None, say: Callable[[str], None]) -> None:
        self.folder, self.every, self.say = folder, every, say
        self.running: set[str] = set()
        self.changed, self.failed = False, False
        self._stopped, self._writing = threading.Event(), threading.Lock()
        self._thread = threading.Thread(target=self._run, name="live page", daemon=True)

    def __enter__(self) -> "LivePage":
        if self.every is not None:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Waits until nothing is being written: the final report comes next.

        After an error or an interrupt it does not wait for a page that is still being built.
        """
        with self._writing:
            self._stopped.set()
        if self.every is not None and error is None:
            self._thread.join()

    def of(self, trials: Sequence[Trial]) -> "_Round":
        """Makes a watcher of these trials, which are in the manifest now; the page is built at once."""
        self.changed = True
        return _Round(self, trials)

    def _run(self) -> None:
        with suppress(OSError, AttributeError):  # only Linux has niceness for a thread
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
        next_at = 0.0
        while not self._stopped.wait(POLL_SECONDS):
            started = time.monotonic()
            if self.changed and started >= next_at:
                self.changed = False
                self._rebuild()
                next_at = max(started + self.every, time.monotonic() + (time.monotonic() - started) / SHARE)

    def _rebuild(self) -> None:
        try:
            if (self.folder / MANIFEST).exists():
                found, _ = results.load(self.folder)
                found = replace(found, running=frozenset(self.running))
                text = page.html(found, found.board()).encode()
                with self._writing:
                    if not self._stopped.is_set():
                        write_whole(self.folder / page.NAME, lambda file: file.write(text))
        except Exception as error:  # a page may not end the sweep
            if not self.failed:
                self.say(f"note: the page could not be rebuilt ({type(error).__name__}: {error}); the sweep goes on")
            self.failed = True


@dataclass(frozen=True)
class _Round:
    """A ``Watcher`` that notes for the page which trials run."""

    page: LivePage
    trials: Sequence[Trial]

    def started(self, index: int) -> None:
        self.page.running.add(self.trials[index].trial_id)
        self.page.changed = True

    def epoch(self, index: int, epoch: Epoch) -> None:
        """Does nothing: losses reach the page with the record."""

    def finished(self, index: int, record: TrialRecord) -> None:
        self.page.running.discard(self.trials[index].trial_id)
        self.page.changed = True
