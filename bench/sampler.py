"""A process that watches the memory of another one: ``python -m bench.sampler PID``.

It runs beside a trial, so that sampling does not compete with training for the interpreter. It imports no torch and is
steered through its standard input, one command a line, one JSON answer each:

``watch UUID``   from now on look at this GPU too; answers with its use when the sampler started
``reset``        forget the peaks; answers with the present readings
``peaks``        answers with the highest readings since the last reset
"""

import json
import queue
import sys
import threading
from typing import IO, Any

import psutil
import pynvml

INTERVAL_SECONDS = 0.01

Readings = dict[str, int | None]


class Gpus:
    """NVML, or nothing where there is no driver."""

    def __init__(self) -> None:
        try:
            pynvml.nvmlInit()
            self.available = True
        except pynvml.NVMLError:
            self.available = False

    def used_by_uuid(self) -> dict[str, int]:
        """Bytes in use on every device, by UUID."""
        if not self.available:
            return {}
        handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
        return {str(pynvml.nvmlDeviceGetUUID(h)): int(pynvml.nvmlDeviceGetMemoryInfo(h).used) for h in handles}

    def handle(self, uuid: str) -> Any:
        """The device, or ``None`` if NVML does not know it."""
        if not self.available:
            return None
        try:
            return pynvml.nvmlDeviceGetHandleByUUID(uuid)
        except pynvml.NVMLError:
            return None

    def read(self, handle: Any, pid: int) -> tuple[int, int | None]:
        """Bytes in use on the device, and by the process.

        NVML is not aware of PID namespaces: in a container the list is empty or holds the host's numbers, and a use
        may be unknown. All that is ``None``, never 0.
        """
        processes = pynvml.nvmlDeviceGetComputeRunningProcesses(handle)
        own = next((p.usedGpuMemory for p in processes if p.pid == pid), None)
        return int(pynvml.nvmlDeviceGetMemoryInfo(handle).used), own


class Sampler:
    """Peaks of a process: resident memory, and use of the watched GPU."""

    def __init__(self, pid: int) -> None:
        self.process = psutil.Process(pid)
        self.gpus = Gpus()
        self.at_start = self.gpus.used_by_uuid()
        self.handle: Any = None
        self.reset()

    def read(self) -> Readings:
        device, own = self.gpus.read(self.handle, self.process.pid) if self.handle else (None, None)
        return {"rss_bytes": self.process.memory_info().rss, "nvml_device_bytes": device, "nvml_process_bytes": own}

    def reset(self) -> Readings:
        self.highest = self.read()
        self.samples = 1
        return self.highest

    def sample(self) -> None:
        for name, value in self.read().items():
            known = [v for v in (self.highest[name], value) if v is not None]
            self.highest[name] = max(known, default=None)
        self.samples += 1

    def answer(self, command: str) -> dict[str, Any]:
        word, _, argument = command.partition(" ")
        if word == "watch":
            self.handle = self.gpus.handle(argument)
            return {"nvml_baseline_bytes": self.at_start.get(argument) if self.handle else None}
        if word == "reset":
            return dict(self.reset())
        self.sample()
        return {**self.highest, "samples": self.samples}


def serve(pid: int, commands: IO[str], answers: IO[str]) -> None:
    """Samples until ``commands`` ends, which it also does when the watched process dies."""
    sampler = Sampler(pid)
    inbox: queue.Queue[str | None] = queue.Queue()

    def listen() -> None:
        for line in commands:
            inbox.put(line.strip())
        inbox.put(None)

    threading.Thread(target=listen, daemon=True).start()
    while True:
        try:
            command = inbox.get(timeout=INTERVAL_SECONDS)
        except queue.Empty:
            try:
                sampler.sample()
            except psutil.NoSuchProcess:
                return
            continue
        if command is None:
            return
        print(json.dumps(sampler.answer(command)), file=answers, flush=True)


if __name__ == "__main__":
    serve(int(sys.argv[1]), sys.stdin, sys.stdout)
