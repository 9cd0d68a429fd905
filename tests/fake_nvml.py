"""NVML with cards that a test describes, in the place of ``pynvml``."""

import types

import psutil

from bench.memory import nvml
from bench.memory.sampler import Sampler


class FakeNvml(types.ModuleType):
    """Cards by UUID, in NVML's order, each with scripted readings; an exception among them is raised.

    ``instances`` are the MIG instances that a card is cut into. ``energy`` are scripted readings of the counter in
    millijoules; a card without them does not support it. So are ``busy``, in per cent.
    """

    class NVMLError(Exception):
        pass

    def __init__(self, used, processes=(), instances=None, energy=None, busy=None):
        super().__init__("pynvml")
        self.used, self.processes, self.instances = used, list(processes), instances or {}
        self.energy, self.busy = energy or {}, busy or {}

    def refuse(self, function, handle, reason="Unknown Error"):
        """From now on a function fails for one card or instance, as where a card is lost or a container may not ask."""
        asked = getattr(self, function)

        def answer(*arguments):
            if arguments and arguments[0] == handle:
                raise self.NVMLError(reason)
            return asked(*arguments)

        setattr(self, function, answer)

    def nvmlInit(self):
        if self.used is None:
            raise self.NVMLError("Driver Not Loaded")

    def nvmlDeviceGetCount(self):
        return sum(not uuid.startswith("MIG-") for uuid in self.used)

    def nvmlDeviceGetHandleByIndex(self, index):
        return [uuid for uuid in self.used if not uuid.startswith("MIG-")][index]

    def nvmlDeviceGetMaxMigDeviceCount(self, card):
        if card not in self.instances:
            raise self.NVMLError("Not Supported")
        return 7

    def nvmlDeviceGetMigDeviceHandleByIndex(self, card, index):
        if index >= len(self.instances[card]):
            raise self.NVMLError("Not Found")
        return self.instances[card][index]

    def nvmlDeviceGetUUID(self, handle):
        return handle

    def nvmlDeviceGetMemoryInfo(self, handle):
        readings = self.used[handle]
        reading = readings.pop(0) if len(readings) > 1 else readings[0]
        if isinstance(reading, Exception):
            raise reading
        return types.SimpleNamespace(used=reading)

    def nvmlDeviceGetComputeRunningProcesses(self, handle):
        return [types.SimpleNamespace(pid=pid, usedGpuMemory=used) for pid, used in self.processes]

    def nvmlDeviceGetTotalEnergyConsumption(self, handle):
        if handle not in self.energy:
            raise self.NVMLError("Not Supported")
        readings = self.energy[handle]
        return readings.pop(0) if len(readings) > 1 else readings[0]

    def nvmlDeviceGetUtilizationRates(self, handle):
        if handle not in self.busy:
            raise self.NVMLError("Not Supported")
        readings = self.busy[handle]
        return types.SimpleNamespace(gpu=readings.pop(0) if len(readings) > 1 else readings[0], memory=0)

    def nvmlSystemGetProcessName(self, pid):
        return f"/usr/bin/job{pid}"


def watch(monkeypatch, fake, *identifiers, samples=5, then=lambda fake: None):
    """Samples this process on a simulated card; ``then`` changes the card after the sampler's command ``watch``.

    Returns the answers to ``watch`` and ``peaks``.
    """
    monkeypatch.setattr(nvml, "pynvml", fake)
    sampler = Sampler(psutil.Process().pid)
    start = sampler.answer(f"watch {' '.join(identifiers)}")
    then(fake)
    sampler.answer("reset")
    for _ in range(samples):
        sampler.sample()
    return start, sampler.answer("peaks")
