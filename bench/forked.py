"""Processes for trials, as who asks for one sees them: each is forked from one that has imported everything, or, for
a trial on several GPUs, is started to start one for each.

The other sides are ``bench.fork_server`` and ``bench.ranks``. This one imports nothing that takes long: Ray's workers
use it.
"""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

LONGEST_SOCKET = 103
"""Bytes that the path of a Unix socket may have (macOS; on Linux 107)."""
COMPLAINTS = "complaints"
PATIENCE_SECONDS = 20.0
"""How long a server that was just started may need until it listens: far less, but machines are busy."""
LINES_KEPT = 50
"""Of standard error, in the record of a process that left none itself."""
LINES_SHOWN = 3
"""Of those, in a row of a table."""
ENDED = re.compile(r"\bthe process (that starts trials )?(ended|was killed|cannot be reached)\b")
"""In the last line of the error of a process that left no record."""
VISIBLE = "CUDA_VISIBLE_DEVICES"
UNTOUCHED = {
    "OMP_NUM_THREADS": "1",  # threads do not survive a fork; trials set their own number of them
    "PYTORCH_NVML_BASED_CUDA_CHECK": "1",  # neither does CUDA: libraries that ask whether there is a GPU ask NVML
}


@dataclass(frozen=True)
class Request:
    """A trial to run, and where its record goes. Its checkpoints lie below that folder."""

    config: str  # a ``TrialConfig`` as JSON
    folder: str
    threads: int
    checkpoint_seconds: float
    trials_at_once: int = 1
    gpus: int = 1  # more than one: it is trained data parallel, by a process for each
    node: str | None = None  # the machine, as a cluster calls it
    visible_devices: str | None = None  # for ``CUDA_VISIBLE_DEVICES``

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Request":
        return cls(**json.loads(text))


def place_for_sockets(below: int) -> Path:
    """Where temporary files go; ``/tmp`` if ``below`` more bytes would make the path of a socket too long there."""
    usual = tempfile.gettempdir()
    return Path(usual if len(os.fsencode(usual)) + below <= LONGEST_SOCKET else "/tmp")


class ForkServer:
    """The server's process. It is started at once, imports while others work, and ends with the ``with``."""

    def __init__(self, configs: Sequence[str] = ()) -> None:
        """configs: trials (as JSON) whose models are to be known before the first fork."""
        self.configs = list(configs)
        below = len("/sam3-bench-12345678/999999999999")
        self.folder = Path(tempfile.mkdtemp(prefix="sam3-bench-", dir=place_for_sockets(below)))
        self.started = 0
        self._start()

    def _start(self) -> None:
        self.started += 1
        self._address = str(self.folder / str(self.started))
        with (self.folder / COMPLAINTS).open("wb") as complaints:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "bench.fork_server", self._address],
                env={**os.environ, **UNTOUCHED},
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=complaints,
                start_new_session=True,  # Ctrl-C is for the driver
                text=True,
            )
        with suppress(BrokenPipeError):  # it died at once; the first trial says so
            self.process.stdin.write(json.dumps(self.configs) + "\n")
            self.process.stdin.flush()

    @property
    def address(self) -> str:
        """The socket of a server that lives: one that was killed is replaced."""
        if self.process.poll() is not None:
            self._start()
        return self._address

    def __enter__(self) -> "ForkServer":
        return self

    def __exit__(self, *problem: Any) -> None:
        with suppress(BrokenPipeError):  # it is dead, and never read what it was told
            self.process.stdin.close()  # it kills what still runs
        self.process.terminate()  # and need not import to its end what nobody will use
        self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


class Process(ABC):
    """A trial's process, as who asked for it sees it: iterating gives the lines that it tells, until it ends."""

    exit_code: int | None = None
    """``None`` until it has ended, and where nobody saw how."""
    said: str = ""
    """What it wrote to standard error."""

    @abstractmethod
    def __iter__(self) -> Iterator[str]: ...

    @abstractmethod
    def kill(self) -> None:
        """Ends the process at once; the iteration ends when it is dead."""

    @property
    def how_it_ended(self) -> str:
        """In words, after the last lines of what it said."""
        how = "the process that starts trials was killed" if self.exit_code is None else in_words(self.exit_code)
        return without_record(self.said, how)


class Forked(Process):
    """One that a fork server has forked."""

    def __init__(self, address: str, request: Request) -> None:
        """Raises ``OSError``, with what the server said, where none can be reached."""
        self.connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        patience = time.monotonic() + PATIENCE_SECONDS
        try:
            while True:
                with suppress(FileNotFoundError):
                    self.connection.connect(address)
                    break
                if time.monotonic() > patience:
                    raise FileNotFoundError(address)
                time.sleep(0.02)
            self.connection.sendall(f"{request.to_json()}\n".encode())
        except OSError as error:
            self.connection.close()
            complaints = Path(address).with_name(COMPLAINTS)
            said = complaints.read_text(errors="replace") if complaints.exists() else ""
            raise OSError(f"{said}\nthe process that starts trials cannot be reached: {error}".strip()) from None

    def __iter__(self) -> Iterator[str]:
        with self.connection, self.connection.makefile(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                if line.startswith('{"exit_code"'):
                    ended = json.loads(line)
                    self.exit_code, self.said = ended["exit_code"], ended["said"]
                    return
                yield line

    def kill(self) -> None:
        with suppress(OSError):  # it may be over
            self.connection.shutdown(socket.SHUT_WR)


class Parallel(Process):
    """One that starts a process for each of its GPUs."""

    def __init__(self, request: Request) -> None:
        self._complaints = tempfile.TemporaryFile()
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": self._complaints, "text": True}
        command = [sys.executable, "-m", "bench.ranks"]
        self._child = subprocess.Popen(command, start_new_session=True, **pipes)  # Ctrl-C is for the driver
        with suppress(BrokenPipeError):  # it died before it had read its trial; how, is said at the end
            self._child.stdin.write(f"{request.to_json()}\n")
            self._child.stdin.flush()  # and left open: its end would end the child

    def __iter__(self) -> Iterator[str]:
        with self._complaints, self._child:
            yield from self._child.stdout
            self.exit_code = self._child.wait()
            self._complaints.seek(0)
            self.said = self._complaints.read().decode(errors="replace")

    def kill(self) -> None:
        self._child.kill()


def start(request: Request, server: str | None) -> Process:
    """Starts a trial, whichever way it needs; server: the address of a fork server, for a trial on one device. Raises
    ``OSError`` where that cannot be reached."""
    return Parallel(request) if request.gpus > 1 else Forked(server, request)


def without_record(said: str, how: str) -> str:
    """The error of a process that left no record: the last lines of its standard error, then how it ended."""
    return "\n".join([*said.strip().splitlines()[-LINES_KEPT:], how])


def in_a_line(error: str) -> str:
    """A trial's error for a table: its last line and, of a process without a record, the end of its standard error."""
    *before, last = [line.strip() for line in error.splitlines() if line.strip()] or [""]
    if not before or not ENDED.search(last):
        return last
    return f"{last}; its standard error ended with: {' / '.join(before[-LINES_SHOWN:])}"


def in_words(code: int) -> str:
    """How a process without a record ended, by its exit code."""
    if code >= 0:
        return f"the process ended with code {code} and without a record"
    hint = " (often the kernel's doing, when memory runs out)" if -code == signal.SIGKILL else ""
    return f"the process was killed by {signal.Signals(-code).name}{hint}"
