"""Starts the processes of trials and follows them until they end.

Each is forked by a fork server (``bench.processes.fork_server``). A trial on several GPUs is started instead, and
starts a worker for each GPU (``bench.processes.multi_gpu``). Ray's workers use this module, so it imports nothing slow.
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
from pathlib import Path
from typing import Any

import psutil

from bench.processes.request import Request
from bench.records.failures import SERVER_DIED, in_words, without_record
from bench.system.files import OwnFolder
from bench.system.process_tree import is_dead, kill_group

LONGEST_SOCKET = 103
"""Largest length of a Unix socket's path, in bytes (macOS; 107 on Linux)."""
STDERR_FILE = "stderr"
MOST_STDERR = 10_000
"""Number of last characters of the fork server's standard error that are kept."""
CONNECT_SECONDS = 20.0
"""Time that a fork server has to listen after its start: it needs far less, but machines are busy."""
POLL_SECONDS = 0.25
STDERR_SECONDS = 5.0
"""Time that a dying fork server has to write its error."""
END_SECONDS = 10.0
"""Time that a process has to end, and its fork server to report it, before it is killed from here."""
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",  # threads do not survive a fork; trials set their own number of them
    "PYTORCH_NVML_BASED_CUDA_CHECK": "1",  # nor does CUDA: libraries that check for a GPU ask NVML
}
"""Environment of the fork server."""
OnStart = Callable[[psutil.Process], Any]
"""Is called with a trial's process when it has started."""


def place_for_sockets(below: int) -> Path:
    """The folder of temporary files; ``/tmp`` if ``below`` more bytes make a socket's path too long there."""
    usual = tempfile.gettempdir()
    return Path(usual if len(os.fsencode(usual)) + below <= LONGEST_SOCKET else "/tmp")


class ForkServer:
    """A running fork server. It is started at once, imports in the background, and ends with the ``with``."""

    def __init__(self, configs: Sequence[str] = ()) -> None:
        """configs: trials (as JSON) for whose models the server imports before the first fork."""
        self.configs = list(configs)
        below = len("/sam3-bench-12345678/999999999999")
        self._own = OwnFolder(str(place_for_sockets(below)))
        self.folder = self._own.path
        self.starts = 0
        self._start()

    def _start(self) -> None:
        self.starts += 1
        self._address = str(self.folder / str(self.starts))
        with (self.folder / STDERR_FILE).open("wb") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "bench.processes.fork_server", self._address],
                env={**os.environ, **ENVIRONMENT},
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                start_new_session=True,  # Ctrl-C is for the driver
                pass_fds=[self._own.descriptor],  # the folder exists as long as the server lives
                text=True,
            )
        _pid_file(self._address).write_text(str(self.process.pid))
        with suppress(BrokenPipeError):  # it died at once; the first trial reports it
            self.process.stdin.write(json.dumps(self.configs) + "\n")
            self.process.stdin.flush()

    @property
    def address(self) -> str:
        """The server's socket. A server that was killed is replaced first."""
        if self.process.poll() is not None:
            self._start()
        return self._address

    def __enter__(self) -> "ForkServer":
        return self

    def __exit__(self, *problem: Any) -> None:
        with suppress(BrokenPipeError):  # it is dead, and has not read its configurations
            self.process.stdin.close()  # it kills the trials that still run
        self.process.terminate()  # it need not complete imports that are no longer used
        try:
            self.process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:  # it was stopped, or hangs
            self.process.kill()
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(END_SECONDS)
        self._own.remove()


def _pid_file(address: str) -> Path:
    """Holds the number of the process that listens at an address: a client must be able to kill it."""
    return Path(f"{address}.pid")


class RunningTrial(ABC):
    """A trial in a process of its own, as the client sees it: iterating gives the lines of its events, until it ends.

    The iteration always ends, however the process and its parent end.
    """

    exit_code: int | None = None
    """``None`` until it has ended, and where its exit code is unknown: its fork server died before it, or hung."""
    stderr: str = ""
    """Its standard error."""

    @abstractmethod
    def __iter__(self) -> Iterator[str]: ...

    @abstractmethod
    def kill(self) -> None:
        """Kills the process; the iteration ends when it is dead."""

    @property
    def how_it_ended(self) -> str:
        """The last lines of standard error, then how the process ended, in words."""
        how = SERVER_DIED if self.exit_code is None else in_words(self.exit_code)
        return without_record(self.stderr, how)


