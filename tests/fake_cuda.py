"""An NVIDIA card for tests on a CPU: torch's own Python functions run, with their signatures and their checks.

Only what they would ask the driver is answered here (``torch._C``), and tensors that would lie on the card lie in the
CPU's memory. A call that a real torch refuses, such as one for a device without an index, is refused here too.
"""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode

GIB = 2**30
MIB = 2**20


class FakeCuda:
    """Cards of one kind; ``calls`` are the requests that reached the driver, in their order."""

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        *,
        capability: tuple[int, int] = (9, 0),
        total_bytes: int = 8 * GIB,
        count: int = 1,
        current: int = 0,
    ) -> None:
        self.capability, self.total_bytes, self.count, self.current = capability, total_bytes, count, current
        self.calls: list[Any] = []
        self.allocated_bytes, self.reserved_bytes = 300 * MIB, 400 * MIB
        driver = {
            "_cuda_getDevice": lambda: self.current,
            "_cuda_setDevice": self._set_device,
            "_cuda_setMemoryFraction": lambda fraction, device: self.calls.append(("fraction", fraction, device)),
            "_cuda_emptyCache": lambda: self.calls.append("empty_cache"),
            "_cuda_synchronize": lambda: self.calls.append("synchronize"),
            "_cuda_memoryStats": self._memory_stats,
            "_cuda_resetPeakMemoryStats": lambda device: self.calls.append(("reset_peak", device)),
            "_cuda_getAllocatorBackend": lambda: "native",
            "_cuda_isInBadFork": lambda: False,
        }
        for name, function in driver.items():
            monkeypatch.setattr(torch._C, name, function, raising=False)  # a torch for CPUs has none of them
        cuda = {
            "is_available": lambda: True,
            "device_count": lambda: self.count,
            "_initialized": True,
            "_get_device_properties": self._properties,
            "_exchange_device": self._exchange,
            "_maybe_exchange_device": self._exchange,
            "default_generators": tuple(torch.Generator() for _ in range(count)),
        }
        for name, value in cuda.items():
            monkeypatch.setattr(torch.cuda, name, value, raising=False)
        monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor)
        for name in ("_accelerator_graph_capture_health_check", "_cuda_graph_capture_health_check"):  # of old versions
            monkeypatch.setattr(torch.optim.Optimizer, name, lambda optimiser: None, raising=False)

    @property
    def fractions(self) -> list[float]:
        """Limits of the allocator that were set, as shares of the card."""
        return [call[1] for call in self.calls if call[0] == "fraction"]

    def _properties(self, device: int) -> SimpleNamespace:
        major, minor = self.capability
        numbers = {"major": major, "minor": minor, "total_memory": self.total_bytes}
        return SimpleNamespace(name="simulated card", uuid="ab"[device], **numbers)

    def _memory_stats(self, device: int) -> dict[str, Any]:
        def statistic(value: int) -> dict[str, Any]:
            return {"all": {"current": value, "peak": value}}

        return {"allocated_bytes": statistic(self.allocated_bytes), "reserved_bytes": statistic(self.reserved_bytes)}

    def _set_device(self, device: int) -> None:
        self.current = device

    def _exchange(self, device: int) -> int:
        before, self.current = self.current, device if device >= 0 else self.current
        return before


class CardInMemory(TorchFunctionMode):
    """While it is active, tensors for a card are made in, and moved to, the CPU's memory."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        moved = {name: _on_cpu(value) for name, value in (kwargs or {}).items()}
        return func(*map(_on_cpu, args), **moved)


def _on_cpu(value: Any) -> Any:
    return torch.device("cpu") if isinstance(value, torch.device) and value.type == "cuda" else value
