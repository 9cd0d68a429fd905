"""Snapshots of CUDA memory, on synthetic ones in torch's format. ``History`` generates them as the allocator would."""

import pickle

import torch

from bench.memory.snapshot import (
    ROOT,
    UNKNOWN,
    Live,
    allocations_at_peak,
    allocations_now,
    at_out_of_memory,
    differences,
    largest_holders,
    packed,
    recording,
)

MIB = 2**20


class History:
    """Allocations and releases, and the snapshot that torch.cuda.memory._snapshot would return after them."""

    def __init__(self, recorded: bool = True) -> None:
        self.living, self.trace, self.recorded = {}, [], recorded

    def allocate(self, address: int, size: int, where: str) -> None:
        frames = [
            {"filename": "/data/models/lib/site-packages/torch/nn/functional.py", "line": 1, "name": "gelu"},
            {"filename": str(ROOT / f"models/{where}.py"), "line": 7, "name": "forward"},
        ]
        self.living[address] = size, frames if self.recorded else []
        if self.recorded:
            self.trace.append({"action": "alloc", "addr": address, "size": size, "stream": 0, "frames": frames})

    def free(self, address: int) -> None:
        size, _ = self.living.pop(address)
        for action in ("free_requested", "free_completed") if self.recorded else ():
            self.trace.append({"action": action, "addr": address, "size": size, "stream": 0, "frames": []})

    def snapshot(self) -> dict:
        segments = []
        for address, (size, frames) in self.living.items():
            used = {"state": "active_allocated", "size": size + MIB, "requested_size": size, "frames": frames}
            rest = {"state": "inactive", "size": MIB, "requested_size": 0, "frames": []}
            segments.append({"address": address, "total_size": size + 2 * MIB, "blocks": [used, rest]})
        return {"segments": segments, "device_traces": [self.trace]}


def test_the_peak_is_found_in_the_history():
    history = History()
    history.allocate(0, 4 * MIB, "weights")
    history.allocate(100 * MIB, 10 * MIB, "map")
    history.free(100 * MIB)
    history.allocate(100 * MIB, 3 * MIB, "later")  # at the same address
    peak = allocations_at_peak(history.snapshot())
    assert sorted(peak) == [
        Live(4 * MIB, "models/weights.py:7 forward"),
        Live(10 * MIB, "models/map.py:7 forward"),
    ]
    assert sorted(allocations_now(history.snapshot()))[0].made_by == "models/later.py:7 forward"


def test_memory_from_before_the_recording_counts():
    history = History(recorded=False)
    history.allocate(0, 4 * MIB, "weights")
    history.recorded = True
    history.allocate(100 * MIB, 10 * MIB, "map")
    history.free(100 * MIB)
    assert Live(4 * MIB, UNKNOWN) in allocations_at_peak(history.snapshot())


def test_differences_come_largest_first():
    measured = [Live(8, "a")] * 3 + [Live(100, "b"), Live(7, "c")]
    predicted = [Live(8, "gelu")] * 2 + [Live(7, "norm"), Live(30, "conv")]
    found = differences(measured, predicted)
    assert [(each.bytes, each.missing) for each in found] == [(100, 100), (30, -30), (8, 8)]
    assert found[0].measured_by == "b" and found[1].predicted_by == "conv"


def test_the_largest_holders_are_sums_over_places():
    living = [Live(2**30, "one"), *[Live(2**29, "two")] * 3, Live(1, "three"), Live(2, "four")]
    assert largest_holders(living) == ["1.50 GiB in 3: two", "1.00 GiB in 1: one", "0.00 GiB in 1: four"]


def test_out_of_memory_keeps_a_snapshot_on_a_card_only(monkeypatch):
    history = History()
    history.allocate(0, 2**30, "map")
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda.memory, "_snapshot", history.snapshot)
    file, holders = at_out_of_memory(True)
    assert file == packed(history.snapshot()) and pickle.loads(file)["segments"]  # this test's own pickle
    assert holders == ["1.00 GiB in 1: models/map.py:7 forward"]
    assert at_out_of_memory(False) == (None, None)


def test_recording_begins_and_ends_only_where_it_is_wanted(monkeypatch):
    calls = []
    monkeypatch.setattr(torch.cuda.memory, "_record_memory_history", lambda **settings: calls.append(settings))
    with recording(False):
        pass
    assert not calls
    with recording(True):
        assert calls[0]["stacks"] == "python" and "enabled" not in calls[0]
    assert calls[1] == {"enabled": None}
