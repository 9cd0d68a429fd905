"""A process that watches the memory of another one: ``python -m bench.sampler PID``.

It runs beside a trial, so that sampling does not compete with training for the interpreter. It imports no torch and is
steered through its standard input, one command a line, one JSON answer each:

``watch ID ID``  from now on look at the first of these GPUs or MIG instances that NVML knows; answers with its UUID,
                 use when the sampler started, and the processes on it that are not the watched one
``reset``        forget peaks and series; answers with the present readings
``peaks``        answers with the highest readings and the series since the last reset
"""

import json
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import IO, Any

import psutil
import pynvml

INTERVAL_SECONDS = 0.01
SERIES_POINTS = 500
NAMES = ("rss_bytes", "nvml_device_bytes", "nvml_process_bytes")

Readings = dict[str, int | None]


def nvml_problem() -> str | None:
    """Why NVML cannot be used on this machine; ``None`` if it can."""
    return Gpus().problem


def bare(identifier: str) -> str:
    """The part of a UUID that torch, NVML and CUDA_VISIBLE_DEVICES agree on.

    >>> bare("GPU-5F3C-a1"), bare("MIG-5f3c-a1"), bare("5f3c-a1")
    ('5f3c-a1', '5f3c-a1', '5f3c-a1')
    """
    return identifier.lower().removeprefix("mig-").removeprefix("gpu-")


class Gpus:
    """NVML's cards and MIG instances, or none where there is no driver; ``problem`` says why."""

    def __init__(self) -> None:
        self.problem: str | None = None
        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError as error:
            self.problem = str(error)

    def by_uuid(self) -> dict[str, Any]:
        """Handles by UUID. A card that is cut into MIG instances stands for them: its own use is everybody's."""
        if self.problem:
            return {}
        found = {}
        for index in range(pynvml.nvmlDeviceGetCount()):
            card = pynvml.nvmlDeviceGetHandleByIndex(index)
            for handle in list(self._instances(card)) or [card]:
                found[str(pynvml.nvmlDeviceGetUUID(handle))] = handle
        return found

    @staticmethod
    def _instances(card: Any) -> Iterable[Any]:
        count = 0
        with suppress(pynvml.NVMLError):  # most cards cannot be cut
            count = pynvml.nvmlDeviceGetMaxMigDeviceCount(card)
        for index in range(count):
            with suppress(pynvml.NVMLError):  # a place without an instance
                yield pynvml.nvmlDeviceGetMigDeviceHandleByIndex(card, index)

    def used(self, handle: Any) -> int:
        """Bytes in use on the device."""
        return int(pynvml.nvmlDeviceGetMemoryInfo(handle).used)

    def processes(self, handle: Any) -> dict[int, int | None]:
        """Bytes by PID, ``None`` where NVML does not say. In a container the list may be empty or hold host PIDs."""
        return {p.pid: p.usedGpuMemory for p in pynvml.nvmlDeviceGetComputeRunningProcesses(handle)}

    def name(self, pid: int) -> str:
        """What NVML or the system calls a process."""
        with suppress(pynvml.NVMLError):
            name = pynvml.nvmlSystemGetProcessName(pid)
            return (name.decode() if isinstance(name, bytes) else name).rsplit("/", 1)[-1]
        with suppress(psutil.Error):
            return psutil.Process(pid).name()
        return "unknown"


class Series:
    """Readings over time in a bounded number of points: each holds the highest of its stretch, so no peak is lost."""

    def __init__(self, limit: int = SERIES_POINTS) -> None:
        self.limit, self.stride, self.count = limit, 1, 0
        self.points: list[dict[str, Any]] = []

    def add(self, seconds: float, readings: Readings) -> None:
        if self.count % self.stride == 0:
            if len(self.points) == self.limit:
                halves = zip(self.points[::2], self.points[1::2])
                self.points = [{"seconds": a["seconds"], **_highest(a, b)} for a, b in halves]
                self.stride *= 2
            self.points.append({"seconds": seconds, **readings})
        else:
            self.points[-1] |= _highest(self.points[-1], readings)
        self.count += 1


def _highest(a: Readings, b: Readings) -> Readings:
    return {name: max((v for v in (a[name], b[name]) if v is not None), default=None) for name in NAMES}


