"""A process that has imported what trials need, and forks itself for each of them.

A trial has a process of its own, so that its peaks are its own. A fresh interpreter would import torch and others for
about six seconds, a part of them in the middle of what is measured. A fork has them from its first moment: it costs
milliseconds, and the memory that a trial adds is the trial's.

``python -m bench.processes.fork_server SOCKET`` reads the trials to prepare for (a JSON list of configurations) from standard
input, and ends when that is closed. Who connects to the Unix socket sends a ``bench.processes.client.Request`` as one line of
JSON, and keeps the connection open for as long as the trial shall live. The first line that comes back names the
trial's process; then comes what the trial tells (``bench.processes.events``), and the last line says how its process ended.

Nothing here may touch a GPU or start a thread: CUDA and OpenMP do not survive a fork. Where that cannot be had, the
fork becomes a fresh interpreter (``python -m bench.processes.trial_process``): on a Mac, whose own libraries do not survive it either,
and for trials on a GPU whose libraries ask the card what it can as soon as they are imported (peft, through torchao).
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

from bench.processes.client import VISIBLE, Request

FORKS_AS_IT_IS = sys.platform != "darwin"
PEER_SECONDS = 5.0
"""How long the server waits for who asks for a trial, or hears of its end: a process that is stopped, perhaps. The
others' trials wait meanwhile."""


@dataclass
class _Child:
    pid: int
    connection: socket.socket
    sentinel: int  # its other end is closed when the process ends
    complaints: IO[bytes]

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)

    def close(self) -> None:
        self.connection.close()
        self.complaints.close()
        os.close(self.sentinel)


class _Server:
    def __init__(self, listener: socket.socket) -> None:
        self.listener = listener
        self.children: list[_Child] = []
        self.selector = selectors.DefaultSelector()
        self.selector.register(listener, selectors.EVENT_READ, self._accept)

    def serve_until_closed(self, control: int) -> None:
        """Until the other end of ``control`` is closed."""
        self.selector.register(control, selectors.EVENT_READ)
        while True:
            for key, _ in self.selector.select():
                if key.fd == control:
                    for child in self.children:
                        child.kill()
                        os.waitpid(child.pid, 0)  # in a container nobody else may clear them away
                    return
                if self.selector.get_map().get(key.fd) is key:  # else another event has ended it
                    key.data()

    def _accept(self) -> None:
        connection, _ = self.listener.accept()
        connection.settimeout(PEER_SECONDS)
        text = ""
        with suppress(OSError), connection.makefile(encoding="utf-8") as lines:
            text = lines.readline()
        if not text.endswith("\n"):  # who asked is gone
            connection.close()
            return
        connection.settimeout(None)  # as the trial needs it
        complaints = tempfile.TemporaryFile()
        sentinel, alive = os.pipe()
        pid = os.fork()
        if pid == 0:
            self._be_the_trial(text, connection, complaints, alive)
        os.close(alive)
        child = _Child(pid, connection, sentinel, complaints)
        self.children.append(child)
        self.selector.register(sentinel, selectors.EVENT_READ, lambda: self._ended(child))
        self.selector.register(connection, selectors.EVENT_READ, lambda: self._heard(child))

    def _heard(self, child: _Child) -> None:
        """Who asked for it says no more but this: it is not wanted any longer, or nobody is there who could want it."""
        with suppress(OSError):
            if child.connection.recv(1024):
                return
        self.selector.unregister(child.connection)
        child.kill()

    def _ended(self, child: _Child) -> None:
        _, status = os.waitpid(child.pid, 0)
        child.complaints.seek(0)
        said = child.complaints.read().decode(errors="replace")
        last = json.dumps({"exit_code": os.waitstatus_to_exitcode(status), "said": said})
        child.connection.settimeout(PEER_SECONDS)
        with suppress(OSError):
            child.connection.sendall(f"\n{last}\n".encode())  # it may have died within a line
        self.selector.unregister(child.sentinel)
        with suppress(KeyError):
            self.selector.unregister(child.connection)
        child.close()
        self.children.remove(child)

    def _be_the_trial(self, text: str, connection: socket.socket, complaints: IO[bytes], alive: int) -> NoReturn:
        code = 1
        try:
            self.selector.close()
            self.listener.close()
            os.setsid()
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.dup2(connection.fileno(), 1)
            os.dup2(complaints.fileno(), 2)
            os.write(1, f"{json.dumps({'pid': os.getpid()})}\n".encode())
            for other in self.children:
                other.close()
            request = Request.from_json(text)
            if request.visible_devices is not None:
                os.environ[VISIBLE] = request.visible_devices
            if not _can_go_on(request):
                os.set_inheritable(alive, True)
                _become_an_interpreter(text)
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


def _can_go_on(request: Request) -> bool:
    if not FORKS_AS_IT_IS:
        return False
    import torch

    return json.loads(request.config).get("device") == "cpu" or not torch.cuda._is_in_bad_fork()


def _become_an_interpreter(text: str) -> NoReturn:
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
        os.rename(f"{address}.new", address)  # from now on it can be connected to
        if FORKS_AS_IT_IS:
            import bench.processes.trial_process  # noqa: F401
            from bench.processes.preload import import_for

            import_for(configs)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # from now on it ends in its own way: with its trials
        _Server(listener).serve_until_closed(sys.stdin.fileno())
    shutil.rmtree(os.path.dirname(address), ignore_errors=True)  # who made it may have been killed
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