class ForkedTrial(RunningTrial):
    """The process of a trial that a fork server has forked."""

    def __init__(self, address: str, request: Request, on_start: OnStart = lambda trial: None) -> None:
        """Raises ``OSError``, with the server's standard error, where no server can be reached; it is dead then."""
        self.on_start = on_start
        self.trial: psutil.Process | None = None
        self.server = _process(_pid_file(address))
        self.server_stderr = Path(address).with_name(STDERR_FILE)
        self._deadline: float | None = None  # by when the trial's end has to be known
        self.connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        deadline = time.monotonic() + CONNECT_SECONDS
        try:
            self.connection.settimeout(CONNECT_SECONDS)
            while True:
                with suppress(FileNotFoundError):
                    self.connection.connect(address)
                    break
                if time.monotonic() > deadline or (self.server is not None and is_dead(self.server)):
                    raise FileNotFoundError(address)
                time.sleep(0.02)
            self.connection.sendall(f"{request.to_json()}\n".encode())
        except OSError as error:
            self.connection.close()
            if isinstance(error, FileNotFoundError | TimeoutError):
                kill_group(self.server)  # it is stopped, or hangs; a dead one is replaced
            text = f"{self._read_server_stderr()}\nthe process that starts trials cannot be reached: {error}"
            raise OSError(text.strip()) from None

    def __iter__(self) -> Iterator[str]:
        with self.connection:
            for line in self._lines():
                if line.startswith('{"pid"'):
                    with suppress(psutil.NoSuchProcess):  # it has ended already
                        self.trial = psutil.Process(json.loads(line)["pid"])
                        self.on_start(self.trial)
                elif line.startswith('{"exit_code"'):
                    end = json.loads(line)
                    self.exit_code, self.stderr = end["exit_code"], end["stderr"]
                    return
                else:
                    yield line
        kill_group(self.trial)  # it may be stopped
        if self._is_overdue():
            kill_group(self.server)  # it may be stopped, too; a dead server is replaced
        self.stderr = self._read_server_stderr()

    def _lines(self) -> Iterator[str]:
        """Yields the lines of the connection until it breaks or the trial's end is overdue."""
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
        """Whether the report of the trial's end will not come: it comes at once, and a trial ends with its server."""
        now = time.monotonic()
        if self._deadline is None and (is_dead(self.server) or (self.trial is not None and is_dead(self.trial))):
            self._deadline = now + END_SECONDS
        return self._deadline is not None and now > self._deadline

    def _read_server_stderr(self) -> str:
        """Reads the server's standard error; waits a moment for the last words of a server that dies."""
        deadline = time.monotonic() + STDERR_SECONDS
        while not is_dead(self.server) and time.monotonic() < deadline:
            time.sleep(0.02)
        with suppress(OSError):
            return self.server_stderr.read_text(errors="replace").strip()[-MOST_STDERR:]
        return ""

    def kill(self) -> None:
        if self._deadline is None:
            self._deadline = time.monotonic() + END_SECONDS
        with suppress(OSError):  # it may have ended
            self.connection.shutdown(socket.SHUT_WR)


def _process(pid_file: Path) -> psutil.Process | None:
    with suppress(OSError, ValueError, psutil.Error):
        return psutil.Process(int(pid_file.read_text()))
    return None


class MultiGpuTrial(RunningTrial):
    """The process of a trial on several GPUs, which starts a worker for each of them."""

    def __init__(self, request: Request, on_start: OnStart = lambda trial: None) -> None:
        self._stderr_file = tempfile.TemporaryFile()
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": self._stderr_file, "text": True}
        command = [sys.executable, "-m", "bench.processes.multi_gpu"]
        self._child = subprocess.Popen(command, start_new_session=True, **pipes)  # Ctrl-C is for the driver
        self._process = psutil.Process(self._child.pid)
        on_start(self._process)
        with suppress(BrokenPipeError):  # it died before it had read its request; its exit code tells how
            self._child.stdin.write(f"{request.to_json()}\n")
            self._child.stdin.flush()  # and left open: the process ends with its input

    def __iter__(self) -> Iterator[str]:
        watch = threading.Thread(target=self._kill_workers_at_the_end, daemon=True)
        watch.start()
        with self._stderr_file, self._child:
            yield from self._child.stdout
            watch.join()  # before ``wait``, while no other process can get its number
            self.exit_code = self._child.wait()
            self._stderr_file.seek(0)
            self.stderr = self._stderr_file.read().decode(errors="replace")

    def _kill_workers_at_the_end(self) -> None:
        """Kills the workers when the process has ended: they may be stopped, and keep its output open."""
        while not is_dead(self._process):
            time.sleep(0.05)
        self.kill()

    def kill(self) -> None:
        with suppress(ProcessLookupError, PermissionError):  # a Mac refuses to kill a group of dead processes
            os.killpg(self._child.pid, signal.SIGKILL)


def start(request: Request, server: str | None, on_start: OnStart = lambda trial: None) -> RunningTrial:
    """Starts a trial. server: the address of a fork server, for a trial on one device.

    Raises ``OSError`` where the fork server cannot be reached.
    """
    return MultiGpuTrial(request, on_start) if request.gpus > 1 else ForkedTrial(server, request, on_start)
