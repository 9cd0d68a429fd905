"""Peaks of this process, read from outside; and a simulated NVML with everything that real ones do."""

import inspect
import io
import json
import os
import re
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest
import torch
from fake_cuda import FakeCuda
from fake_nvml import FakeNvml
from hypothesis import given
from hypothesis import strategies as st

from bench.config.settings import MemoryConfig
from bench.memory import sampler
from bench.memory.measure import MeasurementSpoiled, MemoryMonitor, device_identifiers
from bench.records.memory import Memory

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
    with pytest.raises(MeasurementSpoiled, match=r"the memory sampler ended \(signal 9\), so nobody saw the peak$"):
        with MemoryMonitor(torch.device("cpu")) as monitor:
            monitor.child.kill()
            monitor.child.wait()
            with monitor.phase():
                pass


OWN = psutil.Process().pid


def watch(monkeypatch, nvml, *identifiers, samples=5, then=lambda nvml: None):
    """Watches a simulated card from before the trial; ``then`` changes it once watching has begun."""
    monkeypatch.setattr(sampler, "pynvml", nvml)
    watcher = sampler.Sampler(OWN)
    start = watcher.answer(f"watch {' '.join(identifiers)}")
    then(nvml)
    watcher.answer("reset")
    for _ in range(samples):
        watcher.sample()
    return start, watcher.answer("peaks")


def test_the_card_is_found_by_uuid_whatever_its_number(monkeypatch):
    nvml = FakeNvml({"GPU-b": [700], "GPU-a": [100, 150, 900, 300]}, [(OWN, 400)])
    start, peaks = watch(monkeypatch, nvml, "a")
    assert (start["uuid"], start["nvml_baseline_bytes"]) == ("GPU-a", 100)
    assert (peaks["nvml_device_bytes"], peaks["nvml_process_bytes"]) == (900, 400)


def test_uuids_match_whatever_their_prefix_case_and_length(monkeypatch):
    for identifier in ("GPU-5F3Cab", "5f3cab", "gpu-5f3c"):
        start, _ = watch(monkeypatch, FakeNvml({"GPU-0000": [1], "GPU-5f3cab": [2]}), identifier)
        assert start["uuid"] == "GPU-5f3cab" and start["problem"] is None


def test_a_mig_instance_is_watched_and_not_its_card(monkeypatch):
    used = {"GPU-a": [9000], "GPU-b": [70], "MIG-1": [10, 50], "MIG-2": [4000]}
    nvml = FakeNvml(used, [(OWN, 40)], {"GPU-a": ["MIG-1", "MIG-2"]})
    start, peaks = watch(monkeypatch, nvml, "MIG-1", "a")
    assert (start["uuid"], start["nvml_baseline_bytes"], peaks["nvml_device_bytes"]) == ("MIG-1", 10, 50)
    start, peaks = watch(monkeypatch, nvml, "a")  # the whole card's use is everybody's
    assert start["uuid"] is None and "MIG-1, MIG-2" in start["problem"] and peaks["nvml_device_bytes"] is None


@pytest.mark.parametrize("processes", [[], [(1, 500)], [(OWN, None)]])
def test_in_a_container_the_process_figure_is_none(monkeypatch, processes):
    """The list is empty, holds the host's PIDs, or knows the process but not its use."""
    _, peaks = watch(monkeypatch, FakeNvml({"GPU-a": [100]}), "GPU-a", then=lambda n: n.processes.extend(processes))
    assert peaks["nvml_process_bytes"] is None and peaks["nvml_device_bytes"] == 100
    assert peaks["foreign"] == []  # the one that came is this one under its other number


