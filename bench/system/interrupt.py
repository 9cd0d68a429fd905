"""Ctrl-C and SIGTERM. While trials run, Ctrl-C once: they are finished and no others start. Twice, or SIGTERM, or at any
other time: everything stops at once."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType

INTERRUPTED = 130
"""Exit code of a command that was interrupted."""
STOP_SECONDS = 30.0
"""How long a command that stops at once may take before a further signal ends it without more ado."""


class Terminated(KeyboardInterrupt):
    """Somebody sent SIGTERM: a scheduler whose time is up, or a machine that goes down."""


class Interrupts:
    """Listens while it is entered. ``asked`` is true from the first Ctrl-C on, ``stopping`` when all is to stop at once.

    To stop at once is a ``KeyboardInterrupt``, and leaves here as ``Terminated`` if SIGTERM was the reason: libraries
    on the way may have raised another one in its place. Further signals do not disturb the way out.
    """

    def __init__(self, patient: bool = True) -> None:
        """patient: whether the first Ctrl-C only asks."""
        self.patient = patient
        self.asked = self.terminated = self.stopping = False
        self._since = 0.0

    def __enter__(self) -> "Interrupts":
        self._before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        self.listen()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self.terminated and isinstance(error, KeyboardInterrupt):
            raise Terminated from None

    def listen(self) -> None:
        """Again after a library has put its own handlers in."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._handle)

    @contextmanager
    def patience(self) -> Iterator[None]:
        """For the body, the first Ctrl-C only asks."""
        before, self.patient = self.patient, True
        try:
            yield
        finally:
            self.patient = before

    def check(self) -> None:
        """Raises what the signal has raised, in case that a library has swallowed it."""
        if self.stopping:
            raise Terminated if self.terminated else KeyboardInterrupt

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.stopping:
            if time.monotonic() - self._since > STOP_SECONDS:
                os._exit(INTERRUPTED)
            return
        if number == signal.SIGTERM:
            self.terminated = True
        elif self.patient and not self.asked:
            self.asked = True  # and nothing is printed here: the signal may have come in the middle of a print
            return
        self.stopping, self._since = True, time.monotonic()
        self.check()
