"""Memory of a training step: every storage is tracked from allocation to release, on fake or on real tensors.

``Tracker`` is a dispatch mode: it receives every tensor that an operator returns, and is notified when its storage is
released. With fake tensors (torch._subclasses) nothing is computed or allocated; with real ones the same events can be
checked. Memory that a kernel requests and releases within one operator is not counted.

On CUDA every thread that multiplies matrices has a cuBLAS handle with a workspace of its own from torch's allocator.
The forward pass runs in one thread, the backward pass with its recomputation in another.
"""

import weakref
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from bench.config.trial import TrialConfig
from bench.datasets.core.transforms import flip
from bench.memory.cuda.allocator import replay, rounded
from bench.memory.snapshot import Live
from bench.training.batch_loss import batch_loss
from bench.training.data_parallel import Share

PARTS = ("frozen", "trainable", "gradients", "optimiser", "activations", "temporaries")
"""Parts of the peak, in the order in which they are shown."""
PRODUCTS = {
    getattr(torch.ops.aten, name) for name in ("mm", "addmm", "bmm", "baddbmm", "mv", "addmv", "_addmm_activation")
}
"""Operators that cuBLAS computes: matrix products."""


@dataclass
class _Storage:
    size: int  # bytes, rounded as the allocator does
    part: str | None  # None: decided by the phases of its allocation and its release
    allocated: int  # number of the event
    phase: str
    released: int | None = None  # number of the event
    operator: str = ""


@dataclass(frozen=True)
class StepMemory:
    """Peak memory of a training step, in bytes."""

    parts: dict[str, int]  # by the names of PARTS
    peak_phase: str  # forward, backward or optimiser
    reserved: int  # by the CUDA allocator, at the end
    handles: int = 0  # number of cuBLAS handles: 0, 1 or 2
    requested: int | None = None  # highest sum of the sizes of living tensors, without the allocator's unsplit rests
    live: tuple[Live, ...] = field(default=(), repr=False)  # storages at the peak, with the operators that made them

    @property
    def allocated(self) -> int:
        return sum(self.parts.values())