def test_another_process_is_named_before_and_during_the_trial(monkeypatch):
    nvml = FakeNvml({"GPU-a": [100]}, [(77, 300)])
    start, peaks = watch(monkeypatch, nvml, "GPU-a", then=lambda n: n.processes.extend([(OWN, 10), (78, 50)]))
    assert [each["name"] for each in start["foreign"]] == ["job77"]
    assert peaks["foreign"] == [
        {"pid": 77, "name": "job77", "bytes": 300},
        {"pid": 78, "name": "job78", "bytes": 50},
    ]


def test_under_the_hosts_numbers_the_second_newcomer_is_foreign(monkeypatch):
    nvml = FakeNvml({"GPU-a": [100]})
    _, peaks = watch(monkeypatch, nvml, "GPU-a", then=lambda n: n.processes.extend([(9001, 10), (9002, 50)]))
    assert [each["pid"] for each in peaks["foreign"]] == [9002]


def test_lost_samples_are_counted_and_the_others_kept(monkeypatch):
    lost = FakeNvml.NVMLError("GPU is lost")
    _, peaks = watch(monkeypatch, FakeNvml({"GPU-a": [100, 200, lost, 700, lost, 300]}, [(OWN, 5)]), "GPU-a")
    assert (peaks["nvml_device_bytes"], peaks["lost_samples"], peaks["nvml_process_bytes"]) == (700, 2, 5)
    _, peaks = watch(monkeypatch, FakeNvml({"GPU-a": [100, lost]}), "GPU-a")
    assert peaks["nvml_device_bytes"] is None and peaks["lost_samples"] == peaks["samples"]


def test_without_a_driver_or_with_an_unknown_card_everything_is_none(monkeypatch):
    for nvml, problem in ((FakeNvml(None), "Driver Not Loaded"), (FakeNvml({"GPU-a": [5]}), "it knows GPU-a")):
        start, peaks = watch(monkeypatch, nvml, "GPU-z")
        assert problem in start["problem"]
        assert start["nvml_baseline_bytes"] is peaks["nvml_device_bytes"] is peaks["nvml_process_bytes"] is None
        assert peaks["rss_bytes"] > 0


# --- cards that do not answer, and containers that may not ask --------------------------------------------------------

LOST, DENIED = "GPU is lost", "Insufficient Permissions"
ABOUT_CARDS = {  # NVML's functions that are asked about a card, and what they are given for the second one
    "nvmlDeviceGetHandleByIndex": 1,
    "nvmlDeviceGetMaxMigDeviceCount": "GPU-b",
    "nvmlDeviceGetUUID": "GPU-b",
    "nvmlDeviceGetMemoryInfo": "GPU-b",
    "nvmlDeviceGetComputeRunningProcesses": "GPU-b",
}


def two_cards():
    return FakeNvml({"GPU-a": [100, 200, 300], "GPU-b": [500, 600]}, [(OWN, 40), (77, 30)])


def test_every_function_that_the_sampler_calls_is_made_to_fail_here():
    others = {"nvmlInit", "nvmlDeviceGetCount", "nvmlSystemGetProcessName"}  # not about a card; see below
    others |= {"nvmlDeviceGetMigDeviceHandleByIndex", "nvmlDeviceGetCudaComputeCapability"}
    assert set(re.findall(r"pynvml\.(nvml\w+)", inspect.getsource(sampler))) == ABOUT_CARDS.keys() | others


@pytest.mark.parametrize("function", ABOUT_CARDS)
def test_what_fails_on_one_card_changes_nothing_on_another(monkeypatch, function):
    expected = watch(monkeypatch, two_cards(), "GPU-a")
    sick = two_cards()
    sick.refuse(function, ABOUT_CARDS[function], LOST)
    found = watch(monkeypatch, sick, "GPU-a")
    for answers in (expected, found):
        for name in ("series", "longest_gap_seconds", "rss_bytes"):
            answers[1].pop(name)  # of this process and the clock
    assert found == expected and found[1]["nvml_device_bytes"] == 300 and found[1]["nvml_process_bytes"] == 40
    assert sampler.nvml_problem() is None


