"""The memory measures of a trial, and peak memory as a record holds it.

``MEASURES`` is the only list of measures: sampler, tables, plots and page take names and labels from it.
"""

from typing import Literal, NamedTuple

from models.core.registry import Config

MIB = 2**20
GIB = 2**30
SLACK_BYTES = 16 * MIB
"""NVML counts in pages of 2 MiB and is read every 10 ms: smaller differences are no contradiction."""


class Measure(NamedTuple):
    """A measure of memory: a field of ``Memory`` that holds the peak of a phase, in bytes."""

    name: str
    """The field of ``Memory``, and the column of a memory series if the measure is read over time."""
    short: str
    """Title in tables, without the unit."""
    label: str
    """The whole name, as the page shows it with a memory series."""
    step_bytes: int
    """The smallest step in which the measure moves."""
    has_column: bool = True
    """Whether leaderboards have a column for it, and whether it may decide the Pareto front."""
    baseline: str | None = None
    """Field of ``Memory`` that holds the value before the trial; ``None`` if the measure is not read over time."""
    above_baseline: str = ""
    """Name of the difference between a reading and ``baseline``; empty if figures do not show the readings."""
    noise_bytes: int = 0
    """Differences between repeats of a trial that are usual; 0 if ``step_bytes`` says it all."""


MEASURES = (
    Measure(
        "nvml_device_bytes",
        "device (NVML)",
        "memory in use on the card (NVML)",
        2 * MIB,  # CUDA's memory has pages of 2 MiB
        baseline="nvml_baseline_bytes",
        above_baseline="device memory above what was in use before",
    ),
    Measure(
        "nvml_process_bytes",
        "process (NVML)",
        "memory of the process on the card (NVML)",
        2 * MIB,
        has_column=False,  # unknown in most containers
        baseline="nvml_baseline_bytes",
    ),
    Measure("torch_reserved_bytes", "torch reserved", "memory that torch's allocator reserved", 2 * MIB),
    Measure("torch_allocated_bytes", "torch allocated", "memory of torch's tensors", 512),
    Measure("tensor_bytes", "tensors (CPU)", "memory of the tensors of a training step (CPU)", 1),
    Measure(
        "rss_bytes",
        "peak RSS above baseline (CPU)",
        "resident memory of the process",
        4096,
        baseline="rss_baseline_bytes",
        above_baseline="resident memory of the process above its baseline (CPU)",
        noise_bytes=4 * MIB,  # freed memory stays resident, in amounts that differ from run to run
    ),
)
"""All measures, in the order in which they say whether a card is large enough. A new measure
is added here; it also needs a field of ``Memory``, and a reading in ``bench.memory.sampler`` or
``bench.memory.measure``."""
PEAKS = tuple(measure.name for measure in MEASURES if measure.has_column)
"""Fields of ``Memory`` that leaderboards show, in the order of ``MEASURES``."""
NESTED = ("nvml_device_bytes", "nvml_process_bytes", "torch_reserved_bytes", "torch_allocated_bytes")
"""Names of measures each of which includes the next."""
_BY_NAME = {measure.name: measure for measure in MEASURES}


def measure_of(name: str) -> Measure:
    """Returns the measure of this name. Raises ``KeyError`` for an unknown name."""
    return _BY_NAME[name]


class Memory(Config):
    """Peaks of one phase, in bytes. ``None`` is unknown."""

    torch_allocated_bytes: int | None = None
    """Bytes of tensors: ``torch.cuda.max_memory_allocated``."""
    torch_reserved_bytes: int | None = None
    """Bytes that torch's allocator took from the device: ``torch.cuda.max_memory_reserved``."""
    nvml_device_bytes: int | None = None
    """Rise of the card's memory in use since before the model was built, with CUDA context and library workspaces."""
    nvml_process_bytes: int | None = None
    """Bytes that NVML attributes to this process; unknown in most containers."""
    nvml_baseline_bytes: int | None = None
    """Memory in use on the card before the model was built."""
    tensor_bytes: int | None = None
    """On a CPU: largest sum of living tensors in one training step (``bench.memory.tracked_step``). It is exact, the
    same in every run. ``None`` in older records, and where training had no second step with a whole batch."""
    rss_bytes: int | None = None
    """On a CPU: rise of the resident memory since before data and model existed."""
    rss_baseline_bytes: int | None = None
    """On a CPU: resident memory before data and model existed."""
    samples: int = 0
    """Number of readings, one every 10 ms, behind the NVML and RSS peaks."""
    lost_samples: int = 0
    """Number of readings of which NVML refused at least a part."""
    longest_gap_seconds: float | None = None
    """Longest time without a reading: a shorter peak can have been missed."""
    foreign_processes: list[str] | None = []
    """Other processes on the card during the phase; the device figure includes their memory. ``None``: NVML did not
    list the card's processes."""
    denied: dict[Literal["memory", "processes"], str] = {}
    """Quantities that NVML did not show at any time of the phase, with the reason that it gave."""

    @property
    def fragmentation_bytes(self) -> int | None:
        """Bytes that were reserved, but not allocated at the peak."""
        return difference(self.torch_reserved_bytes, self.torch_allocated_bytes)

    @property
    def context_bytes(self) -> int | None:
        """Bytes of CUDA context, kernels and libraries: the process's memory (else the card's) above torch's."""
        process, device = self.nvml_process_bytes, self.nvml_device_bytes
        return difference(process if process is not None else device, self.torch_reserved_bytes)

    @property
    def breach(self) -> str | None:
        """The contradiction to device >= process >= reserved >= allocated; ``None`` if all known values agree."""
        known = [(name, getattr(self, name)) for name in NESTED if getattr(self, name) is not None]
        wrong = []
        for (outer, larger), (inner, smaller) in zip(known, known[1:]):
            if larger < smaller - SLACK_BYTES:
                wrong.append(f"{outer} {larger / MIB:.0f} MiB < {inner} {smaller / MIB:.0f} MiB")
        return "; ".join(wrong) or None


def difference(a: int | None, b: int | None) -> int | None:
    """``a - b``; ``None`` if either is unknown."""
    return None if a is None or b is None else a - b


class MemoryConditions(Config):
    """Settings of the trial's process on which memory depends. ``None`` means that a setting does not apply."""

    activation_checkpointing: bool | int | None
    """Activation checkpointing of the encoder: of all blocks, or of the first N; ``None`` for a model without this
    setting."""
    precision: str
    attention_backends: list[str]
    """Kernels that torch could choose for scaled_dot_product_attention."""
    cudnn_benchmark: bool
    tf32_matmul: bool
    """Whether float32 matrix products were allowed to use TF32."""
    tf32_cudnn: bool | None = None
    """Whether cuDNN's convolutions were allowed to use TF32; also ``None`` in older records, which lack it."""
    allocator: str | None
    allocator_settings: str | None
    """$PYTORCH_ALLOC_CONF, or its older name $PYTORCH_CUDA_ALLOC_CONF."""
    fused_optimiser: bool | None = None
    """Whether one kernel updated all trained weights, as on every GPU; ``None`` in older records."""
