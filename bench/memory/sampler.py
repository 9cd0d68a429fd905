"""A process that samples the memory of another process: ``python -m bench.memory.sampler PID``.

It is a process of its own, so that sampling does not compete with training for the interpreter. It imports no torch and
takes commands on its standard input, one a line, and answers each with a line of JSON:

``watch ID ID``  observe from now on the first of these GPUs or MIG instances that NVML knows; answers with its UUID,
                 its use when the sampler started, and the processes on it other than the observed one
``present``      answers with the present use of that GPU, and the processes on it
``reset``        clear peaks and series; answers with the present readings
``counters``     answers with the energy in millijoules that the GPU has taken since the driver was loaded, and with the
                 sum and number of the readings of its utilisation since ``watch``
``peaks``        answers with the highest readings and the series since the last reset

A quantity that NVML refuses to show is ``null`` in an answer, never empty or 0, and ``denied`` gives the reason.
"""

import json
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import IO, Any

import psutil

from bench.memory.nvml import Gpus, Observation, is_same

INTERVAL_SECONDS = 0.01
SERIES_POINTS = 500
BUSY_EVERY = 10
"""Samples between two readings of utilisation, which NVML renews several times a second at most."""

Readings = dict[str, int | None]
"""Bytes by the name of their measure (``bench.records.memory.MEASURES``)."""


class Series:
    """Readings over time in a bounded number of points. Each point holds the highest readings of its time span, so
    that no peak is lost."""

    def __init__(self, limit: int = SERIES_POINTS) -> None:
        self.limit, self.stride, self.count = limit, 1, 0
        self.points: list[dict[str, Any]] = []

    def add(self, seconds: float, readings: Readings) -> None:
        if self.count % self.stride == 0:
            if len(self.points) == self.limit:
                halves = zip(self.points[::2], self.points[1::2])
                self.points = [{**_highest(a, b), "seconds": a["seconds"]} for a, b in halves]
                self.stride *= 2
            self.points.append({"seconds": seconds, **readings})
        else:
            self.points[-1] |= _highest(readings, self.points[-1])
        self.count += 1


def _highest(a: Readings, b: Readings) -> Readings:
    """Returns the higher value of each name in ``a``; ``None`` where both are unknown."""
    highest: Readings = {}
    for name in a:
        known = [value for value in (a[name], b[name]) if value is not None]
        highest[name] = max(known, default=None)
    return highest


