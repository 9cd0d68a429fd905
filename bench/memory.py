"""Peak memory of a phase of a trial, in several truths that are kept apart; what cannot be measured is ``None``."""

import ctypes
import gc
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any

import torch

from models._registry import Config


class Memory(Config):
    """Peaks of one phase, in bytes."""

    torch_allocated_bytes: int | None = None
    """What tensors needed: ``torch.cuda.max_memory_allocated``."""
    torch_reserved_bytes: int | None = None
    """What torch's allocator took from the device: ``torch.cuda.max_memory_reserved``."""
    nvml_device_bytes: int | None = None
    """What the card lost since before the model was built: includes the CUDA context and library workspaces."""
    nvml_process_bytes: int | None = None
    """What NVML attributes to this process; unknown in most containers."""
    nvml_baseline_bytes: int | None = None
    """What was in use on the card before the model was built."""
    rss_bytes: int | None = None
    """On a CPU: resident memory above what the process held before data and model were there."""
    rss_baseline_bytes: int | None = None
    samples: int = 0
    """Number of readings, one every 10 ms, behind the NVML and RSS peaks."""


class MemoryMonitor:
    """Watches this process from a second one. Enter it before data and model exist: that moment is the baseline.

    >>> with MemoryMonitor(torch.device("cpu")) as monitor:
    ...     with monitor.phase() as peaks:
    ...         _ = torch.zeros(1000, 1000).sum()
    >>> peaks[0].rss_bytes is not None and peaks[0].torch_allocated_bytes is None
    True
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def __enter__(self) -> "MemoryMonitor":
        command = [sys.executable, "-m", "bench.sampler", str(os.getpid())]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        self.child = subprocess.Popen(command, text=True, **pipes)
        _return_free_memory()
        self.rss_baseline = self._ask("reset")["rss_bytes"]
        self.nvml_baseline = None
        if self.device.type == "cuda":  # by UUID: CUDA_VISIBLE_DEVICES may have renumbered the cards
            uuid = f"GPU-{torch.cuda.get_device_properties(self.device).uuid}"
            self.nvml_baseline = self._ask(f"watch {uuid}")["nvml_baseline_bytes"]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.child.communicate(timeout=10)  # the end of its input ends it

    @contextmanager
    def phase(self) -> Iterator[list[Memory]]:
        """Peaks of the body, as the only item of the list once it has ended well."""
        on_gpu = self.device.type == "cuda"
        if on_gpu:
            torch.cuda.synchronize(self.device)
            torch.cuda.reset_peak_memory_stats(self.device)
        _return_free_memory()
        self._ask("reset")
        peaks: list[Memory] = []
        yield peaks
        if on_gpu:
            torch.cuda.synchronize(self.device)
        seen = self._ask("peaks")
        device_bytes = seen["nvml_device_bytes"]
        known = device_bytes is not None and self.nvml_baseline is not None
        peaks.append(
            Memory(
                torch_allocated_bytes=torch.cuda.max_memory_allocated(self.device) if on_gpu else None,
                torch_reserved_bytes=torch.cuda.max_memory_reserved(self.device) if on_gpu else None,
                nvml_device_bytes=device_bytes - self.nvml_baseline if known else None,
                nvml_process_bytes=seen["nvml_process_bytes"],
                nvml_baseline_bytes=self.nvml_baseline,
                rss_bytes=None if on_gpu else seen["rss_bytes"] - self.rss_baseline,
                rss_baseline_bytes=None if on_gpu else self.rss_baseline,
                samples=seen["samples"],
            )
        )

    def _ask(self, command: str) -> dict[str, Any]:
        try:
            self.child.stdin.write(command + "\n")
            self.child.stdin.flush()
            line = self.child.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise RuntimeError(f"the memory sampler ended: {self.child.stderr.read().strip()}")
        return json.loads(line)


def _return_free_memory() -> None:
    """Gives pages that are free but kept by the C library back, so that they do not hide what comes next."""
    gc.collect()
    if sys.platform == "linux":
        with suppress(AttributeError):  # musl has no malloc_trim
            ctypes.CDLL(None).malloc_trim(0)
