"""Peak memory of a phase of a trial, by several measures that are kept apart. An unmeasurable one is ``None``."""

import ctypes
import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any

import torch

from bench.config.settings import MemoryConfig
from bench.memory.energy import Reading
from bench.memory.nvml import list_refused, nvml_missing
from bench.records.memory import MEASURES, Memory, MemoryConditions, difference
from bench.system.device import tf32_flags

POLL_SECONDS = 2.0
END_SECONDS = 10.0
"""Longest time to wait for the sampler's end."""


class MeasurementSpoiled(Exception):
    """Memory cannot be measured, or would include memory of other processes."""


def conditions(device: torch.device, precision: str, checkpointing: bool | int | None) -> MemoryConditions:
    """Reads the settings of this process on which memory depends."""
    on_gpu = device.type == "cuda"
    kinds = ("flash", "mem_efficient", "math", "cudnn")
    settings = os.environ.get("PYTORCH_ALLOC_CONF") or os.environ.get("PYTORCH_CUDA_ALLOC_CONF")
    return MemoryConditions(
        activation_checkpointing=checkpointing,
        precision=precision,
        attention_backends=[k for k in kinds if getattr(torch.backends.cuda, f"{k}_sdp_enabled")()],
        cudnn_benchmark=torch.backends.cudnn.benchmark,
        tf32_matmul=torch.get_float32_matmul_precision() != "highest",
        tf32_cudnn=tf32_flags()[1] if on_gpu else None,
        allocator=torch.cuda.get_allocator_backend() if on_gpu else None,
        allocator_settings=settings,
        fused_optimiser=on_gpu,
    )