class Sampler:
    """Peaks of a process: resident memory, and use of the observed GPU."""

    def __init__(self, pid: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.process, self.clock = psutil.Process(pid), clock
        self.gpus = Gpus()
        self.at_start = {uuid: self.gpus.observe(handle) for uuid, handle in self.gpus.by_uuid().items()}
        self.handle: Any = None
        self.before: set[int] = set()
        """PIDs that were on the card before the trial."""
        self.foreign: dict[int, int | None] = {}
        """Highest use in bytes of each foreign process, by PID."""
        self.newcomer: int | None = None
        """PID that is taken for the observed process, where NVML reports PIDs of the host."""
        self.busy_percent, self.busy_readings = 0, 0
        self.reset()

    def read(self) -> Readings:
        """Takes the present readings. A reading counts as lost if NVML refuses a part, and that part is ``None``."""
        device = own = None
        if self.handle is not None:
            observation = self.gpus.observe(self.handle)
            self.lost += bool(observation.denied)
            self.denied = {what: why for what, why in observation.denied.items() if what in self.denied}
            device = observation.used
            if observation.processes is not None:
                own = self._separate_foreign(observation.processes)
        rss = self.process.memory_info().rss
        return {"rss_bytes": rss, "nvml_device_bytes": device, "nvml_process_bytes": own}

    def _separate_foreign(self, processes: dict[int, int | None]) -> int | None:
        """Notes the foreign processes and returns the use of the observed one.

        NVML ignores PID namespaces: in a container it reports the observed process under its PID on the host. That
        process was not on the card at the start, so the first new PID is taken for it. Its use then stays unknown.
        """
        own = self.process.pid
        foreign = {pid: used for pid, used in processes.items() if pid != own}
        if own in processes:
            self.newcomer = None
        else:
            arrived = [pid for pid in foreign if pid not in self.before]
            if self.newcomer is None and arrived:
                self.newcomer = arrived[0]
            foreign.pop(self.newcomer, None)
        for pid, used in foreign.items():
            known = [value for value in (used, self.foreign.get(pid)) if value is not None]
            self.foreign[pid] = max(known, default=None)
        return processes.get(own)

    def reset(self) -> Readings:
        """Clears peaks, series and counts, and takes a first reading."""
        self.lost = 0
        self.foreign = {}
        self.denied = {"memory": "", "processes": ""}  # quantities that no reading has shown since, with the reason
        self.series, self.started = Series(), self.clock()
        self.latest, self.longest_gap = self.started, 0.0
        self.highest = self.read()
        self.samples = 1
        self.series.add(0.0, self.highest)
        return self.highest

    def sample(self) -> None:
        """Takes a reading and adds it to peaks and series."""
        now = self.clock()
        self.longest_gap, self.latest = max(self.longest_gap, now - self.latest), now
        readings = self.read()
        self.highest = _highest(self.highest, readings)
        self.series.add(now - self.started, readings)
        self.samples += 1
        if self.handle is not None and self.samples % BUSY_EVERY == 0:
            busy = self.gpus.utilisation(self.handle)
            if busy is not None:
                self.busy_percent += busy
                self.busy_readings += 1

    def watch(self, identifiers: Iterable[str]) -> dict[str, Any]:
        """Observes the first of these devices that NVML knows. Returns its state from when the sampler started."""
        devices = self.gpus.by_uuid()
        matching = (uuid for identifier in identifiers for uuid in devices if is_same(uuid, identifier))
        uuid = next(matching, None)
        self.handle, self.newcomer, self.foreign = devices.get(uuid), None, {}
        if self.handle is None:
            return {"uuid": None, "problem": self.gpus.why_unknown(), **self._baseline(Observation())}
        observation = self.at_start.get(uuid) or self.gpus.observe(self.handle)  # it may not have answered at the start
        if observation.processes:  # their use at that time is of no interest
            observation = replace(observation, processes=dict.fromkeys(observation.processes))
        return {"uuid": uuid, "problem": None, **self._baseline(observation)}

    def present(self) -> dict[str, Any]:
        """Returns use of the card and processes on it, before the observed process has used it."""
        return self._baseline(self.gpus.observe(self.handle))

    def counters(self) -> dict[str, Any]:
        """Returns the counter of energy, the time of its reading, and the readings of utilisation until then."""
        millijoules, problem = None, "the card is not known"
        if self.handle is not None:
            millijoules, problem = self.gpus.energy(self.handle)
        busy = {"busy_percent": self.busy_percent, "busy_readings": self.busy_readings}
        return {"millijoules": millijoules, "seconds": self.clock(), "problem": problem, **busy}

    def _baseline(self, observation: Observation) -> dict[str, Any]:
        """Takes an observation for the state before the trial; ``foreign`` is ``None`` where NVML refuses the list."""
        self.before = set(observation.processes or ())
        foreign = None
        if observation.processes is not None:
            others = {pid: used for pid, used in observation.processes.items() if pid != self.process.pid}
            foreign = self._named(others)
        return {"nvml_baseline_bytes": observation.used, "foreign": foreign, "denied": observation.denied}

    def _named(self, processes: dict[int, int | None]) -> list[dict[str, Any]]:
        return [{"pid": pid, "name": self.gpus.name(pid), "bytes": used} for pid, used in sorted(processes.items())]

    def answer(self, command: str) -> dict[str, Any]:
        """Executes one command of the module's docstring."""
        word, *arguments = command.split()
        if word == "watch":
            return self.watch(arguments)
        if word == "present":
            return self.present()
        if word == "counters":
            return self.counters()
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
    """Samples until ``commands`` ends, which it also does when the observed process dies."""
    sampler = Sampler(pid)
    received: queue.Queue[str | None] = queue.Queue()

    def receive() -> None:
        for line in commands:
            received.put(line.strip())
        received.put(None)

    threading.Thread(target=receive, daemon=True).start()
    while True:
        try:
            command = received.get(timeout=INTERVAL_SECONDS)
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
