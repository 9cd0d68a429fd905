"""The sampler: peaks and series of a process and of a card, which is simulated here."""

import io
import json
import subprocess
import sys

import psutil
import pytest
from fake_nvml import FakeNvml, watch
from hypothesis import given
from hypothesis import strategies as st

from bench.memory import nvml, sampler
from bench.records.memory import MEASURES

OWN = psutil.Process().pid
SAMPLED = [measure.name for measure in MEASURES if measure.baseline]


def test_the_card_is_found_by_uuid_whatever_its_number(monkeypatch):
    fake = FakeNvml({"GPU-b": [700], "GPU-a": [100, 150, 900, 300]}, [(OWN, 400)])
    start, peaks = watch(monkeypatch, fake, "a")
    assert (start["uuid"], start["nvml_baseline_bytes"]) == ("GPU-a", 100)
    assert (peaks["nvml_device_bytes"], peaks["nvml_process_bytes"]) == (900, 400)


def test_uuids_match_whatever_their_prefix_case_and_length(monkeypatch):
    for identifier in ("GPU-5F3Cab", "5f3cab", "gpu-5f3c"):
        start, _ = watch(monkeypatch, FakeNvml({"GPU-0000": [1], "GPU-5f3cab": [2]}), identifier)
        assert start["uuid"] == "GPU-5f3cab" and start["problem"] is None


def test_a_mig_instance_is_watched_and_not_its_card(monkeypatch):
    used = {"GPU-a": [9000], "GPU-b": [70], "MIG-1": [10, 50], "MIG-2": [4000]}
    fake = FakeNvml(used, [(OWN, 40)], {"GPU-a": ["MIG-1", "MIG-2"]})
    start, peaks = watch(monkeypatch, fake, "MIG-1", "a")
    assert (start["uuid"], start["nvml_baseline_bytes"], peaks["nvml_device_bytes"]) == ("MIG-1", 10, 50)
    start, peaks = watch(monkeypatch, fake, "a")  # the whole card's use is everybody's
    assert start["uuid"] is None and "MIG-1, MIG-2" in start["problem"] and peaks["nvml_device_bytes"] is None


@pytest.mark.parametrize("processes", [[], [(1, 500)], [(OWN, None)]])
def test_in_a_container_the_process_figure_is_none(monkeypatch, processes):
    """The list is empty, holds the host's PIDs, or knows the process but not its use."""
    _, peaks = watch(monkeypatch, FakeNvml({"GPU-a": [100]}), "GPU-a", then=lambda n: n.processes.extend(processes))
    assert peaks["nvml_process_bytes"] is None and peaks["nvml_device_bytes"] == 100
    assert peaks["foreign"] == []  # the one that came is this one under its other number


def test_another_process_is_named_before_and_during_the_trial(monkeypatch):
    fake = FakeNvml({"GPU-a": [100]}, [(77, 300)])
    start, peaks = watch(monkeypatch, fake, "GPU-a", then=lambda n: n.processes.extend([(OWN, 10), (78, 50)]))
    assert [each["name"] for each in start["foreign"]] == ["job77"]
    assert peaks["foreign"] == [
        {"pid": 77, "name": "job77", "bytes": 300},
        {"pid": 78, "name": "job78", "bytes": 50},
    ]


def test_under_the_hosts_numbers_the_second_newcomer_is_foreign(monkeypatch):
    fake = FakeNvml({"GPU-a": [100]})
    _, peaks = watch(monkeypatch, fake, "GPU-a", then=lambda n: n.processes.extend([(9001, 10), (9002, 50)]))
    assert [each["pid"] for each in peaks["foreign"]] == [9002]


def test_lost_samples_are_counted_and_the_others_kept(monkeypatch):
    lost = FakeNvml.NVMLError("GPU is lost")
    _, peaks = watch(monkeypatch, FakeNvml({"GPU-a": [100, 200, lost, 700, lost, 300]}, [(OWN, 5)]), "GPU-a")
    assert (peaks["nvml_device_bytes"], peaks["lost_samples"], peaks["nvml_process_bytes"]) == (700, 2, 5)
    _, peaks = watch(monkeypatch, FakeNvml({"GPU-a": [100, lost]}), "GPU-a")
    assert peaks["nvml_device_bytes"] is None and peaks["lost_samples"] == peaks["samples"]


def test_without_a_driver_or_with_an_unknown_card_everything_is_none(monkeypatch):
    for fake, problem in ((FakeNvml(None), "Driver Not Loaded"), (FakeNvml({"GPU-a": [5]}), "it knows GPU-a")):
        start, peaks = watch(monkeypatch, fake, "GPU-z")
        assert problem in start["problem"]
        assert start["nvml_baseline_bytes"] is peaks["nvml_device_bytes"] is peaks["nvml_process_bytes"] is None
        assert peaks["rss_bytes"] > 0


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=400), st.sampled_from([2, 4, 10]))
def test_a_series_keeps_its_peak_its_order_and_its_bound(values, limit):
    series = sampler.Series(limit)
    for i, value in enumerate(values):
        series.add(i / 100, dict.fromkeys(SAMPLED, value))
    assert len(series.points) <= limit
    assert max(p["rss_bytes"] for p in series.points) == max(values)
    seconds = [p["seconds"] for p in series.points]
    assert seconds == sorted(seconds) and seconds[0] == 0


def test_the_longest_gap_between_samples_is_told(monkeypatch):
    monkeypatch.setattr(nvml, "pynvml", FakeNvml(None))
    times = iter([0.0, 0.01, 0.02, 0.72, 0.73])
    watcher = sampler.Sampler(OWN, clock=lambda: next(times))
    for _ in range(3):
        watcher.sample()
    assert watcher.answer("peaks")["longest_gap_seconds"] == pytest.approx(0.70)


def test_the_sampler_ends_with_its_input(monkeypatch):
    answers = io.StringIO()
    sampler.serve(psutil.Process().pid, io.StringIO("reset\npeaks\n"), answers)
    first, second = map(json.loads, answers.getvalue().splitlines())
    assert first["rss_bytes"] > 0 and second["samples"] >= 1


def test_the_sampler_imports_no_torch_so_that_it_starts_at_once():
    code = "import sys, bench.memory.sampler; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


def test_the_sampler_reads_the_measures_that_have_readings_over_time():
    assert sampler.Sampler(OWN).read().keys() == set(SAMPLED)
