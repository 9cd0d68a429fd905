"""What a training step allocates: storages followed from birth to death, on fake tensors or on real ones.

``Tracker`` is a dispatch mode: it sees every tensor that an operator returns, and learns when its storage dies. With
fake tensors (torch._subclasses) nothing is computed or allocated; with real ones the same events can be checked.
Memory that a kernel asks for and gives back within one operator is not seen.

On CUDA every thread that multiplies matrices has a cuBLAS handle with a workspace of its own out of torch's allocator:
the forward pass has one thread, the backward pass (with what it recomputes) another.
"""

import weakref
from bisect import bisect_left
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from bench.config.trial import TrialConfig
from bench.datasets.core.transforms import flip
from bench.memory.allocator import reserved_bytes, rounded
from bench.training.loop import batch_loss

PARTS = ("frozen", "trainable", "gradients", "optimiser", "activations", "temporaries")
"""In the order in which they are shown; they add up to the peak."""
PRODUCTS = {
    getattr(torch.ops.aten, name) for name in ("mm", "addmm", "bmm", "baddbmm", "mv", "addmv", "_addmm_activation")
}
"""Operators that cuBLAS computes."""


@dataclass
class _Storage:
    size: int
    part: str | None
    born: int
    phase: str
    died: int | None = None


@dataclass(frozen=True)
class Footprint:
    """Peak of a step in bytes: its parts, and what the CUDA allocator would have reserved by the end."""

    parts: dict[str, int]
    peak_phase: str  # forward, backward or optimiser
    reserved: int
    handles: int = 0  # of cuBLAS: 0, 1 or 2

    @property
    def allocated(self) -> int:
        return sum(self.parts.values())


class Tracker(TorchDispatchMode):
    """Follows storages while it is active. Sizes are rounded as the allocator does: on CUDA to 512 bytes, else not."""

    def __init__(self, *, cuda: bool, workspace_bytes: int = 0) -> None:
        """workspace_bytes: of a cuBLAS handle; workspaces count as temporaries and stay once they were needed."""
        super().__init__()
        self.size_of = rounded if cuda else int
        self.workspace_bytes = workspace_bytes
        self.workspaces: dict[str, int] = {}  # by the pass that needs it: number of its storage
        self.storages: list[_Storage] = []
        self.events: list[tuple[int, int]] = []  # (number, bytes), bytes 0 where it dies
        self.backward_events: list[int] = []  # times at which the backward pass, and no recomputation, was at work
        self.phases: list[tuple[int, str]] = [(0, "start")]
        self._known: dict[int, int] = {}  # C++ address of a living storage -> number

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if func.overloadpacket in PRODUCTS and self.phase != "start":
            self._take_workspace()
        out = func(*args, **(kwargs or {}))
        for item in tree_leaves(out):
            if isinstance(item, Tensor):
                self.see(item)
        if self.phase == "backward":
            self.backward_events.append(len(self.events))
        return out

    @property
    def phase(self) -> str:
        phase = self.phases[-1][1]  # the backward pass runs without a graph, except where it repeats forward steps
        return "recomputation" if phase == "backward" and torch.is_grad_enabled() else phase

    def enter(self, phase: str) -> None:
        """From now on, what happens belongs to this phase: ``forward``, ``backward`` or ``optimiser``."""
        self.phases.append((len(self.events), phase))

    def _take_workspace(self) -> None:
        which = "forward" if self.phase == "forward" else "backward"
        if which not in self.workspaces:
            self.workspaces[which] = len(self.storages)
            self.storages.append(_Storage(self.workspace_bytes, "temporaries", len(self.events), self.phase))
            if self.workspace_bytes:
                self.events.append((self.workspaces[which], self.workspace_bytes))

    def see(self, tensor: Tensor, part: str | None = None) -> None:
        """Counts the tensor's storage from now on, if it is new; with ``part`` says what it is."""
        storage = tensor.untyped_storage()
        address = storage._cdata
        if address not in self._known:
            number = len(self.storages)
            size = self.size_of(storage.nbytes())
            self.storages.append(_Storage(size, part, len(self.events), self.phase))
            if size:
                self.events.append((number, size))
            self._known[address] = number
            weakref.finalize(storage, self._died, address, number).atexit = False
        elif part is not None:
            self.storages[self._known[address]].part = part

    def _died(self, address: int, number: int) -> None:
        if self._known.get(address) == number:
            del self._known[address]
        storage = self.storages[number]
        storage.died = len(self.events)
        if storage.size:
            self.events.append((number, 0))

    def footprint(self, *, since: int = 0) -> Footprint:
        """The peak among the events from number ``since`` on, and its parts: in any step but the first, to which all
        workspaces come with the first product that needs them."""
        workspaces = set(self.workspaces.values())
        live = peak = 0
        peak_time = since
        for time, (number, size) in enumerate(self.events):
            if number in workspaces:
                continue
            live += size if size else -self.storages[number].size
            if time >= since and live > peak:
                peak, peak_time = live, time
        parts = dict.fromkeys(PARTS, 0)
        parts["temporaries"] = sum(self.storages[number].size for number in workspaces)
        for number, storage in enumerate(self.storages):
            if number in workspaces:
                continue
            if storage.born <= peak_time and (storage.died is None or storage.died > peak_time):
                parts[storage.part or self._part(storage)] += storage.size
        phase = [name for start, name in self.phases if start <= peak_time][-1]
        return Footprint(parts, phase, reserved_bytes(self.events), len(workspaces))

    def _part(self, storage: _Storage) -> str:
        """What a forward pass (or its recomputation) made and the backward pass still found is an activation."""
        place = bisect_left(self.backward_events, storage.born + 1)
        found = place < len(self.backward_events) and (
            storage.died is None or self.backward_events[place] <= storage.died
        )
        return "activations" if found and storage.phase in ("forward", "recomputation") else "temporaries"


def follow_step(
    tracker: Tracker,
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    images: Tensor,
    masks: Tensor,
    config: TrialConfig,
) -> Footprint:
    """One training step as ``bench.training.loop`` takes it, in its steady state: the optimiser's moments are there already.

    images uint8 [B, H, W, 3] and masks uint8 [B, H, W], both on the model's device.
    """
    trainable = [p for p in model.parameters() if p.requires_grad]
    for parameter in model.parameters():
        tracker.see(parameter, "trainable" if parameter.requires_grad else "frozen")
    for buffer in model.buffers():
        tracker.see(buffer, "frozen")
    for parameter in trainable:
        parameter.grad = torch.zeros_like(parameter)
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)
    for state in optimiser.state.values():
        for value in state.values():
            tracker.see(value, "optimiser")
    start = len(tracker.events)
    tracker.enter("forward")
    draws = torch.Generator().manual_seed(0)
    images, masks = flip(images.clone(), masks.clone(), config.transform, draws)
    loss = batch_loss(model, images, masks, config.train, config.transform)
    tracker.enter("backward")
    loss.backward()
    for parameter in trainable:
        if parameter.grad is not None:
            tracker.see(parameter.grad, "gradients")
    tracker.enter("optimiser")
    optimiser.step()
    return tracker.footprint(since=start)
