"""The process from which ``warm.py`` forks the programs that tests start.

``python tests/warm_source.py`` reads requests from the socket that is its standard input, and ends when that is closed.
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
import sys
import tempfile
import threading
import traceback
import types
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import warm

ABOVE = 200
"""Descriptors from this number on are free in the process that forks."""
MOST_DESCRIPTORS = 16
Program = Callable[[], Any]


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
                asked, descriptors, _, _ = socket.recv_fds(self.control, warm.LARGEST, MOST_DESCRIPTORS)
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
        sys.orig_argv = [warm.INTERPRETER, *request["args"]]
        sys.argv = [what if how == "-m" else "-c", *arguments]
        sys.path.insert(0, request["cwd"] if how == "-m" else "")
        sys.modules.pop(what, None)  # else ``runpy`` warns
        with suppress(OSError):
            Path("/proc/self/comm").write_text(
                " ".join([what.rsplit(".", 1)[-1], *arguments])[:15] if how == "-m" else "python"
            )
        if not _is_alone(what, arguments):
            here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            if os.fork() == 0:
                here.close()
                nowhere = os.open(os.devnull, os.O_RDWR)
                for number in request["descriptors"]:
                    os.dup2(nowhere, number)
                return Source(there, self.variables).serve()
            there.close()
            warm._own.source = here
        _customise()
        return lambda: runpy.run_module(what, run_name="__main__", alter_sys=True) if how == "-m" else _execute(what)


def _is_alone(module: str, arguments: list[str]) -> bool:
    """Whether a program starts no programs itself: fork servers, and workers of a trial on several GPUs."""
    return module == "bench.processes.fork_server" or (module == "bench.processes.multi_gpu" and bool(arguments))


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
    os.environ |= client.ENVIRONMENT
    import bench.processes.fork_server
    import bench.processes.preload
    import bench.processes.trial_process  # noqa: F401
    from bench.processes import multi_gpu

    client.subprocess = multi_gpu.subprocess = warm.Subprocess(warm._own)
    added = {name: value for name, value in os.environ.items() if name not in before}
    gc.collect()
    gc.freeze()
    return Source(socket.socket(fileno=os.dup(0)), added).serve()


if __name__ == "__main__":
    import warm_source  # not as ``__main__``, which is each program's own

    sys.path.pop(0)
    program = warm_source.main()
    if program is not None:
        warm_source.end(program)