class Sampler:
    """Peaks of a process: resident memory, and use of the watched GPU."""

    def __init__(self, pid: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.process, self.clock = psutil.Process(pid), clock
        self.gpus = Gpus()
        self.at_start: dict[str, tuple[int, set[int]]] = {}
        for uuid, handle in self.gpus.by_uuid().items():
            with suppress(pynvml.NVMLError):
                self.at_start[uuid] = self.gpus.used(handle), set(self.gpus.processes(handle))
        self.handle: Any = None
        self.before: set[int] = set()  # PIDs on the card when the sampler started: the trial was not yet there
        self.foreign: dict[int, int | None] = {}
        self.newcomer: int | None = None
        self.reset()

    def read(self) -> Readings:
        """Present readings. A reading that NVML refuses counts as lost and is ``None``."""
        device = own = None
        if self.handle is not None:
            try:
                device = self.gpus.used(self.handle)
                own = self._sort_out(self.gpus.processes(self.handle))
            except pynvml.NVMLError:
                self.lost += 1
        return dict(zip(NAMES, (self.process.memory_info().rss, device, own)))

    def _sort_out(self, processes: dict[int, int | None]) -> int | None:
        """Notes the foreign ones and returns the watched process's use.

        NVML is not aware of PID namespaces: in a container the watched process bears the host's number there. It was
        not on the card at the start, so the first newcomer is taken for it, and its use is not known to be its own.
        """
        own = self.process.pid
        strangers = {pid: used for pid, used in processes.items() if pid != own}
        if own not in processes:
            arrived = [pid for pid in strangers if pid not in self.before]
            if self.newcomer is None and arrived:
                self.newcomer = arrived[0]
            strangers.pop(self.newcomer, None)
        elif self.newcomer is not None:
            self.newcomer = None
        for pid, used in strangers.items():
            known = [u for u in (used, self.foreign.get(pid)) if u is not None]
            self.foreign[pid] = max(known, default=None)
        return processes.get(own)

    def reset(self) -> Readings:
        self.lost = 0
        self.foreign = {}
        self.series, self.started = Series(), self.clock()
        self.latest, self.longest_gap = self.started, 0.0
        self.highest = self.read()
        self.samples = 1
        self.series.add(0.0, self.highest)
        return self.highest

    def sample(self) -> None:
        now = self.clock()
        self.longest_gap, self.latest = max(self.longest_gap, now - self.latest), now
        readings = self.read()
        self.highest = _highest(self.highest, readings)
        self.series.add(now - self.started, readings)
        self.samples += 1

    def watch(self, identifiers: Iterable[str]) -> dict[str, Any]:
        devices = self.gpus.by_uuid()
        wanted = (u for i in identifiers for u in devices if bare(u) == bare(i) or bare(u).startswith(bare(i)))
        uuid = next(wanted, None)
        self.handle = devices.get(uuid)
        baseline, self.before = self.at_start.get(uuid, (None, set()))
        self.newcomer, self.foreign = None, {}
        known = ", ".join(devices) or "none"
        problem = self.gpus.problem or (f"NVML does not know this device; it knows {known}" if uuid is None else None)
        here = {} if self.handle is None else {pid: None for pid in self.before if pid != self.process.pid}
        return {"uuid": uuid, "problem": problem, "nvml_baseline_bytes": baseline, "foreign": self._named(here)}

    def present(self) -> dict[str, Any]:
        """Use of the card, and who is on it, before the watched process has come to it."""
        used, processes = self.gpus.used(self.handle), self.gpus.processes(self.handle)
        self.before = set(processes)
        strangers = {pid: size for pid, size in processes.items() if pid != self.process.pid}
        return {"nvml_baseline_bytes": used, "foreign": self._named(strangers)}

    def _named(self, processes: dict[int, int | None]) -> list[dict[str, Any]]:
        return [{"pid": pid, "name": self.gpus.name(pid), "bytes": used} for pid, used in sorted(processes.items())]

    def answer(self, command: str) -> dict[str, Any]:
        word, *arguments = command.split()
        if word == "watch":
            return self.watch(arguments)
        if word == "present":
            return self.present()
        if word == "reset":
            return dict(self.reset())
        self.sample()
        return {
            **self.highest,
            "samples": self.samples,
            "lost_samples": self.lost,
            "longest_gap_seconds": self.longest_gap,
            "foreign": self._named(self.foreign),
            "series": self.series.points,
        }


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
