"""Peak memory of a phase of a trial, in several truths that are kept apart; what cannot be measured is ``None``."""

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
from bench.memory import sampler
from bench.records.memory import Memory, MemoryConditions, _difference
from bench.system.device import tf32_flags

POLL_SECONDS = 2.0
END_SECONDS = 10.0
"""How long to wait for the sampler's end."""


class MeasurementSpoiled(Exception):
    """Memory that is measured now would not be this trial's alone, or not measured at all."""


def conditions(device: torch.device, precision: str, checkpointing: bool | None) -> MemoryConditions:
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
    )


class MemoryMonitor:
    """Watches this process from a second one. Enter it before data and model exist: that moment is the baseline.

    Raises ``MeasurementSpoiled`` where another process is on the card, or NVML does not say whether there is one,
    unless the configuration says that this is only to be noted.

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
        self.denied: dict[str, str] = {}  # where NVML shows nothing of the card at all

    def __enter__(self) -> "MemoryMonitor":
        command = [sys.executable, "-m", "bench.memory.sampler", str(os.getpid())]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        self.child = subprocess.Popen(command, text=True, **pipes)
        try:
            _return_free_memory()
            self.rss_baseline = self._ask("reset")["rss_bytes"]
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
            self.child.communicate(timeout=END_SECONDS)  # the end of its input ends it
        except subprocess.TimeoutExpired:  # it may hang in the driver: what it has told stays true
            self.child.kill()
            self.child.communicate()

    def _watch_card(self) -> None:
        seen = self._ask(f"watch {' '.join(device_identifiers(self.device))}")
        if seen["problem"]:
            if self.config.foreign_process != "note":
                raise MeasurementSpoiled(nvml_missing(seen["problem"]))
            self.denied = {"memory": seen["problem"], "processes": seen["problem"]}
            return
        deadline = time.monotonic() + 60 * self.config.wait_minutes
        while seen["foreign"] and self.config.foreign_process == "wait" and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
            seen = self._ask("present")
        self._check_alone(seen, "before the trial")
        self.nvml_baseline = seen["nvml_baseline_bytes"]

    def _check_alone(self, seen: dict[str, Any], when: str) -> None:
        """Raises ``MeasurementSpoiled`` where others are on the card, or nobody can see whether there are."""
        if self.config.foreign_process == "note":
            return
        if seen["foreign"] is None:
            raise MeasurementSpoiled(nvml_missing(f"{sampler.not_listed(seen['denied']['processes'])} {when}"))
        if seen["foreign"]:
            names = ", ".join(_described(each) for each in seen["foreign"])
            remedy = "End it, or set memory.foreign_process to wait or note"
            raise MeasurementSpoiled(f"not alone on the card {when}: {names}. {remedy}")

    @contextmanager
    def phase(self, name: str = "phase") -> Iterator[list[Memory]]:
        """Peaks of the body, as the only item of the list once it has ended well; its series is kept under ``name``."""
        on_gpu = self.device.type == "cuda"
        if on_gpu:
            torch.cuda.synchronize(self.device)
            torch.cuda.empty_cache()  # what an earlier phase left unused is not this one's
            torch.cuda.reset_peak_memory_stats(self.device)
        _return_free_memory()
        self._ask("reset")
        peaks: list[Memory] = []
        yield peaks
        if on_gpu:
            torch.cuda.synchronize(self.device)
        seen = self._ask("peaks")
        self.series[name] = seen["series"]
        self._check_alone(seen, f"during {name}")
        denied = self.denied or seen["denied"]
        foreign = None if "processes" in denied else [_described(each) for each in seen["foreign"]]
        peaks.append(
            Memory(
                torch_allocated_bytes=torch.cuda.max_memory_allocated(self.device) if on_gpu else None,
                torch_reserved_bytes=torch.cuda.max_memory_reserved(self.device) if on_gpu else None,
                nvml_device_bytes=_difference(seen["nvml_device_bytes"], self.nvml_baseline),
                nvml_process_bytes=seen["nvml_process_bytes"],
                nvml_baseline_bytes=self.nvml_baseline,
                rss_bytes=None if on_gpu else seen["rss_bytes"] - self.rss_baseline,
                rss_baseline_bytes=None if on_gpu else self.rss_baseline,
                samples=seen["samples"],
                lost_samples=seen["lost_samples"],
                longest_gap_seconds=seen["longest_gap_seconds"],
                foreign_processes=foreign,
                denied=denied,
            )
        )

    def series_table(self) -> dict[str, list]:
        """Readings of all phases so far as columns: phase, seconds since its start, and what the sampler reads."""
        lines = [{"phase": name, **point} for name, points in self.series.items() for point in points]
        return {column: [line[column] for line in lines] for column in ("phase", "seconds", *sampler.NAMES)}

    def _ask(self, command: str) -> dict[str, Any]:
        try:
            self.child.stdin.write(command + "\n")
            self.child.stdin.flush()
            line = self.child.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            said = self.child.stderr.read().strip().splitlines()[-1:]  # nothing, if it was killed
            code = self.child.wait()
            how = f"signal {-code}" if code < 0 else f"exit code {code}"
            raise MeasurementSpoiled(": ".join([f"the memory sampler ended ({how}), so nobody saw the peak", *said]))
        return json.loads(line)


def device_identifiers(device: torch.device) -> list[str]:
    """UUIDs under which NVML may know torch's device, the most exact first.

    CUDA_VISIBLE_DEVICES may hold UUIDs, of MIG instances too, or numbers; numbers are not trusted, because CUDA's order
    need not be NVML's. torch gives a UUID without its prefix.
    """
    index = device.index if device.index is not None else torch.cuda.current_device()
    visible = [entry.strip() for entry in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")]
    named = [visible[index]] if index < len(visible) and visible[index].startswith(("GPU-", "MIG-")) else []
    return [*named, str(torch.cuda.get_device_properties(device).uuid)]


def nvml_missing(problem: str) -> str:
    """One line for a machine whose NVML does not show who is on the GPU."""
    return (
        f"NVML: {problem}. Without it nobody knows who else uses the card. Install the driver's libnvidia-ml and let "
        "it list the card's processes, or set memory.foreign_process=note to go on with what is known"
    )


def _described(process: dict[str, Any]) -> str:
    used = "unknown use" if process["bytes"] is None else f"{process['bytes'] / 2**20:.0f} MiB"
    return f"{process['name']} (PID {process['pid']}, {used})"


def _return_free_memory() -> None:
    """Gives pages that are free but kept by the C library back, so that they do not hide what comes next."""
    gc.collect()
    if sys.platform == "linux":
        with suppress(AttributeError):  # musl has no malloc_trim
            ctypes.CDLL(None).malloc_trim(0)
