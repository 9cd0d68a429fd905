"""How commands begin and end, also when their output cannot be written and when a signal stops them.

A command's file calls ``begin`` before all other imports and ends with ``sys.exit(run(main))``. If standard output is
lost, the command goes on without it. A signal ends a command with one line and exit code 130.
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

COMPILED = "TORCHINDUCTOR_CACHE_DIR"
"""Environment variable with the folder of compiled code, which torch makes when it is imported, even without need."""


def begin() -> None:
    """Makes Ctrl-C and SIGTERM end the process at once during the imports, which take seconds.

    An exception would be raised within some library. There is nothing to clean up yet. So is an environment that makes
    the imports fail one line here, with exit code 2.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:  # closed: a file that we open would get its number, and the output of libraries
            os.open(os.devnull, os.O_RDWR)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _exit)
    folder = os.environ.get(COMPILED)
    try:
        if folder:
            os.makedirs(folder, exist_ok=True)
    except OSError as error:
        remedy = "Name a folder that can be made and written, or unset the variable"
        with suppress(OSError):
            os.write(2, f"{COMPILED}={folder}: torch cannot make this folder ({error.strerror}). {remedy}\n".encode())
        os._exit(2)


def _exit(number: int, frame: FrameType | None) -> None:
    with suppress(OSError):
        os.write(1, f"{_word(number == signal.SIGTERM)}: nothing was begun\n".encode())
    os._exit(INTERRUPTED)


def run(main: Callable[[list[str]], int]) -> int:
    """Runs a command with the arguments of this process; returns its exit code."""
    sys.stderr = _Stream(sys.stderr, "standard error")
    sys.stdout = _Stream(sys.stdout, "standard output", report_to=sys.stderr)
    stopped = None
    try:
        with Interrupts(graceful=False):
            code = main(sys.argv[1:])
    except KeyboardInterrupt as interrupt:
        code, stopped = INTERRUPTED, interrupt
    for number in (signal.SIGINT, signal.SIGTERM):  # all is done; the exit of Python takes a moment
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
    """Makes the command end without the exit handlers of libraries: one of them would wait for ever."""
    global _skips_exit_handlers
    _skips_exit_handlers = True


def _word(terminated: bool) -> str:
    return "terminated" if terminated else "interrupted"


class _Stream:
    """Standard output or error, which may be full, closed, or a pipe whose reader has ended.

    The first failure is reported once on ``report_to``; later output is dropped. A character that the encoding lacks
    is written as a question mark, on standard error as its number.
    """

    def __init__(self, stream: TextIO | None, name: str, report_to: TextIO | None = None) -> None:
        self._name, self._report_to = name, report_to
        self._stream = stream
        self.lost = stream is None
        if stream is None:
            self._stream = open(os.devnull, "w")
            self._report("it is closed")
        elif isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace" if report_to else "backslashreplace")

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
            self._stream.flush()  # the rest; Python would try it again at its exit

    def _lose(self, error: OSError) -> None:
        self.lost = True
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())  # also for code that writes to the descriptor itself
        os.close(nowhere)
        self._report(error.strerror)

    def _report(self, why: str) -> None:
        if self._report_to is not None:
            line = f"note: {self._name} cannot be written ({why}); the command goes on without it"
            print(line, file=self._report_to)