class Tracker(TorchDispatchMode):
    """Tracks storages while it is active. On CUDA sizes are rounded to 512 bytes, as the allocator does."""

    def __init__(self, *, cuda: bool, workspace_bytes: int = 0) -> None:
        """workspace_bytes: of a cuBLAS handle. Workspaces count as temporaries and are never released."""
        super().__init__()
        self.cuda = cuda
        self.size_of = rounded if cuda else int
        self.workspace_bytes = workspace_bytes
        self.workspaces: dict[str, int] = {}  # number of the storage, by pass: forward, backward
        self.storages: list[_Storage] = []
        self.events: list[tuple[int, int]] = []  # (number of the storage, bytes); 0 bytes is its release
        self.backward_events: list[int] = []  # numbers of events in the backward pass, without recomputation
        self.phases: list[tuple[int, str]] = [(0, "start")]
        self._known: dict[int, int] = {}  # C++ address of a living storage -> number

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if func.overloadpacket in PRODUCTS and self.phase != "start":
            self._take_workspace()
        out = func(*args, **(kwargs or {}))
        for item in tree_leaves(out):
            if isinstance(item, Tensor):
                self.track(item, operator=str(func))
        if self.phase == "backward":
            self.backward_events.append(len(self.events))
        return out

    @property
    def phase(self) -> str:
        """The phase of the present event; ``recomputation`` is the part of the backward pass that builds a graph."""
        phase = self.phases[-1][1]
        return "recomputation" if phase == "backward" and torch.is_grad_enabled() else phase

    def enter(self, phase: str) -> None:
        """Begins a phase: ``forward``, ``backward`` or ``optimiser``."""
        self.phases.append((len(self.events), phase))

    def _take_workspace(self) -> None:
        which = "forward" if self.phase == "forward" else "backward"
        if which not in self.workspaces:
            self.workspaces[which] = len(self.storages)
            workspace = _Storage(
                self.workspace_bytes, "temporaries", len(self.events), self.phase, operator="cuBLAS workspace"
            )
            self.storages.append(workspace)
            if self.workspace_bytes:
                self.events.append((self.workspaces[which], self.workspace_bytes))

    def track(self, tensor: Tensor, part: str | None = None, operator: str = "") -> None:
        """Tracks the tensor's storage if it is new. ``part`` assigns the storage to a part of the peak."""
        storage = tensor.untyped_storage()
        address = storage._cdata
        if address not in self._known:
            number = len(self.storages)
            size = self.size_of(storage.nbytes())
            self.storages.append(_Storage(size, part, len(self.events), self.phase, operator=operator))
            if size:
                self.events.append((number, size))
            self._known[address] = number
            weakref.finalize(storage, self._released, address, number).atexit = False
        elif part is not None:
            self.storages[self._known[address]].part = part

    def track_model(self, model: nn.Module) -> None:
        """Tracks weights and buffers."""
        for parameter in model.parameters():
            self.track(parameter, "trainable" if parameter.requires_grad else "frozen")
        for buffer in model.buffers():
            self.track(buffer, "frozen")

    def track_moments(self, optimiser: torch.optim.Optimizer) -> None:
        """Tracks the state of the optimiser."""
        for moments in optimiser.state.values():
            for value in moments.values():
                self.track(value, "optimiser")

    def _released(self, address: int, number: int) -> None:
        if self._known.get(address) == number:
            del self._known[address]
        storage = self.storages[number]
        storage.released = len(self.events)
        if storage.size:
            self.events.append((number, 0))

    def peak(self, *, since: int = 0) -> int:
        """Returns the largest sum of living storages, in bytes, among the events from number ``since`` on."""
        return max(list(accumulate(_sizes(self.events)))[since:], default=0)

    def step_memory(self, *, since: int = 0, built: int | None = None) -> StepMemory:
        """Computes the peak among the events from number ``since`` on.

        ``built`` is the number of events after which model and batch exist, by default ``since``. What lies between
        ``built`` and ``since`` creates the optimiser's moments.
        """
        before = self._before(since if built is None else built, since)
        workspaces = set(self.workspaces.values())
        step = [(time, event) for time, event in enumerate(self.events) if time >= since and event[0] not in workspaces]
        events = [*before, *(event for _, event in step)]
        changes, reserved = replay(events) if self.cuda else (_sizes(events), 0)
        totals = list(accumulate(changes))
        start = max(len(before) - 1, 0)
        at = max(range(start, len(events)), key=totals.__getitem__)
        held: dict[int, int] = {}
        for (number, size), change in zip(events[: at + 1], changes):
            if size:
                held[number] = change
            else:
                held.pop(number, None)
        parts = dict.fromkeys(PARTS, 0)
        for number, size in held.items():
            storage = self.storages[number]
            parts[storage.part or self._part(storage)] += size
        time = since if at < len(before) else step[at - len(before)][0]
        phase = [name for start, name in self.phases if start <= time][-1]
        requested = max(list(accumulate(_sizes(events)))[start:])
        living = (self.storages[number] for number in held)
        live = tuple(Live(each.size, " ".join(filter(None, (each.operator, each.part, each.phase)))) for each in living)
        return StepMemory(parts, phase, reserved, len(workspaces), requested, live)

    def _before(self, built: int, since: int) -> list[tuple[int, int]]:
        """Returns the events before the step in the order of a training run: model, a step without moments, moments.

        Blocks and segments depend on this order: moments that come after the first step lie in segments which that
        step took for its activations. Workspaces are taken in the first step and stay.
        """
        model, moments, step = self.events[:built], self.events[built:since], self.events[since:]
        kept = {*self.workspaces.values(), *(number for number, size in model if size)}
        first: list[tuple[int, int]] = []
        living: set[int] = set()
        for number, size in step:
            again = number if number in kept else number + len(self.storages)  # a storage of its own
            if size:
                living.add(again)
            elif again not in living:
                continue  # a tensor from before the step: the second step releases it
            else:
                living.remove(again)
            first.append((again, size))
        first += [(number, 0) for number in sorted(living - kept)]
        return [*model, *first, *moments]

    def _part(self, storage: _Storage) -> str:
        """Classifies a storage: one of the forward pass, or its recomputation, that lives in the backward pass is an
        activation, any other one is temporary."""
        if storage.phase not in ("forward", "recomputation"):
            return "temporaries"
        place = bisect_left(self.backward_events, storage.allocated + 1)
        if place == len(self.backward_events):
            return "temporaries"
        lives = storage.released is None or self.backward_events[place] <= storage.released
        return "activations" if lives else "temporaries"


def _sizes(events: Sequence[tuple[int, int]]) -> list[int]:
    """Returns the change of the sum of sizes at each event."""
    held: dict[int, int] = {}
    changes = []
    for number, size in events:
        if size:
            held[number] = size
        changes.append(size or -held.pop(number, 0))
    return changes


def follow_step(
    tracker: Tracker,
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    images: Tensor,
    masks: Tensor,
    config: TrialConfig,
) -> StepMemory:
    """Tracks one training step of ``bench.training.loop``, in which the optimiser's moments exist already.

    images uint8 [B, H, W, 3] and masks uint8 [B, H, W], both on the model's device.
    """
    trainable = [p for p in model.parameters() if p.requires_grad]
    tracker.track_model(model)
    built = len(tracker.events)
    for parameter in trainable:
        parameter.grad = torch.zeros_like(parameter)
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)
    tracker.track_moments(optimiser)
    start = len(tracker.events)
    tracker.enter("forward")  # flips belong to it
    draws = torch.Generator().manual_seed(0)
    images, masks = flip(images.clone(), masks.clone(), config.transform, draws)
    for part, weight in Share().micro_batches(len(images), config.train.accumulate):
        tracker.enter("forward")
        loss = batch_loss(model, images[part], masks[part], config.train, config.transform) * weight
        tracker.enter("backward")
        loss.backward()
    for parameter in trainable:
        if parameter.grad is not None:
            tracker.track(parameter.grad, "gradients")
    tracker.enter("optimiser")
    optimiser.step()
    return tracker.step_memory(since=start, built=built)
