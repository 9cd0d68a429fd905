"""How the commands begin and end, whatever becomes of their output and whoever stops them.

A command's file calls ``begin`` before all other imports and ends with ``sys.exit(run(main))``. Output that nobody can
take costs the output alone; a signal ends a command in one line with exit code 130.
"""

import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from io import TextIOWrapper
from types import FrameType
from typing import Any, TextIO

from bench.system.interrupt import INTERRUPTED, Interrupts, Terminated


def begin() -> None:
    """For the seconds that imports take: Ctrl-C and SIGTERM end the process then and there.

    An exception would come up in the midst of some library. There is nothing to clean up yet.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:  # closed: a file of ours would get the number, and with it what libraries print
            os.open(os.devnull, os.O_RDWR)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _leave)


def _leave(number: int, frame: FrameType | None) -> None:
    with suppress(OSError):
        os.write(1, f"{_word(number == signal.SIGTERM)}: nothing was begun\n".encode())
    os._exit(INTERRUPTED)


def run(main: Callable[[list[str]], int]) -> int:
    """Runs a command with the arguments of this process; returns its exit code."""
    sys.stderr = _Stream(sys.stderr, "standard error")
    sys.stdout = _Stream(sys.stdout, "standard output", told=sys.stderr)
    stopped = None
    try:
        with Interrupts(patient=False):
            code = main(sys.argv[1:])
    except KeyboardInterrupt as interrupt:
        code, stopped = INTERRUPTED, interrupt
    for number in (signal.SIGINT, signal.SIGTERM):  # all is done, and Python's own end takes a moment
        signal.signal(number, signal.SIG_IGN)
    if stopped is not None:
        print(f"{_word(isinstance(stopped, Terminated))}: what was not finished is not kept")
    sys.stdout.flush()
    sys.stderr.flush()
    if _skips_exit_handlers:
        os._exit(code)
    return code


_skips_exit_handlers = False


def skip_exit_handlers() -> None:
    """Ends the command without what libraries do when Python ends: it would wait for ever."""
    global _skips_exit_handlers
    _skips_exit_handlers = True


def _word(terminated: bool) -> str:
    return "terminated" if terminated else "interrupted"


class _Stream:
    """Standard output or error, which may be full, closed, or a pipe whose reader has ended.

    The first failure is said once to ``told``; from then on what is written goes nowhere. What the encoding lacks is
    written as a question mark, on standard error by its number.
    """

    def __init__(self, stream: TextIO | None, name: str, told: TextIO | None = None) -> None:
        self._name, self._told = name, told
        self._stream = stream
        self.lost = stream is None
        if stream is None:
            self._stream = open(os.devnull, "w")
            self._say("it is closed")
        elif isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace" if told else "backslashreplace")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError as error:
            self._lose(error)
        return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            self._lose(error)
            self._stream.flush()  # what is left, for Python would try again at its end

    def _lose(self, error: OSError) -> None:
        self.lost = True
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())  # for those, too, who write without asking here
        os.close(nowhere)
        self._say(error.strerror)

    def _say(self, why: str) -> None:
        if self._told is not None:
            print(f"note: {self._name} takes nothing ({why}); the command goes on without it", file=self._told)