@pytest.mark.parametrize("function", ABOUT_CARDS)
def test_what_fails_on_the_watched_card_is_unknown_and_no_pass(monkeypatch, function):
    sick = two_cards()
    sick.refuse(function, ABOUT_CARDS[function], LOST)
    start, peaks = watch(monkeypatch, sick, "GPU-b")
    if function in ("nvmlDeviceGetHandleByIndex", "nvmlDeviceGetUUID"):
        expected = "NVML does not know this device; it knows GPU-a; card 1 does not answer: GPU is lost"
        assert start["problem"] == expected and start["foreign"] is None and start["nvml_baseline_bytes"] is None
        assert peaks["nvml_device_bytes"] is peaks["nvml_process_bytes"] is None
        return
    memory, processes = function != "nvmlDeviceGetMemoryInfo", function != "nvmlDeviceGetComputeRunningProcesses"
    others = [{"pid": 77, "name": "job77", "bytes": 30}]
    assert start["nvml_baseline_bytes"] == (500 if memory else None)
    assert peaks["nvml_device_bytes"] == (600 if memory else None)
    assert peaks["nvml_process_bytes"] == (40 if processes else None)
    assert peaks["foreign"] == (others if processes else None) and bool(start["foreign"]) == processes
    refused = {"memory": LOST} if not memory else {"processes": LOST} if not processes else {}
    assert peaks["denied"] == start["denied"] == refused
    assert (peaks["lost_samples"] == peaks["samples"]) == bool(refused)


def test_in_a_container_that_denies_the_memory_another_process_is_still_seen(monkeypatch):
    nvml = FakeNvml({"GPU-a": [9000], "MIG-c": [10]}, [(4242, 3 * 2**30)], {"GPU-a": ["MIG-c"]})
    nvml.refuse("nvmlDeviceGetMemoryInfo", "MIG-c", DENIED)
    start, peaks = watch(monkeypatch, nvml, "MIG-c", "a")
    assert [each["name"] for each in start["foreign"]] == [each["name"] for each in peaks["foreign"]] == ["job4242"]
    assert start["nvml_baseline_bytes"] is peaks["nvml_device_bytes"] is None and peaks["denied"] == {"memory": DENIED}


def test_a_list_that_is_refused_now_and_then_was_seen(monkeypatch):
    nvml = two_cards()
    real = nvml.nvmlDeviceGetComputeRunningProcesses
    asked = []

    def now_and_then(handle):
        asked.append(handle)
        if len(asked) % 2:
            raise FakeNvml.NVMLError("Timeout")
        return real(handle)

    nvml.nvmlDeviceGetComputeRunningProcesses = now_and_then
    _, peaks = watch(monkeypatch, nvml, "GPU-a", samples=4)
    assert [each["pid"] for each in peaks["foreign"]] == [77] and peaks["denied"] == {}
    assert 0 < peaks["lost_samples"] < peaks["samples"]


def test_a_name_that_cannot_be_told_is_unknown(monkeypatch):
    nvml = FakeNvml({"GPU-a": [1]}, [(2**30, 5)])
    for name, said in ((b"/bin/caf\xe9", "caf\N{REPLACEMENT CHARACTER}"), (None, "unknown")):
        nvml.nvmlSystemGetProcessName = lambda pid, name=name: name
        if name is None:
            nvml.refuse("nvmlSystemGetProcessName", 2**30)
        _, peaks = watch(monkeypatch, nvml, "GPU-a")
        assert [each["name"] for each in peaks["foreign"]] == [said]


def test_a_driver_that_fails_after_its_start_is_a_problem(monkeypatch):
    nvml = two_cards()

    def fail():
        raise FakeNvml.NVMLError(LOST)

    nvml.nvmlDeviceGetCount = fail
    start, peaks = watch(monkeypatch, nvml, "GPU-a")
    assert start["problem"] == LOST and peaks["nvml_device_bytes"] is None and sampler.nvml_problem() == LOST


