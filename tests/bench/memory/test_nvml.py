"""NVML on cards that do not answer, and in containers that refuse to show a quantity."""

import inspect
import re

import psutil
import pytest
from fake_cuda import FakeCuda
from fake_nvml import FakeNvml, watch

from bench.config.expand import Trial
from bench.memory import nvml
from bench.scheduling.preflight import absent_of

OWN = psutil.Process().pid


LOST, DENIED = "GPU is lost", "Insufficient Permissions"
ABOUT_CARDS = {  # NVML's functions that are asked about a card, and what they are given for the second one
    "nvmlDeviceGetHandleByIndex": 1,
    "nvmlDeviceGetMaxMigDeviceCount": "GPU-b",
    "nvmlDeviceGetUUID": "GPU-b",
    "nvmlDeviceGetMemoryInfo": "GPU-b",
    "nvmlDeviceGetComputeRunningProcesses": "GPU-b",
    "nvmlDeviceGetTotalEnergyConsumption": "GPU-b",
    "nvmlDeviceGetUtilizationRates": "GPU-b",
}


def two_cards():
    return FakeNvml({"GPU-a": [100, 200, 300], "GPU-b": [500, 600]}, [(OWN, 40), (77, 30)])


def test_every_function_that_the_sampler_calls_is_made_to_fail_here():
    others = {"nvmlInit", "nvmlDeviceGetCount", "nvmlSystemGetProcessName"}  # not about a card; see below
    others |= {"nvmlDeviceGetMigDeviceHandleByIndex", "nvmlDeviceGetCudaComputeCapability"}
    assert set(re.findall(r"pynvml\.(nvml\w+)", inspect.getsource(nvml))) == ABOUT_CARDS.keys() | others


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
    assert nvml.nvml_problem() is None


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
    fake = FakeNvml({"GPU-a": [9000], "MIG-c": [10]}, [(4242, 3 * 2**30)], {"GPU-a": ["MIG-c"]})
    fake.refuse("nvmlDeviceGetMemoryInfo", "MIG-c", DENIED)
    start, peaks = watch(monkeypatch, fake, "MIG-c", "a")
    assert [each["name"] for each in start["foreign"]] == [each["name"] for each in peaks["foreign"]] == ["job4242"]
    assert start["nvml_baseline_bytes"] is peaks["nvml_device_bytes"] is None and peaks["denied"] == {"memory": DENIED}


def test_a_list_that_is_refused_now_and_then_was_seen(monkeypatch):
    fake = two_cards()
    real = fake.nvmlDeviceGetComputeRunningProcesses
    asked = []

    def now_and_then(handle):
        asked.append(handle)
        if len(asked) % 2:
            raise FakeNvml.NVMLError("Timeout")
        return real(handle)

    fake.nvmlDeviceGetComputeRunningProcesses = now_and_then
    _, peaks = watch(monkeypatch, fake, "GPU-a", samples=4)
    assert [each["pid"] for each in peaks["foreign"]] == [77] and peaks["denied"] == {}
    assert 0 < peaks["lost_samples"] < peaks["samples"]


def test_a_name_that_cannot_be_told_is_unknown(monkeypatch):
    fake = FakeNvml({"GPU-a": [1]}, [(2**30, 5)])
    for name, said in ((b"/bin/caf\xe9", "caf\N{REPLACEMENT CHARACTER}"), (None, "unknown")):
        fake.nvmlSystemGetProcessName = lambda pid, name=name: name
        if name is None:
            fake.refuse("nvmlSystemGetProcessName", 2**30)
        _, peaks = watch(monkeypatch, fake, "GPU-a")
        assert [each["name"] for each in peaks["foreign"]] == [said]


def test_a_driver_that_fails_after_its_start_is_a_problem(monkeypatch):
    fake = two_cards()

    def fail():
        raise FakeNvml.NVMLError(LOST)

    fake.nvmlDeviceGetCount = fail
    start, peaks = watch(monkeypatch, fake, "GPU-a")
    assert start["problem"] == LOST and peaks["nvml_device_bytes"] is None and nvml.nvml_problem() == LOST


def test_before_any_work_the_cards_that_a_trial_may_get_are_looked_at(monkeypatch):
    fake = two_cards()
    monkeypatch.setattr(nvml, "pynvml", fake)
    fake.refuse("nvmlDeviceGetComputeRunningProcesses", "GPU-b", DENIED)
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
        assert nvml.nvml_problem() == problem, visible


def test_a_trial_whose_neighbours_cannot_be_seen_is_missing_something(monkeypatch, tiny_with):
    fake = FakeNvml({"GPU-a": [1]})
    monkeypatch.setattr(nvml, "pynvml", fake)
    FakeCuda(monkeypatch)
    fake.refuse("nvmlDeviceGetComputeRunningProcesses", "GPU-a", DENIED)
    alone = Trial(tiny_with({"device": "cuda"}), ("alone",))
    noted = Trial(tiny_with({"device": "cuda", "memory.foreign_process": "note"}), ("noted",))
    ((trial_id, (item,)),) = absent_of([alone, noted]).items()
    assert trial_id == alone.trial_id
    assert item.field == "memory.foreign_process" and "refused (Insufficient Permissions)" in item.what
    assert "memory.foreign_process=note" in item.remedy
