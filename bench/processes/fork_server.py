"""A process that has imported what trials need, and forks itself for each of them.

A trial has a process of its own, so that its memory peaks are its own. A new interpreter would import torch and others
for about six seconds, partly during what is measured. A fork has these modules from its start. It costs milliseconds,
and the memory that a trial adds is the trial's.

``python -m bench.processes.fork_server SOCKET`` reads the trials for which it imports (a JSON list of configurations)
from standard input, and ends when that is closed. A client connects to the Unix socket, sends a
``bench.processes.request.Request`` as one line of JSON, and keeps the connection open until the trial has ended.
The first line of the answer names the trial's process. Then come its events (``bench.processes.events``). The last line
holds its exit code and its standard error.

Nothing here may use a GPU or start a thread: CUDA and OpenMP do not survive a fork. Where that is not possible, the
fork becomes a new interpreter (``python -m bench.processes.trial_process``). That is so on a Mac, whose own libraries
do not survive a fork, and for trials on a GPU with libraries that query the GPU on import (peft, through torchao).

The forkserver of Python's ``multiprocessing`` is not used: it serves one process only, whereas each trial has its own
worker of Ray; when it is killed, its children live on and seem to have ended with exit code 255; when it is stopped,
the start of a process blocks without a time limit.
"""

import json
import os
import selectors
import shutil
import signal
import socket
import sys
import tempfile
import traceback
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, NoReturn

from bench.processes.request import VISIBLE, Request

CAN_FORK = sys.platform != "darwin"
PEER_SECONDS = 5.0
"""Time that the server waits for a client to send its request or to receive a trial's end; a client may be stopped.
Other clients wait meanwhile."""


@dataclass
class _Child:
    pid: int
    connection: socket.socket
    sentinel: int  # a pipe whose other end is closed when the process ends
    stderr: IO[bytes]

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)

    def close(self) -> None:
        self.connection.close()
        self.stderr.close()
        os.close(self.sentinel)


class _Server:
    def __init__(self, listener: socket.socket) -> None:
        self.listener = listener
        self.children: list[_Child] = []
        self.selector = selectors.DefaultSelector()
        self.selector.register(listener, selectors.EVENT_READ, self._accept)

    def serve_until_closed(self, control: int) -> None:
        """Serves clients until the other end of ``control`` is closed; then kills all trials."""
        self.selector.register(control, selectors.EVENT_READ)
        while True:
            for key, _ in self.selector.select():
                if key.fd == control:
                    for child in self.children:
                        child.kill()
                        os.waitpid(child.pid, 0)  # in a container no other process may reap them
                    return
                if self.selector.get_map().get(key.fd) is key:  # otherwise another event has unregistered it
                    key.data()

    def _accept(self) -> None:
        connection, _ = self.listener.accept()
        connection.settimeout(PEER_SECONDS)
        text = ""
        with suppress(OSError), connection.makefile(encoding="utf-8") as lines:
            text = lines.readline()
        if not text.endswith("\n"):  # the client has ended
            connection.close()
            return
        connection.settimeout(None)  # the trial writes to it
        stderr = tempfile.TemporaryFile()
        sentinel, alive = os.pipe()
        pid = os.fork()
        if pid == 0:
            self._run_trial(text, connection, stderr, alive)
        os.close(alive)
        child = _Child(pid, connection, sentinel, stderr)
        self.children.append(child)
        self.selector.register(sentinel, selectors.EVENT_READ, lambda: self._ended(child))
        self.selector.register(connection, selectors.EVENT_READ, lambda: self._closed(child))

    def _closed(self, child: _Child) -> None:
        """Kills the trial: its client has closed the connection, or has ended."""
        with suppress(OSError):
            if child.connection.recv(1024):
                return
        self.selector.unregister(child.connection)
        child.kill()

    def _ended(self, child: _Child) -> None:
        """Reports the end of a trial to its client."""
        _, status = os.waitpid(child.pid, 0)
        child.stderr.seek(0)
        stderr = child.stderr.read().decode(errors="replace")
        last = json.dumps({"exit_code": os.waitstatus_to_exitcode(status), "stderr": stderr})
        child.connection.settimeout(PEER_SECONDS)
        with suppress(OSError):
            child.connection.sendall(f"\n{last}\n".encode())  # the trial may have died within a line
        self.selector.unregister(child.sentinel)
        with suppress(KeyError):
            self.selector.unregister(child.connection)
        child.close()
        self.children.remove(child)

    def _run_trial(self, text: str, connection: socket.socket, stderr: IO[bytes], alive: int) -> NoReturn:
        """Runs the requested trial in the forked process."""
        code = 1
        try:
            self.selector.close()
            self.listener.close()
            os.setsid()
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.dup2(connection.fileno(), 1)
            os.dup2(stderr.fileno(), 2)
            os.write(1, f"{json.dumps({'pid': os.getpid()})}\n".encode())
            for other in self.children:
                other.close()
            request = Request.from_json(text)
            if request.visible_devices is not None:
                os.environ[VISIBLE] = request.visible_devices
            if not _can_run_in_fork(request):
                os.set_inheritable(alive, True)
                _exec_interpreter(text)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            from bench.processes.trial_process import run_requested

            run_requested(request)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)


def _can_run_in_fork(request: Request) -> bool:
    """Whether the fork itself can run the trial, without a new interpreter."""
    if not CAN_FORK:
        return False
    import torch

    return json.loads(request.config).get("device") == "cpu" or not torch.cuda._is_in_bad_fork()


def _exec_interpreter(text: str) -> NoReturn:
    with tempfile.TemporaryFile() as file:
        file.write(text.encode())
        file.seek(0)
        os.dup2(file.fileno(), 0)
    os.execv(sys.executable, [sys.executable, "-m", "bench.processes.trial_process"])


def main(arguments: list[str]) -> int:
    (address,) = arguments
    configs = json.loads(sys.stdin.readline())
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(f"{address}.new")
        listener.listen()
        os.rename(f"{address}.new", address)  # from now on clients can connect
        if CAN_FORK:
            import bench.processes.trial_process  # noqa: F401
            from bench.processes.preload import import_for

            import_for(configs)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # from now on it ends with its input, and kills its trials
        _Server(listener).serve_until_closed(sys.stdin.fileno())
    shutil.rmtree(os.path.dirname(address), ignore_errors=True)  # the driver that made the folder may have been killed
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
