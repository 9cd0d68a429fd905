"""Ctrl-C and SIGTERM.

While trials run, the first Ctrl-C is a request: they are finished and no others start. A second Ctrl-C, SIGTERM, and
Ctrl-C at any other time stop everything at once.
"""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType

INTERRUPTED = 130
"""Exit code of a command that was interrupted."""
STOP_SECONDS = 30.0
"""Time that a command has for its cleanup; a signal after that ends the process without cleanup."""


class Terminated(KeyboardInterrupt):
    """SIGTERM has come, for example from a scheduler whose time is up, or from a machine that shuts down."""


class Interrupts:
    """Handles both signals within the ``with``.

    ``stop_requested`` is true from the first Ctrl-C on, ``stopping`` when everything has to stop at once. A stop at
    once is a ``KeyboardInterrupt``. It leaves the ``with`` as ``Terminated`` if SIGTERM was the reason: a library may
    have raised another exception in its place. Further signals do not disturb the cleanup.
    """

    def __init__(self, graceful: bool = True) -> None:
        """graceful: whether the first Ctrl-C is only a request."""
        self.graceful = graceful
        self.stop_requested = self.terminated = self.stopping = False
        self._stopping_since = 0.0

    def __enter__(self) -> "Interrupts":
        self._before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        self.install_handlers()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self.terminated and isinstance(error, KeyboardInterrupt):
            raise Terminated from None

    def install_handlers(self) -> None:
        """Installs the handlers, again where a library has installed its own."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._handle)

    @contextmanager
    def graceful_stop(self) -> Iterator[None]:
        """Makes the first Ctrl-C a request within the body."""
        before, self.graceful = self.graceful, True
        try:
            yield
        finally:
            self.graceful = before

    def check(self) -> None:
        """Raises the exception of a stop at once again: a library may have swallowed it."""
        if self.stopping:
            raise Terminated if self.terminated else KeyboardInterrupt

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.stopping:
            if time.monotonic() - self._stopping_since > STOP_SECONDS:
                os._exit(INTERRUPTED)
            return
        if number == signal.SIGTERM:
            self.terminated = True
        elif self.graceful and not self.stop_requested:
            self.stop_requested = True  # nothing is printed here: the signal may have come within a print
            return
        self.stopping, self._stopping_since = True, time.monotonic()
        self.check()
