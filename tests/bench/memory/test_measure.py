"""Peaks of a phase, measured from a second process; cards are simulated."""

import json
import os
import time

import numpy as np
import psutil
import pytest
import torch
from fake_cuda import FakeCuda

from bench.config.settings import MemoryConfig
from bench.memory.measure import MeasurementSpoiled, MemoryMonitor, device_identifiers
from bench.records.memory import Memory

MIB = 2**20
OWN = psutil.Process().pid
DENIED = "Insufficient Permissions"


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
    with pytest.raises(MeasurementSpoiled, match=r"the memory sampler ended \(signal 9\), so the peak is unknown$"):
        with MemoryMonitor(torch.device("cpu")) as monitor:
            monitor.child.kill()
            monitor.child.wait()
            with monitor.phase():
                pass


NVML_OF_A_FILE = """
import json, os, types
class NVMLError(Exception): pass
def _state(): return json.load(open(os.environ["FAKE_NVML"]))
def nvmlInit():
    if "problem" in _state(): raise NVMLError(_state()["problem"])
def nvmlDeviceGetCount(): return 1
def nvmlDeviceGetHandleByIndex(index): return "GPU-a"
def nvmlDeviceGetUUID(handle): return handle
def nvmlDeviceGetMaxMigDeviceCount(handle): raise NVMLError("Not Supported")
def _ask(what):
    reason = _state().get("denied", {}).get(what)
    if reason: raise NVMLError(reason)
def nvmlDeviceGetUtilizationRates(handle): raise NVMLError("Not Supported")
def nvmlDeviceGetMemoryInfo(handle):
    _ask("memory")
    return types.SimpleNamespace(used=_state()["used"])
def nvmlDeviceGetComputeRunningProcesses(handle):
    _ask("processes")
    return [types.SimpleNamespace(pid=pid, usedGpuMemory=used) for pid, used in _state()["processes"]]
def nvmlSystemGetProcessName(pid): return f"job{pid}"
"""


@pytest.fixture
def card(monkeypatch, tmp_path):
    """A simulated GPU for the monitor and its sampler: ``card(used, processes)`` says what NVML shows from now on."""
    (tmp_path / "pynvml.py").write_text(NVML_OF_A_FILE)
    state = tmp_path / "state.json"
    monkeypatch.setenv("FAKE_NVML", str(state))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    FakeCuda(monkeypatch)

    def show(used=0, processes=(), **more):
        part = state.with_suffix(".part")
        part.write_text(json.dumps({"used": used, "processes": list(processes), **more}))
        part.replace(state)

    show()
    return show


CUDA = torch.device("cuda", 0)


def test_figures_are_taken_side_by_side_and_reconciled(card):
    card(100 * MIB)
    with MemoryMonitor(CUDA) as monitor, monitor.phase("training") as peaks:
        card(1000 * MIB, [(OWN, 850 * MIB)])
        time.sleep(0.3)
        card(120 * MIB, [(OWN, 20 * MIB)])
    memory = peaks[0]
    assert (memory.nvml_baseline_bytes, memory.nvml_device_bytes) == (100 * MIB, 900 * MIB)
    assert (memory.nvml_process_bytes, memory.rss_bytes) == (850 * MIB, None)
    assert (memory.fragmentation_bytes, memory.context_bytes) == (100 * MIB, 450 * MIB)
    assert memory.breach is None and memory.foreign_processes == []
    table = monitor.series_table()
    assert set(table["phase"]) == {"training"} and max(table["nvml_device_bytes"]) == 1000 * MIB


def test_a_foreign_process_fails_the_trial_before_it_starts(card):
    card(700 * MIB, [(77, 600 * MIB)])
    with pytest.raises(MeasurementSpoiled, match=r"before the trial: job77 \(PID 77"):
        MemoryMonitor(CUDA).__enter__()


def test_a_foreign_process_is_waited_for_or_noted(card, monkeypatch):
    monkeypatch.setattr("bench.memory.measure.POLL_SECONDS", 0.01)
    card(700 * MIB, [(77, 600 * MIB)])
    monkeypatch.setattr("bench.memory.measure.time.sleep", lambda seconds: card(90 * MIB))  # it ends while we wait
    with MemoryMonitor(CUDA, MemoryConfig(foreign_process="wait")) as monitor:
        assert monitor.nvml_baseline == 90 * MIB
    card(700 * MIB, [(77, 600 * MIB)])
    with MemoryMonitor(CUDA, MemoryConfig(foreign_process="note")) as monitor, monitor.phase() as peaks:
        pass
    assert peaks[0].foreign_processes == ["job77 (PID 77, 600 MiB)"]


