"""A process that watches the memory of another one: ``python -m bench.memory.sampler PID``.

It runs beside a trial, so that sampling does not compete with training for the interpreter. It imports no torch and is
steered through its standard input, one command a line, one JSON answer each:

``watch ID ID``  from now on look at the first of these GPUs or MIG instances that NVML knows; answers with its UUID,
                 use when the sampler started, and the processes on it that are not the watched one
``present``      answers with the use of the watched GPU, and who is on it, at this moment
``reset``        forget peaks and series; answers with the present readings
``peaks``        answers with the highest readings and the series since the last reset

What NVML refuses to show is ``null`` in an answer, never empty or 0, and ``denied`` says why.
"""

import json
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import IO, Any

import psutil
import pynvml

INTERVAL_SECONDS = 0.01
SERIES_POINTS = 500
NAMES = ("rss_bytes", "nvml_device_bytes", "nvml_process_bytes")

Readings = dict[str, int | None]


def nvml_problem() -> str | None:
    """Why NVML cannot say who is on the card that a trial will use; ``None`` if it can.

    Where ``$CUDA_VISIBLE_DEVICES`` does not name cards by UUID, any card may be the one: one that answers is enough.
    """
    gpus = Gpus()
    cards = gpus.by_uuid()
    visible = [entry.strip() for entry in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")]
    named = [entry for entry in visible if entry.startswith(("GPU-", "MIG-"))]
    eligible = [handle for uuid, handle in cards.items() if not named or any(is_same(uuid, one) for one in named)]
    if not eligible:
        return gpus.unknown()
    refusals = [gpus.look(handle).denied.get("processes") for handle in eligible]
    return None if None in refusals else not_listed(refusals[0])


def not_listed(reason: str) -> str:
    """What is wrong where NVML refuses to say who is on a card."""
    return f"the list of the card's processes is refused ({reason})"


def is_same(uuid: str, identifier: str) -> bool:
    """Whether an identifier, which may be shortened, means the device of this UUID."""
    return bare(uuid).startswith(bare(identifier))


def bare(identifier: str) -> str:
    """The part of a UUID that torch, NVML and CUDA_VISIBLE_DEVICES agree on.

    >>> bare("GPU-5F3C-a1"), bare("MIG-5f3c-a1"), bare("5f3c-a1")
    ('5f3c-a1', '5f3c-a1', '5f3c-a1')
    """
    return identifier.lower().removeprefix("mig-").removeprefix("gpu-")


@dataclass
class Look:
    """What NVML shows of a card at a moment. What it refuses is ``None``, and ``denied`` says why."""

    used: int | None = None  # bytes, by all processes
    processes: dict[int, int | None] | None = None
    """Bytes by PID, ``None`` where NVML does not say. In a container the list may be empty or hold host PIDs."""
    denied: dict[str, str] = field(default_factory=dict)
    """NVML's reason by what it refuses: ``memory``, ``processes``."""


class Gpus:
    """NVML's cards and MIG instances, or none where there is no driver; ``problem`` says why.

    A card that does not answer is no reason to know nothing of the others.
    """

    def __init__(self) -> None:
        self.problem: str | None = None
        self.silent: dict[int, str] = {}
        """Cards by number that do not say who they are, and NVML's reason."""
        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError as error:
            self.problem = str(error)

    def by_uuid(self) -> dict[str, Any]:
        """Handles by UUID. A card that is cut into MIG instances stands for them: its own use is everybody's."""
        found = {}
        for number, card in self._cards():
            for handle in list(self._instances(card)) or [card]:
                try:
                    found[str(pynvml.nvmlDeviceGetUUID(handle))] = handle
                except pynvml.NVMLError as error:
                    self.silent[number] = str(error)
        return found

    def _cards(self) -> Iterator[tuple[int, Any]]:
        """Numbers and handles of the cards that answer."""
        count = 0
        if self.problem is None:
            try:
                count = pynvml.nvmlDeviceGetCount()
            except pynvml.NVMLError as error:
                self.problem = str(error)
        for number in range(count):
            try:
                yield number, pynvml.nvmlDeviceGetHandleByIndex(number)
            except pynvml.NVMLError as error:
                self.silent[number] = str(error)

    @staticmethod
    def _instances(card: Any) -> Iterable[Any]:
        count = 0
        with suppress(pynvml.NVMLError):  # most cards cannot be cut
            count = pynvml.nvmlDeviceGetMaxMigDeviceCount(card)
        for index in range(count):
            with suppress(pynvml.NVMLError):  # a place without an instance
                yield pynvml.nvmlDeviceGetMigDeviceHandleByIndex(card, index)

    def unknown(self) -> str:
        """Why a device is not among those of ``by_uuid``."""
        known = ", ".join(self.by_uuid()) or "none"
        silent = [f"; card {number} does not answer: {reason}" for number, reason in self.silent.items()]
        return self.problem or f"NVML does not know this device; it knows {known}{''.join(silent)}"

    def capability(self) -> tuple[int, int] | None:
        """Compute capability of the first card that says it."""
        for _, card in self._cards():
            with suppress(pynvml.NVMLError):
                return tuple(pynvml.nvmlDeviceGetCudaComputeCapability(card))
        return None

    def look(self, handle: Any) -> Look:
        """Each quantity for itself: a container may refuse the one and show the other."""
        seen = Look()
        try:
            seen.used = int(pynvml.nvmlDeviceGetMemoryInfo(handle).used)
        except pynvml.NVMLError as error:
            seen.denied["memory"] = str(error)
        try:
            seen.processes = {p.pid: p.usedGpuMemory for p in pynvml.nvmlDeviceGetComputeRunningProcesses(handle)}
        except pynvml.NVMLError as error:
            seen.denied["processes"] = str(error)
        return seen

    def name(self, pid: int) -> str:
        """What NVML or the system calls a process."""
        with suppress(pynvml.NVMLError):
            name = pynvml.nvmlSystemGetProcessName(pid)
            return (name.decode(errors="replace") if isinstance(name, bytes) else name).rsplit("/", 1)[-1]
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
        self.at_start = {uuid: self.gpus.look(handle) for uuid, handle in self.gpus.by_uuid().items()}
        self.handle: Any = None
        self.before: set[int] = set()  # PIDs on the card when the sampler started: the trial was not yet there
        self.foreign: dict[int, int | None] = {}
        self.newcomer: int | None = None
        self.reset()

    def read(self) -> Readings:
        """Present readings. One of which NVML refuses a part counts as lost, and that part is ``None``."""
        device = own = None
        if self.handle is not None:
            seen = self.gpus.look(self.handle)
            self.lost += bool(seen.denied)
            self.denied = {what: why for what, why in seen.denied.items() if what in self.denied}
            device = seen.used
            own = None if seen.processes is None else self._sort_out(seen.processes)
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
        self.denied = {"memory": "", "processes": ""}  # what no reading has shown since, and why
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
        wanted = (uuid for identifier in identifiers for uuid in devices if is_same(uuid, identifier))
        uuid = next(wanted, None)
        self.handle, self.newcomer, self.foreign = devices.get(uuid), None, {}
        if self.handle is None:
            return {"uuid": None, "problem": self.gpus.unknown(), **self._before(Look())}
        seen = self.at_start.get(uuid) or self.gpus.look(self.handle)  # it may not have answered then
        shown = seen.processes and dict.fromkeys(seen.processes)  # their use at that time is of no interest
        return {"uuid": uuid, "problem": None, **self._before(replace(seen, processes=shown))}

    def present(self) -> dict[str, Any]:
        """Use of the card, and who is on it, before the watched process has come to it."""
        return self._before(self.gpus.look(self.handle))

    def _before(self, seen: Look) -> dict[str, Any]:
        """What a card shows before the watched process has come to it; ``foreign`` is ``None`` where that is denied."""
        self.before = set(seen.processes or ())
        strangers = {pid: size for pid, size in (seen.processes or {}).items() if pid != self.process.pid}
        foreign = None if seen.processes is None else self._named(strangers)
        return {"nvml_baseline_bytes": seen.used, "foreign": foreign, "denied": seen.denied}

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
        denied = {what: why for what, why in self.denied.items() if why}
        return {
            **self.highest,
            "samples": self.samples,
            "lost_samples": self.lost,
            "longest_gap_seconds": self.longest_gap,
            "foreign": None if "processes" in denied else self._named(self.foreign),
            "denied": denied,
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