class MemoryMonitor:
    """Measures this process from a second one. Enter it before data and model exist: that moment is the baseline.

    Raises ``MeasurementSpoiled`` where another process is on the card, or NVML does not list the card's processes.
    With ``memory.foreign_process=note`` both are only recorded.

    >>> with MemoryMonitor(torch.device("cpu")) as monitor:
    ...     with monitor.phase() as peaks:
    ...         _ = torch.zeros(1000, 1000).sum()
    >>> peaks[0].rss_bytes is not None and peaks[0].torch_allocated_bytes is None
    True
    """

    def __init__(self, device: torch.device, config: MemoryConfig = MemoryConfig()) -> None:
        self.device, self.config = device, config
        self.series: dict[str, list[dict[str, Any]]] = {}
        self.nvml_baseline: int | None = None
        self.denied: dict[str, str] = {}
        """Errors of NVML, if it cannot read this card."""

    def __enter__(self) -> "MemoryMonitor":
        command = [sys.executable, "-m", "bench.memory.sampler", str(os.getpid())]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        self.child = subprocess.Popen(command, text=True, **pipes)
        try:
            _return_free_memory()
            self.rss_baseline = self._request("reset")["rss_bytes"]
            if self.device.type == "cuda":
                self._watch_card()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.child.communicate(timeout=END_SECONDS)  # closing its standard input ends it
        except subprocess.TimeoutExpired:  # it may hang in the driver; its earlier answers stay valid
            self.child.kill()
            self.child.communicate()

    def _watch_card(self) -> None:
        answer = self._request(f"watch {' '.join(device_identifiers(self.device))}")
        if answer["problem"]:
            if self.config.foreign_process != "note":
                raise MeasurementSpoiled(nvml_missing(answer["problem"]))
            self.denied = {"memory": answer["problem"], "processes": answer["problem"]}
            return
        deadline = time.monotonic() + 60 * self.config.wait_minutes
        while answer["foreign"] and self.config.foreign_process == "wait" and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
            answer = self._request("present")
        self._check_alone(answer, "before the trial")
        self.nvml_baseline = answer["nvml_baseline_bytes"]

    def _check_alone(self, answer: dict[str, Any], when: str) -> None:
        """Raises ``MeasurementSpoiled`` where other processes are on the card, or NVML refuses to list them."""
        if self.config.foreign_process == "note":
            return
        if answer["foreign"] is None:
            raise MeasurementSpoiled(nvml_missing(f"{list_refused(answer['denied']['processes'])} {when}"))
        if answer["foreign"]:
            names = ", ".join(_described(each) for each in answer["foreign"])
            remedy = "End it, or set memory.foreign_process to wait or note"
            raise MeasurementSpoiled(f"not alone on the card {when}: {names}. {remedy}")

    @contextmanager
    def phase(self, name: str = "phase") -> Iterator[list[Memory]]:
        """Measures the body. When it has ended without an error, the list holds its peaks as the only item.

        Readings over time are kept under ``name``.
        """
        on_gpu = self.device.type == "cuda"
        if on_gpu:
            torch.cuda.synchronize(self.device)
            torch.cuda.empty_cache()  # unused memory of an earlier phase is not this phase's
            torch.cuda.reset_peak_memory_stats(self.device)
        _return_free_memory()
        self._request("reset")
        peaks: list[Memory] = []
        yield peaks
        if on_gpu:
            torch.cuda.synchronize(self.device)
        answer = self._request("peaks")
        self.series[name] = answer["series"]
        self._check_alone(answer, f"during {name}")
        denied = self.denied or answer["denied"]
        foreign = None if "processes" in denied else [_described(each) for each in answer["foreign"]]
        peaks.append(
            Memory(
                torch_allocated_bytes=torch.cuda.max_memory_allocated(self.device) if on_gpu else None,
                torch_reserved_bytes=torch.cuda.max_memory_reserved(self.device) if on_gpu else None,
                nvml_device_bytes=difference(answer["nvml_device_bytes"], self.nvml_baseline),
                nvml_process_bytes=answer["nvml_process_bytes"],
                nvml_baseline_bytes=self.nvml_baseline,
                rss_bytes=None if on_gpu else answer["rss_bytes"] - self.rss_baseline,
                rss_baseline_bytes=None if on_gpu else self.rss_baseline,
                samples=answer["samples"],
                lost_samples=answer["lost_samples"],
                longest_gap_seconds=answer["longest_gap_seconds"],
                foreign_processes=foreign,
                denied=denied,
            )
        )

    def counters(self) -> Reading | None:
        """Reads the card's counters of energy and utilisation; ``None`` on a CPU."""
        return Reading(**self._request("counters")) if self.device.type == "cuda" else None

    def series_table(self) -> dict[str, list]:
        """Returns readings of all phases so far as columns: phase, seconds since its start, bytes of each measure."""
        sampled = [measure.name for measure in MEASURES if measure.baseline is not None]
        columns: dict[str, list] = {column: [] for column in ("phase", "seconds", *sampled)}
        for name, points in self.series.items():
            for point in points:
                for column, value in {"phase": name, **point}.items():
                    columns[column].append(value)
        return columns

    def _request(self, command: str) -> dict[str, Any]:
        """Sends a command to the sampler and returns its answer. Raises ``MeasurementSpoiled`` if it has ended."""
        try:
            self.child.stdin.write(command + "\n")
            self.child.stdin.flush()
            line = self.child.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            last_words = self.child.stderr.read().strip().splitlines()[-1:]  # empty if it was killed
            code = self.child.wait()
            how = f"signal {-code}" if code < 0 else f"exit code {code}"
            text = f"the memory sampler ended ({how}), so the peak is unknown"
            raise MeasurementSpoiled(": ".join([text, *last_words]))
        return json.loads(line)


def device_identifiers(device: torch.device) -> list[str]:
    """Returns the UUIDs under which NVML may know torch's device, the most exact first.

    CUDA_VISIBLE_DEVICES may hold UUIDs, of MIG instances too, or numbers. Numbers are ignored, because CUDA may count
    cards in another order than NVML. torch gives a UUID without its prefix.
    """
    index = device.index if device.index is not None else torch.cuda.current_device()
    visible = [entry.strip() for entry in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")]
    named = [visible[index]] if index < len(visible) and visible[index].startswith(("GPU-", "MIG-")) else []
    return [*named, str(torch.cuda.get_device_properties(device).uuid)]


def _described(process: dict[str, Any]) -> str:
    used = "unknown use" if process["bytes"] is None else f"{process['bytes'] / 2**20:.0f} MiB"
    return f"{process['name']} (PID {process['pid']}, {used})"


def _return_free_memory() -> None:
    """Returns free pages of the C library to the system: they would hide later allocations of the same size."""
    gc.collect()
    if sys.platform == "linux":
        with suppress(AttributeError):  # musl has no malloc_trim
            ctypes.CDLL(None).malloc_trim(0)
