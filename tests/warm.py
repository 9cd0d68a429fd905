"""Python programs that tests start, forked from a process that has imported everything: a fresh interpreter imports
torch, Ray and others for two to five seconds.

``warm.Popen`` and ``warm.run`` are ``subprocess.Popen`` and ``subprocess.run`` for ``python -m MODULE`` and
``python -c CODE``. What such a program starts by ``subprocess`` in ``bench.processes.client`` and
``bench.processes.multi_gpu`` is forked, too, by a child of its own. Other programs get their own interpreter, and so do all of them on macOS, whose libraries do not
survive a fork. A test of what an interpreter does from its start, imports included, uses ``subprocess``, the fixture
``interpreters`` or ``start(..., interpreter=True)``.

``python tests/warm.py`` is the process that forks. It reads requests from the socket that is its standard input, and
ends when that is closed.
"""

import atexit
import fcntl
import gc
import json
import os
import random
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
import types
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from subprocess import DEVNULL, PIPE, CompletedProcess, TimeoutExpired
from typing import IO, Any, NoReturn

import psutil

INTERPRETER = sys.executable
LARGEST = 1 << 17
"""Bytes of a request: a program, its arguments and its environment."""
ABOVE = 200
"""Descriptors from this number on are free in the process that forks."""
MOST_DESCRIPTORS = 16
ALONE = ("bench.processes.fork_server", "bench.processes.gpu_process")
"""These start no programs."""
Program = Callable[[], Any]


# --- the side that asks -----------------------------------------------------------------------------------------------


class Forked:
    """A forked program, as ``subprocess.Popen`` shows one. The process that forked it is its parent, and tells its exit
    code."""

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
                self.process = subprocess.Popen([INTERPRETER, __file__], stdin=there, start_new_session=True)
        return self.source


_own = _Own()
HERE = Subprocess(_own)
Popen, run = HERE.Popen, HERE.run


# --- the process that forks -------------------------------------------------------------------------------------------


class Source:
    """Forks what is asked for through ``control``, and tells how each of them ended."""

    def __init__(self, control: socket.socket, variables: dict[str, str]) -> None:
        """variables: those that imports have set, which a new interpreter would have, too."""
        self.control, self.variables = control, variables
        self.children: dict[int, socket.socket] = {}
        self.woken, self.wakes = os.pipe()
        os.set_blocking(self.wakes, False)

    def serve(self) -> Program | None:
        """Returns in each child with the program that it becomes, and here, at the end, with ``None``."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.set_wakeup_fd(self.wakes)
        while True:
            ready, _, _ = select.select([self.control, self.woken], [], [])
            if self.woken in ready:
                os.read(self.woken, 4096)
                self._tell_of_ends()
            if self.control in ready:
                asked, descriptors, _, _ = socket.recv_fds(self.control, LARGEST, MOST_DESCRIPTORS)
                if not asked:
                    return None
                pid = os.fork()
                if pid == 0:
                    return self._become(json.loads(asked), descriptors)
                for number in descriptors[1:]:
                    os.close(number)
                self.children[pid] = told = socket.socket(fileno=descriptors[0])
                with suppress(OSError):
                    told.send(json.dumps({"pid": pid}).encode())

    def _tell_of_ends(self) -> None:
        while self.children:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            with self.children.pop(pid) as told, suppress(OSError):
                told.send(json.dumps({"code": os.waitstatus_to_exitcode(status)}).encode())

    def _become(self, request: dict[str, Any], descriptors: list[int]) -> Program | None:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for ours in (self.control, *self.children.values()):
            ours.close()
        for number in (self.woken, self.wakes):
            os.close(number)
        high = [fcntl.fcntl(number, fcntl.F_DUPFD, ABOVE) for number in descriptors[1:]]
        for number in descriptors:
            os.close(number)
        for number, wanted in zip(high, request["descriptors"], strict=True):
            os.dup2(number, wanted)
            os.close(number)
        if request["session"]:
            os.setsid()
        os.chdir(request["cwd"])
        os.environ.clear()
        os.environ.update(self.variables | request["env"])
        tempfile.tempdir = None
        random.seed()
        sys.modules["numpy"].random.seed()
        sys.stdin = sys.__stdin__ = open(0, closefd=False)
        sys.stdout = sys.__stdout__ = open(1, "w", closefd=False)
        sys.stderr = sys.__stderr__ = open(2, "w", errors="backslashreplace", buffering=1, closefd=False)
        how, what, *arguments = request["args"]
        sys.orig_argv = [INTERPRETER, *request["args"]]
        sys.argv = [what if how == "-m" else "-c", *arguments]
        sys.path.insert(0, request["cwd"] if how == "-m" else "")
        sys.modules.pop(what, None)  # else ``runpy`` warns
        with suppress(OSError):
            Path("/proc/self/comm").write_text(
                " ".join([what.rsplit(".", 1)[-1], *arguments])[:15] if how == "-m" else "python"
            )
        if what not in ALONE:
            here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            if os.fork() == 0:
                here.close()
                nowhere = os.open(os.devnull, os.O_RDWR)
                for number in request["descriptors"]:
                    os.dup2(nowhere, number)
                return Source(there, self.variables).serve()
            there.close()
            _own.source = here
        _customise()
        return lambda: runpy.run_module(what, run_name="__main__", alter_sys=True) if how == "-m" else _execute(what)


def _customise() -> None:
    """Does what an interpreter does at its start with a ``sitecustomize`` that a test has written."""
    for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep):
        path = Path(folder, "sitecustomize.py")
        if folder and path.exists():
            exec(compile(path.read_text(), str(path), "exec"), {"__name__": "sitecustomize"})
            return


def _execute(code: str) -> None:
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    exec(compile(code, "<string>", "exec"), main.__dict__)


def end(program: Program) -> NoReturn:
    """Runs a program and ends this process as an interpreter does, but for taking all apart that was imported."""
    code: Any = 0
    try:
        program()
    except SystemExit as left:
        code = left.code or 0
        if not isinstance(code, int):
            print(code, file=sys.stderr)
            code = 1
    except BaseException:
        traceback.print_exc()
        code = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    with suppress(OSError, ValueError):  # a pipe whose reader has ended, or a stream that is closed
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def main() -> Program | None:
    """Imports all that programs of this project import, and forks."""
    from bench.processes import client

    before = dict(os.environ)
    os.environ |= client.UNTOUCHED
    import bench.processes.fork_server
    import bench.processes.gpu_process
    import bench.processes.preload
    import bench.processes.trial_process  # noqa: F401
    from bench.processes import multi_gpu

    client.subprocess = multi_gpu.subprocess = Subprocess(_own)
    added = {name: value for name, value in os.environ.items() if name not in before}
    gc.collect()
    gc.freeze()
    return Source(socket.socket(fileno=os.dup(0)), added).serve()


if __name__ == "__main__":
    import warm  # not as ``__main__``, which is each program's own

    sys.path.pop(0)
    program = warm.main()
    if program is not None:
        warm.end(program)
