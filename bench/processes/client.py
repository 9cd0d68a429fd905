"""Processes for trials, as who asks for one sees them: each is forked from one that has imported everything, or, for
a trial on several GPUs, is started to start one for each.

The other sides are ``bench.processes.fork_server`` and ``bench.processes.multi_gpu``. This one imports nothing that takes long: Ray's workers
use it.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from bench.records.failures import SERVER_DIED, in_words, without_record
from bench.system.files import OwnFolder
from bench.system.process_tree import end, is_dead

LONGEST_SOCKET = 103
"""Bytes that the path of a Unix socket may have (macOS; on Linux 107)."""
COMPLAINTS = "complaints"
MOST_SAID = 10_000  # characters of what a process that died has written to standard error
PATIENCE_SECONDS = 20.0
"""How long a server that was just started may need until it listens: far less, but machines are busy."""
POLL_SECONDS = 0.25
DYING_SECONDS = 5.0
END_SECONDS = 10.0
"""How long a process may take for its end, and its server to tell of it, before it is killed from here."""
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
        self._own = OwnFolder(str(place_for_sockets(below)))
        self.folder = self._own.path
        self.started = 0
        self._start()

    def _start(self) -> None:
        self.started += 1
        self._address = str(self.folder / str(self.started))
        with (self.folder / COMPLAINTS).open("wb") as complaints:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "bench.processes.fork_server", self._address],
                env={**os.environ, **UNTOUCHED},
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=complaints,
                start_new_session=True,  # Ctrl-C is for the driver
                pass_fds=[self._own.descriptor],  # the folder is its own, too
                text=True,
            )
        _pid_file(self._address).write_text(str(self.process.pid))
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
        try:
            self.process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:  # it was stopped, or hangs
            self.process.kill()
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(END_SECONDS)
        self._own.remove()


def _pid_file(address: str) -> Path:
    """Says which process listens at an address. Who only has the address must be able to end it."""
    return Path(f"{address}.pid")


class Process(ABC):
    """A trial's process, as who asked for it sees it: iterating gives the lines that it tells, until it ends.

    The iteration has an end whatever becomes of the process and of the one that has started it.
    """

    exit_code: int | None = None
    """``None`` until it has ended, and where nobody saw how: the process that starts trials died before it, or hung."""
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
        how = SERVER_DIED if self.exit_code is None else in_words(self.exit_code)
        return without_record(self.said, how)


class Forked(Process):
    """One that a fork server has forked."""

    def __init__(
        self, address: str, request: Request, on_start: Callable[[psutil.Process], Any] = lambda trial: None
    ) -> None:
        """Raises ``OSError``, with what the server said, where none can be reached; it is dead then.

        on_start: is told of the trial's process as soon as there is one, in the course of the iteration.
        """
        self.on_start, self.trial = on_start, None
        self.server = _process(_pid_file(address))
        self.complaints = Path(address).with_name(COMPLAINTS)
        self._due: float | None = None  # when the trial's end has to be known
        self.connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        patience = time.monotonic() + PATIENCE_SECONDS
        try:
            self.connection.settimeout(PATIENCE_SECONDS)
            while True:
                with suppress(FileNotFoundError):
                    self.connection.connect(address)
                    break
                if time.monotonic() > patience or (self.server is not None and is_dead(self.server)):
                    raise FileNotFoundError(address)
                time.sleep(0.02)
            self.connection.sendall(f"{request.to_json()}\n".encode())
        except OSError as error:
            self.connection.close()
            if isinstance(error, FileNotFoundError | TimeoutError):
                end(self.server)  # it is stopped, or hangs; a dead one is replaced
            said = f"{self._complaints()}\nthe process that starts trials cannot be reached: {error}"
            raise OSError(said.strip()) from None

    def __iter__(self) -> Iterator[str]:
        with self.connection:
            for line in self._lines():
                if line.startswith('{"pid"'):
                    with suppress(psutil.NoSuchProcess):  # it is over already
                        self.trial = psutil.Process(json.loads(line)["pid"])
                        self.on_start(self.trial)
                elif line.startswith('{"exit_code"'):
                    ended = json.loads(line)
                    self.exit_code, self.said = ended["exit_code"], ended["said"]
                    return
                else:
                    yield line
        end(self.trial)  # it may be stopped
        if self._is_overdue():
            end(self.server)  # and so may this; a dead one is replaced
        self.said = self._complaints()

    def _lines(self) -> Iterator[str]:
        """What comes through the connection, until that breaks or the end is overdue."""
        self.connection.settimeout(POLL_SECONDS)
        received = b""
        while not self._is_overdue():
            try:
                more = self.connection.recv(1 << 16)
            except TimeoutError:
                continue
            except OSError:  # the server was killed before it had read its request
                return
            if not more:
                return
            *lines, received = (received + more).split(b"\n")
            yield from (f"{line.decode(errors='replace')}\n" for line in lines)

    def _is_overdue(self) -> bool:
        """The server tells of an end at once, and a trial ends soon after its server: what is not told is not to be."""
        now = time.monotonic()
        if self._due is None and (is_dead(self.server) or (self.trial is not None and is_dead(self.trial))):
            self._due = now + END_SECONDS
        return self._due is not None and now > self._due

    def _complaints(self) -> str:
        """What the server has said; one that dies is left the time to say it."""
        patience = time.monotonic() + DYING_SECONDS
        while not is_dead(self.server) and time.monotonic() < patience:
            time.sleep(0.02)
        with suppress(OSError):
            return self.complaints.read_text(errors="replace").strip()[-MOST_SAID:]
        return ""

    def kill(self) -> None:
        if self._due is None:
            self._due = time.monotonic() + END_SECONDS
        with suppress(OSError):  # it may be over
            self.connection.shutdown(socket.SHUT_WR)


def _process(pid_file: Path) -> psutil.Process | None:
    with suppress(OSError, ValueError, psutil.Error):
        return psutil.Process(int(pid_file.read_text()))
    return None


class Parallel(Process):
    """One that starts a process for each of its GPUs."""

    def __init__(self, request: Request, on_start: Callable[[psutil.Process], Any] = lambda trial: None) -> None:
        """on_start: is told of the process."""
        self._complaints = tempfile.TemporaryFile()
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": self._complaints, "text": True}
        command = [sys.executable, "-m", "bench.processes.multi_gpu"]
        self._child = subprocess.Popen(command, start_new_session=True, **pipes)  # Ctrl-C is for the driver
        self._process = psutil.Process(self._child.pid)
        on_start(self._process)
        with suppress(BrokenPipeError):  # it died before it had read its trial; how, is said at the end
            self._child.stdin.write(f"{request.to_json()}\n")
            self._child.stdin.flush()  # and left open: its end would end the child

    def __iter__(self) -> Iterator[str]:
        ended = threading.Thread(target=self._end_its_ranks, daemon=True)
        ended.start()
        with self._complaints, self._child:
            yield from self._child.stdout
            ended.join()  # it needs a number that nobody else can have yet
            self.exit_code = self._child.wait()
            self._complaints.seek(0)
            self.said = self._complaints.read().decode(errors="replace")

    def _end_its_ranks(self) -> None:
        """When it has ended: if it was killed, they may be stopped, and hold the output open."""
        while not is_dead(self._process):
            time.sleep(0.05)
        self.kill()

    def kill(self) -> None:
        with suppress(ProcessLookupError, PermissionError):  # a Mac refuses to kill a group of dead processes
            os.killpg(self._child.pid, signal.SIGKILL)


def start(
    request: Request, server: str | None, on_start: Callable[[psutil.Process], Any] = lambda trial: None
) -> Process:
    """Starts a trial, whichever way it needs; server: the address of a fork server, for a trial on one device. Raises
    ``OSError`` where that cannot be reached. on_start: is told of the trial's process."""
    return Parallel(request, on_start) if request.gpus > 1 else Forked(server, request, on_start)
