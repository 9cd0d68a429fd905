"""Peaks of this process, read from outside; and a simulated NVML with everything that real ones do."""

import io
import json
import subprocess
import sys
import time
import types

import numpy as np
import psutil
import pytest
import torch

from bench import sampler
from bench.memory import MemoryMonitor

MIB = 2**20


def test_resident_memory_that_comes_and_goes_is_seen_as_a_peak():
    with MemoryMonitor(torch.device("cpu")) as monitor:
        with monitor.phase() as quiet:
            pass
        with monitor.phase() as busy:
            block = np.ones(200 * MIB, np.uint8)
            time.sleep(0.1)
            del block
        with monitor.phase() as after:
            pass
    assert 190 * MIB < busy[0].rss_bytes - quiet[0].rss_bytes < 260 * MIB
    assert after[0].rss_bytes < busy[0].rss_bytes - 150 * MIB
    assert busy[0].samples > 5


def test_what_a_cpu_cannot_measure_is_none_and_not_zero():
    with MemoryMonitor(torch.device("cpu")) as monitor, monitor.phase() as peaks:
        pass
    memory = peaks[0]
    assert memory.torch_allocated_bytes is memory.torch_reserved_bytes is None
    assert memory.nvml_device_bytes is memory.nvml_process_bytes is memory.nvml_baseline_bytes is None


def test_a_body_that_fails_gives_no_peaks_and_leaves_no_process():
    with pytest.raises(ZeroDivisionError):
        with MemoryMonitor(torch.device("cpu")) as monitor, monitor.phase() as peaks:
            1 / 0
    assert peaks == []
    assert monitor.child.returncode == 0


def test_a_sampler_that_dies_is_an_error_and_not_a_zero():
    with pytest.raises(RuntimeError, match="the memory sampler ended"):
        with MemoryMonitor(torch.device("cpu")) as monitor:
            monitor.child.kill()
            monitor.child.wait()
            with monitor.phase():
                pass


class FakeNvml(types.ModuleType):
    """Two cards; the readings of a card can be scripted."""

    class NVMLError(Exception):
        pass

    def __init__(self, used, processes):
        super().__init__("pynvml")
        self.used, self.processes = used, processes

    def nvmlInit(self):
        if self.used is None:
            raise self.NVMLError("driver not loaded")

    def nvmlDeviceGetCount(self):
        return len(self.used)

    def nvmlDeviceGetHandleByIndex(self, index):
        return list(self.used)[index]

    def nvmlDeviceGetUUID(self, handle):
        return handle

    def nvmlDeviceGetHandleByUUID(self, uuid):
        if uuid not in self.used:
            raise self.NVMLError("not found")
        return uuid

    def nvmlDeviceGetMemoryInfo(self, handle):
        readings = self.used[handle]
        return types.SimpleNamespace(used=readings.pop(0) if len(readings) > 1 else readings[0])

    def nvmlDeviceGetComputeRunningProcesses(self, handle):
        return [types.SimpleNamespace(pid=pid, usedGpuMemory=used) for pid, used in self.processes]


def watch(monkeypatch, nvml, uuid, samples=5):
    monkeypatch.setattr(sampler, "pynvml", nvml)
    watcher = sampler.Sampler(psutil.Process().pid)
    baseline = watcher.answer(f"watch {uuid}")["nvml_baseline_bytes"]
    watcher.answer("reset")
    for _ in range(samples):
        watcher.sample()
    return baseline, watcher.answer("peaks")


def test_the_card_is_found_by_uuid_whatever_its_number(monkeypatch):
    own = psutil.Process().pid
    nvml = FakeNvml({"GPU-b": [700], "GPU-a": [100, 150, 900, 300]}, [(own, 400), (1, 77)])
    baseline, peaks = watch(monkeypatch, nvml, "GPU-a")
    assert (baseline, peaks["nvml_device_bytes"], peaks["nvml_process_bytes"]) == (100, 900, 400)


@pytest.mark.parametrize("processes", [[], [(1, 500)], [(psutil.Process().pid, None)]])
def test_in_a_container_the_process_figure_is_none(monkeypatch, processes):
    """The list is empty, holds the host's PIDs, or knows the process but not its use."""
    _, peaks = watch(monkeypatch, FakeNvml({"GPU-a": [100]}, processes), "GPU-a")
    assert peaks["nvml_process_bytes"] is None and peaks["nvml_device_bytes"] == 100


def test_without_a_driver_or_with_an_unknown_card_everything_is_none(monkeypatch):
    for nvml in (FakeNvml(None, []), FakeNvml({"GPU-a": [5]}, [])):
        baseline, peaks = watch(monkeypatch, nvml, "GPU-z")
        assert baseline is peaks["nvml_device_bytes"] is peaks["nvml_process_bytes"] is None
        assert peaks["rss_bytes"] > 0


def test_the_sampler_ends_with_its_input(monkeypatch):
    answers = io.StringIO()
    sampler.serve(psutil.Process().pid, io.StringIO("reset\npeaks\n"), answers)
    first, second = map(json.loads, answers.getvalue().splitlines())
    assert first["rss_bytes"] > 0 and second["samples"] >= 1


def test_the_sampler_imports_no_torch_so_that_it_starts_at_once():
    code = "import sys, bench.sampler; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no NVIDIA GPU")
def test_a_tensor_on_the_card_is_seen_by_torch_and_by_nvml():
    device = torch.device("cuda")
    with MemoryMonitor(device) as monitor:
        with monitor.phase() as peaks:
            block = torch.zeros(512 * MIB, dtype=torch.uint8, device=device)
            torch.cuda.synchronize()
            time.sleep(0.2)
            del block
    memory = peaks[0]
    assert memory.torch_allocated_bytes >= 512 * MIB
    assert memory.torch_reserved_bytes >= memory.torch_allocated_bytes
    assert memory.nvml_device_bytes is None or memory.nvml_device_bytes >= memory.torch_reserved_bytes
    assert memory.rss_bytes is None