def test_before_any_work_the_cards_that_a_trial_may_get_are_looked_at(monkeypatch):
    nvml = two_cards()
    monkeypatch.setattr(sampler, "pynvml", nvml)
    nvml.refuse("nvmlDeviceGetComputeRunningProcesses", "GPU-b", DENIED)
    refused = "the list of the card's processes is refused (Insufficient Permissions)"
    for visible, problem in (
        (None, None),
        ("1", None),  # numbers are not trusted: any card may be the one
        ("GPU-a", None),
        ("GPU-b", refused),
        ("GPU-a,GPU-b", None),
        ("GPU-z", "NVML does not know this device; it knows GPU-a, GPU-b"),
    ):
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if visible is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert sampler.nvml_problem() == problem, visible


def test_a_trial_whose_neighbours_cannot_be_seen_is_missing_something(monkeypatch, tiny_with):
    nvml = FakeNvml({"GPU-a": [1]})
    monkeypatch.setattr(sampler, "pynvml", nvml)
    FakeCuda(monkeypatch)
    nvml.refuse("nvmlDeviceGetComputeRunningProcesses", "GPU-a", DENIED)
    (item,) = tiny_with({"device": "cuda"}).missing()
    assert item.field == "memory.foreign_process" and "refused (Insufficient Permissions)" in item.what
    assert "memory.foreign_process=note" in item.remedy
    assert list(tiny_with({"device": "cuda", "memory.foreign_process": "note"}).missing()) == []


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=400), st.sampled_from([2, 4, 10]))
def test_a_series_keeps_its_peak_its_order_and_its_bound(values, limit):
    series = sampler.Series(limit)
    for i, value in enumerate(values):
        series.add(i / 100, dict.fromkeys(sampler.NAMES, value))
    assert len(series.points) <= limit
    assert max(p["rss_bytes"] for p in series.points) == max(values)
    seconds = [p["seconds"] for p in series.points]
    assert seconds == sorted(seconds) and seconds[0] == 0


def test_the_longest_gap_between_samples_is_told(monkeypatch):
    monkeypatch.setattr(sampler, "pynvml", FakeNvml(None))
    times = iter([0.0, 0.01, 0.02, 0.72, 0.73])
    watcher = sampler.Sampler(OWN, clock=lambda: next(times))
    for _ in range(3):
        watcher.sample()
    assert watcher.answer("peaks")["longest_gap_seconds"] == pytest.approx(0.70)


# --- the monitor, with a simulated card -------------------------------------------------------------------------------

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


@pytest.mark.parametrize(
    ("figures", "breach"),
    [
        ((900, 850, 400, 300), None),
        ((900, None, 400, 300), None),
        ((None, None, 400, 300), None),
        ((395, None, 400, 300), None),  # within what NVML resolves
        ((300, None, 400, 300), "nvml_device_bytes 300 MiB < torch_reserved_bytes 400 MiB"),
        ((500, 850, 400, 300), "nvml_device_bytes 500 MiB < nvml_process_bytes 850 MiB"),
    ],
)
def test_what_contradicts_itself_is_said(figures, breach):
    names = ("nvml_device_bytes", "nvml_process_bytes", "torch_reserved_bytes", "torch_allocated_bytes")
    memory = Memory(**{name: figure and figure * MIB for name, figure in zip(names, figures)})
    assert memory.breach == breach


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


def test_the_sampler_ends_with_its_input(monkeypatch):
    answers = io.StringIO()
    sampler.serve(psutil.Process().pid, io.StringIO("reset\npeaks\n"), answers)
    first, second = map(json.loads, answers.getvalue().splitlines())
    assert first["rss_bytes"] > 0 and second["samples"] >= 1


def test_the_sampler_imports_no_torch_so_that_it_starts_at_once():
    code = "import sys, bench.memory.sampler; print('torch' in sys.modules)"
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
