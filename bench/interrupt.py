"""Ctrl-C once: the trials that run are finished and no others start. Twice, or SIGTERM: everything stops at once."""

import signal
from types import FrameType, TracebackType


class Terminated(KeyboardInterrupt):
    """Somebody sent SIGTERM: a scheduler whose time is up, or a machine that goes down."""


class Interrupts:
    """Listens while it is entered. ``asked`` is true from the first Ctrl-C on.

    To stop at once is a ``KeyboardInterrupt``, and leaves here as ``Terminated`` if SIGTERM was the reason: libraries
    on the way may have raised another one in its place.
    """

    def __init__(self) -> None:
        self.asked = self.terminated = False

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
        """Again after a library has put its own handlers in, as Ray does."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGTERM:
            self.terminated = True
            raise Terminated
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True  # and nothing is printed here: the signal may have come in the middle of a print
