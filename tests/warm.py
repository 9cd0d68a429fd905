"""Python programs that tests start, forked from a process that has imported everything: a new interpreter imports
torch, Ray and others for two to five seconds.

``warm.Popen`` and ``warm.run`` are ``subprocess.Popen`` and ``subprocess.run`` for ``python -m MODULE`` and
``python -c CODE``. Programs that such a program starts by ``subprocess`` in ``bench.processes.client`` and
``bench.processes.multi_gpu`` are forked, too, by a child of its own. Other programs get their own interpreter. So do
all programs on macOS, whose libraries do not survive a fork. A test of what an interpreter does from its start, imports
included, uses ``subprocess``, the fixture ``interpreters`` or ``start(..., interpreter=True)``.

The process that forks is ``warm_source.py``.
"""

import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from subprocess import DEVNULL, PIPE, CompletedProcess, TimeoutExpired
from typing import IO, Any

import psutil

INTERPRETER = sys.executable
LARGEST = 1 << 17
"""Bytes of a request: a program, its arguments and its environment."""
SOURCE = Path(__file__).with_name("warm_source.py")


class Forked:
    """A forked program, as ``subprocess.Popen`` shows one. The process that forked it is its parent, and reports its
    exit code."""

    def __init__(
        self,
        source: socket.socket,
        args: Sequence[str],
        *,
        cwd: str | os.PathLike | None = None,
        env: dict[str, str] | None = None,
        stdin: Any = None,
        stdout: Any = None,
        stderr: Any = None,
        text: bool = False,
        pass_fds: Sequence[int] = (),
        start_new_session: bool = False,
    ) -> None:
        self.args, self.returncode = args, None
        self._lock = threading.Lock()
        self._theirs: list[int] = []
        self._text = text
        descriptors = {number: number for number in pass_fds}
        descriptors[0], self.stdin = self._ends(stdin, 0)
        descriptors[1], self.stdout = self._ends(stdout, 1)
        descriptors[2], self.stderr = self._ends(stderr, 2)
        self._told, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        request = {
            "args": [os.fspath(arg) for arg in args[1:]],
            "cwd": os.fspath(cwd or os.getcwd()),
            "env": dict(os.environ if env is None else env),
            "session": start_new_session,
            "descriptors": list(descriptors),
        }
        with there:
            numbers = [there.fileno(), *descriptors.values()]
            socket.send_fds(source, [json.dumps(request).encode()], numbers)
        for number in self._theirs:
            os.close(number)
        self.pid = json.loads(self._told.recv(LARGEST))["pid"]

    def _ends(self, wanted: Any, number: int) -> tuple[int, IO | None]:
        """The program's end of what is wanted for its descriptor ``number``, and ours of a pipe."""
        if wanted == PIPE:
            reader, writer = os.pipe()
            theirs, ours, mode = (reader, writer, "w") if number == 0 else (writer, reader, "r")
            self._theirs.append(theirs)
            return theirs, open(ours, mode if self._text else f"{mode}b")
        if wanted == DEVNULL:
            self._theirs.append(os.open(os.devnull, os.O_RDWR))
            return self._theirs[-1], None
        if wanted is None:
            return number, None
        return (wanted if isinstance(wanted, int) else wanted.fileno()), None

    def poll(self) -> int | None:
        with self._lock:
            if self.returncode is None and (self._is_dead() or select.select([self._told], [], [], 0)[0]):
                told = self._told.recv(LARGEST)  # nothing, if who forks was killed
                self.returncode = json.loads(told)["code"] if told else -signal.SIGKILL
                self._told.close()
        return self.returncode

    def _is_dead(self) -> bool:
        """What the system knows before it is told here."""
        try:
            return psutil.Process(self.pid).status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True

    def wait(self, timeout: float | None = None) -> int:
        if self.poll() is None:
            with suppress(ValueError, OSError):  # another thread has heard of the end, and closed it
                select.select([self._told], [], [], timeout)
            if self.poll() is None:
                raise TimeoutExpired(self.args, timeout)
        return self.returncode

    def communicate(self, input: Any = None, timeout: float | None = None) -> tuple[Any, Any]:
        said: list[Any] = [None, None]

        def read(index: int, stream: IO) -> None:
            said[index] = stream.read()

        readers = [
            threading.Thread(target=read, args=(index, stream), daemon=True)
            for index, stream in enumerate((self.stdout, self.stderr))
            if stream and not stream.closed
        ]
        for reader in readers:
            reader.start()
        if self.stdin and not self.stdin.closed:
            with suppress(BrokenPipeError):
                self.stdin.write(input or ("" if self._text else b""))
                self.stdin.close()
        for reader in readers:
            reader.join(timeout)
            if reader.is_alive():
                raise TimeoutExpired(self.args, timeout)
        self.wait(timeout)
        for stream in (self.stdout, self.stderr):
            if stream:
                stream.close()
        return said[0], said[1]

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def __enter__(self) -> "Forked":
        return self

    def __exit__(self, *problem: Any) -> None:
        for stream in (self.stdout, self.stderr, self.stdin):
            if stream:
                with suppress(BrokenPipeError):
                    stream.close()
        self.wait()


class Subprocess:
    """What is used of the module ``subprocess``, with programs that are forked by one source."""

    PIPE, DEVNULL, TimeoutExpired = PIPE, DEVNULL, TimeoutExpired

    def __init__(self, source: Callable[[], socket.socket]) -> None:
        """source: gives the socket of the process that forks, which is started when it is first needed."""
        self._source = source

    def Popen(self, args: Sequence[str], **options: Any) -> "subprocess.Popen | Forked":
        if _needs_an_interpreter(args):
            return subprocess.Popen(args, **options)
        return Forked(self._source(), args, **options)

    def run(
        self,
        args: Sequence[str],
        *,
        input: Any = None,
        timeout: float | None = None,
        check: bool = False,
        **options: Any,
    ) -> CompletedProcess:
        if input is not None:
            options["stdin"] = PIPE
        if options.pop("capture_output", False):
            options |= {"stdout": PIPE, "stderr": PIPE}
        process = self.Popen(args, **options)
        try:
            out, err = process.communicate(input, timeout)
        except BaseException:
            process.kill()
            raise
        done = CompletedProcess(args, process.returncode, out, err)
        if check:
            done.check_returncode()
        return done


def _needs_an_interpreter(args: Sequence[str]) -> bool:
    return sys.platform == "darwin" or args[0] != INTERPRETER or args[1] not in ("-m", "-c")


class _Own:
    """The socket of the process that forks for this one."""

    source: socket.socket | None = None
    process: subprocess.Popen | None = None

    def __call__(self) -> socket.socket:
        """Starts that process with the first program, and again where a test has killed it."""
        if self.source is None or (self.process and self.process.poll() is not None):
            self.source, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with there:
                self.process = subprocess.Popen([INTERPRETER, str(SOURCE)], stdin=there, start_new_session=True)
        return self.source


_own = _Own()
HERE = Subprocess(_own)
Popen, run = HERE.Popen, HERE.run