def test_waiting_ends(card, monkeypatch):
    monkeypatch.setattr("bench.memory.measure.POLL_SECONDS", 0.01)
    card(700 * MIB, [(77, 600 * MIB)])
    with pytest.raises(MeasurementSpoiled, match="before the trial"):
        MemoryMonitor(CUDA, MemoryConfig(foreign_process="wait", wait_minutes=0.001)).__enter__()


def test_one_that_comes_during_the_trial_spoils_it(card):
    with pytest.raises(MeasurementSpoiled, match="during training: job78"):
        with MemoryMonitor(CUDA) as monitor, monitor.phase("training"):
            card(700 * MIB, [(OWN, 5), (78, 600 * MIB)])
            time.sleep(0.3)


def test_nvml_missing_on_a_gpu_machine_is_one_line(card):
    card(problem="Driver Not Loaded")
    with pytest.raises(MeasurementSpoiled) as error:
        MemoryMonitor(CUDA).__enter__()
    assert "NVML: Driver Not Loaded" in str(error.value) and "\n" not in str(error.value)
    with MemoryMonitor(CUDA, MemoryConfig(foreign_process="note")) as monitor, monitor.phase() as peaks:
        pass
    assert peaks[0].nvml_device_bytes is peaks[0].nvml_process_bytes is None
    assert peaks[0].foreign_processes is None
    assert peaks[0].denied == {"memory": "Driver Not Loaded", "processes": "Driver Not Loaded"}
    assert peaks[0].torch_allocated_bytes == 300 * MIB


def test_where_the_memory_is_denied_it_is_unknown_and_others_are_still_named(card):
    card(denied={"memory": DENIED})
    with MemoryMonitor(CUDA) as monitor, monitor.phase("training") as peaks:
        card(processes=[(OWN, 850 * MIB)], denied={"memory": DENIED})
        time.sleep(0.1)
    memory = peaks[0]
    assert memory.nvml_device_bytes is memory.nvml_baseline_bytes is None and memory.denied == {"memory": DENIED}
    assert memory.foreign_processes == [] and memory.torch_reserved_bytes == 400 * MIB
    card(processes=[(77, 600 * MIB)], denied={"memory": DENIED})
    with pytest.raises(MeasurementSpoiled, match=r"before the trial: job77"):
        MemoryMonitor(CUDA).__enter__()


@pytest.mark.parametrize("choice", ["fail", "wait"])
def test_where_the_processes_are_denied_nobody_is_alone(card, choice):
    card(100 * MIB, denied={"processes": DENIED})
    with pytest.raises(MeasurementSpoiled) as error:
        MemoryMonitor(CUDA, MemoryConfig(foreign_process=choice)).__enter__()
    said = str(error.value)
    assert "the list of the card's processes is refused (Insufficient Permissions) before the trial" in said
    assert "memory.foreign_process=note" in said and "\n" not in said
    card(100 * MIB)
    with pytest.raises(MeasurementSpoiled, match="refused .* during training"):
        with MemoryMonitor(CUDA) as monitor:
            card(100 * MIB, denied={"processes": DENIED})
            with monitor.phase("training"):
                pass


def test_who_wants_to_go_on_without_knowing_is_told_so_by_the_record(card):
    card(100 * MIB, denied={"processes": DENIED})
    with MemoryMonitor(CUDA, MemoryConfig(foreign_process="note")) as monitor, monitor.phase() as peaks:
        card(300 * MIB, denied={"processes": DENIED})
        time.sleep(0.1)
    memory = peaks[0]
    assert memory.foreign_processes is None and memory.denied == {"processes": DENIED}
    assert memory.nvml_device_bytes == 200 * MIB and memory.nvml_process_bytes is None
    assert Memory.model_validate_json(memory.model_dump_json()) == memory


def test_a_sampler_that_hangs_is_ended_and_what_it_told_is_kept(monkeypatch):
    with MemoryMonitor(torch.device("cpu")) as monitor:
        with monitor.phase() as peaks:
            pass
        monkeypatch.setattr("bench.memory.measure.END_SECONDS", 0.1)
        psutil.Process(monitor.child.pid).suspend()
    assert peaks[0].rss_bytes is not None and monitor.child.returncode == -9


def test_cards_are_named_by_what_is_visible_first(card, monkeypatch):
    for visible, expected in (("", ["a"]), ("3,1", ["a"]), ("MIG-7,GPU-8", ["MIG-7", "a"]), ("GPU-9", ["GPU-9", "a"])):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert device_identifiers(CUDA) == expected


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
