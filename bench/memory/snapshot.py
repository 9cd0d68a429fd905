"""Snapshots of torch's CUDA memory: what lives at the peak, beside what was predicted to live there.

The format is that of ``torch.cuda.memory._snapshot`` (pytorch, torch/cuda/_memory_viz.py), whose file
https://pytorch.org/memory_viz draws. Such files are pickles; this module writes them and never reads one.

Recording stacks costs about 2 microseconds for each allocation. It is on in trials with ``memory.budget_gib`` and in
``compare_memory --snapshot``. Without recording, a snapshot shows sizes of blocks, but not where they were made.
"""

import pickle
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch

from bench.memory.cuda.allocator import rounded

LARGEST_HOLDERS = 3
MAX_ENTRIES = 200_000
"""Number of the latest events that recording keeps, each about 1 kB."""
UNKNOWN = "stack not recorded"
ROOT = Path(__file__).resolve().parents[2]
OWN = (f"{ROOT / 'bench'}/", f"{ROOT / 'models'}/")
"""Folders of the suite: the innermost frame in them names an allocation."""


class Live(NamedTuple):
    """An allocation that lives at a certain time."""

    bytes: int
    made_by: str


class Difference(NamedTuple):
    """Live allocations of one size, measured and predicted."""

    bytes: int  # of one allocation
    measured: int  # number of allocations
    predicted: int
    measured_by: str
    predicted_by: str

    @property
    def missing(self) -> int:
        """Bytes that were measured and not predicted; below 0 if they were predicted and not measured."""
        return self.bytes * (self.measured - self.predicted)


@contextmanager
def recording(wanted: bool) -> Iterator[None]:
    """Records the history of CUDA's allocations within the context, where torch can.

    Where it cannot, allocations are ``UNKNOWN``.
    """
    if wanted:
        with suppress(Exception):  # measuring goes on without the places
            torch.cuda.memory._record_memory_history(max_entries=MAX_ENTRIES, stacks="python")
    try:
        yield
    finally:
        if wanted:
            with suppress(Exception):  # a card that failed must not hide the error of the trial
                torch.cuda.memory._record_memory_history(enabled=None)


def snapshot() -> dict[str, Any]:
    """Returns the state of torch's allocator on the card, with the history that was recorded."""
    return torch.cuda.memory._snapshot()


def packed(taken: dict[str, Any]) -> bytes:
    """Returns the file that pytorch.org/memory_viz opens."""
    return pickle.dumps(taken)


def allocations_now(taken: dict[str, Any]) -> list[Live]:
    """Returns the allocations that live when the snapshot is taken."""
    return [*_living(taken).values()]


def allocations_at_peak(taken: dict[str, Any]) -> list[Live]:
    """Returns the allocations that lived at the peak of the recorded history, and before it began."""
    events = [event for trace in taken.get("device_traces", ()) for event in trace]
    events = [event for event in events if event["action"] in ("alloc", "free_completed")]
    living = _living(taken)
    total = highest = sum(live.bytes for live in living.values())
    peak = len(events)
    for place in range(len(events) - 1, -1, -1):  # backwards in time: the history may begin late, its end is known
        event = events[place]
        total += rounded(event["size"]) * (1 if event["action"] == "free_completed" else -1)
        if total > highest:
            highest, peak = total, place
    frames: dict[int, Any] = {}
    for event in reversed(events[peak:]):
        if event["action"] == "free_completed":
            living[event["addr"]] = Live(rounded(event["size"]), UNKNOWN)
        else:
            living.pop(event["addr"], None)
    for event in events[:peak]:
        if event["action"] == "alloc":
            frames[event["addr"]] = event.get("frames") or ()
    return [
        Live(live.bytes, made_by(frames[address]) if address in frames else live.made_by)
        for address, live in living.items()
    ]


def _living(taken: dict[str, Any]) -> dict[int, Live]:
    """Returns the allocations that live when the snapshot is taken, by address."""
    living = {}
    for segment in taken["segments"]:
        address = segment["address"]
        for block in segment["blocks"]:  # older versions of torch leave out their addresses
            if block["state"] == "active_allocated":
                size = rounded(block.get("requested_size", block["size"]))
                living[address] = Live(size, made_by(block.get("frames") or ()))
            address += block["size"]
    return living


def made_by(frames: Iterable[dict[str, Any]]) -> str:
    """Names the innermost frame of the suite, as in ``models/decoders/light_unet.py:76 forward``, else the innermost."""
    frames = [frame for frame in frames if frame.get("filename", "").endswith(".py")]
    if not frames:
        return UNKNOWN
    own = next((frame for frame in frames if frame["filename"].startswith(OWN)), frames[0])
    return f"{own['filename'].removeprefix(f'{ROOT}/')}:{own['line']} {own['name']}"


def largest_holders(living: Sequence[Live], count: int = LARGEST_HOLDERS) -> list[str]:
    """Names the places that hold the most memory, largest first: ``1.20 GiB in 32: models/...``."""
    sums: dict[str, list[int]] = defaultdict(list)
    for live in living:
        sums[live.made_by].append(live.bytes)
    ordered = sorted(sums.items(), key=lambda item: -sum(item[1]))[:count]
    return [f"{sum(sizes) / 2**30:.2f} GiB in {len(sizes)}: {name}" for name, sizes in ordered]


def differences(measured: Sequence[Live], predicted: Sequence[Live]) -> list[Difference]:
    """Sets live allocations beside predicted ones, by size; the largest difference in bytes comes first."""
    of = [defaultdict(Counter), defaultdict(Counter)]
    for names, living in zip(of, (measured, predicted)):
        for live in living:
            names[live.bytes][live.made_by] += 1
    found = []
    for size in {*of[0], *of[1]}:
        names = [", ".join(name for name, _ in each[size].most_common(2)) for each in of]
        one = Difference(size, of[0][size].total(), of[1][size].total(), *names)
        if one.missing:
            found.append(one)
    return sorted(found, key=lambda each: (-abs(each.missing), each.bytes))


def at_out_of_memory(on_gpu: bool) -> tuple[bytes | None, list[str] | None]:
    """Returns the file of a snapshot and the largest holders, for a trial that ran out of memory on a card.

    Call it before the error's traceback is gone, which keeps the tensors alive, and within ``recording``. ``None`` for
    both on a CPU, and where torch cannot tell.
    """
    with suppress(Exception):  # the error of the trial must not be replaced by another one
        if on_gpu and torch.cuda.is_initialized():
            taken = snapshot()
            return packed(taken), largest_holders(allocations_now(taken))
    return None, None
