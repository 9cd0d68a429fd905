"""Peak memory as a record holds it."""

from typing import Literal, NamedTuple

from models.core.registry import Config

SLACK_BYTES = 16 * 2**20
"""NVML counts in pages of 2 MiB and is read every 10 ms: differences below this are no contradiction."""
GIB = 2**30


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


MEASURES = (
    Measure(
        "nvml_device_bytes",
        "device (NVML)",
        "memory in use on the card (NVML)",
        2 * 2**20,  # CUDA's memory has pages of 2 MiB
        baseline="nvml_baseline_bytes",
        above_baseline="device memory above what was in use before",
    ),
    Measure(
        "nvml_process_bytes",
        "process (NVML)",
        "memory of the process on the card (NVML)",
        2 * 2**20,
        has_column=False,  # unknown in most containers
        baseline="nvml_baseline_bytes",
    ),
    Measure("torch_reserved_bytes", "torch reserved", "memory that torch's allocator reserved", 2 * 2**20),
    Measure("torch_allocated_bytes", "torch allocated", "memory of torch's tensors", 512),
    Measure(
        "rss_bytes",
        "peak RSS above baseline (CPU)",
        "resident memory of the process",
        4096,
        baseline="rss_baseline_bytes",
        above_baseline="resident memory of the process above its baseline (CPU)",
    ),
)
"""All measures, in the order in which they say whether a card is large enough. A new measure is added here."""
PEAKS = tuple(measure.name for measure in MEASURES if measure.has_column)
"""Fields of ``Memory`` that leaderboards show, in the order of ``MEASURES``."""


def measure_of(name: str) -> Measure:
    """Returns the measure of this name. Raises ``KeyError`` for an unknown name."""
    return _BY_NAME[name]


_BY_NAME = {measure.name: measure for measure in MEASURES}


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
    lost_samples: int = 0
    """Readings of which NVML refused at least a part."""
    longest_gap_seconds: float | None = None
    """Longest time without a reading: a shorter peak can have been missed."""
    foreign_processes: list[str] | None = []
    """Others on the card during the phase; the device figure holds their memory too. ``None``: NVML did not show who
    was on the card."""
    denied: dict[Literal["memory", "processes"], str] = {}
    """What NVML did not show at any time of the phase, and the reason that it gave."""

    @property
    def fragmentation_bytes(self) -> int | None:
        """Reserved, yet not allocated at the peak."""
        return _difference(self.torch_reserved_bytes, self.torch_allocated_bytes)

    @property
    def context_bytes(self) -> int | None:
        """CUDA context, kernels and libraries: what the process, or else the card, lost beyond torch's allocator."""
        process, device = self.nvml_process_bytes, self.nvml_device_bytes
        return _difference(process if process is not None else device, self.torch_reserved_bytes)

    @property
    def breach(self) -> str | None:
        """What contradicts device >= process >= reserved >= allocated; ``None`` where all that is known agrees."""
        chain = [
            (name, value)
            for name in ("nvml_device_bytes", "nvml_process_bytes", "torch_reserved_bytes", "torch_allocated_bytes")
            if (value := getattr(self, name)) is not None
        ]
        wrong = [
            f"{a} {x / 2**20:.0f} MiB < {b} {y / 2**20:.0f} MiB"
            for (a, x), (b, y) in zip(chain, chain[1:])
            if x < y - SLACK_BYTES
        ]
        return "; ".join(wrong) or None


def _difference(a: int | None, b: int | None) -> int | None:
    return None if a is None or b is None else a - b


class MemoryConditions(Config):
    """Settings that memory depends on, as they were in the trial's process. ``None`` does not apply."""

    activation_checkpointing: bool | None
    """Of the encoder; ``None`` if the model has none."""
    precision: str
    attention_backends: list[str]
    """Kernels that torch was free to choose from for scaled_dot_product_attention."""
    cudnn_benchmark: bool
    tf32_matmul: bool
    """Whether float32 matrix products were allowed to use TF32."""
    tf32_cudnn: bool | None = None
    """The same of cuDNN's convolutions; also ``None`` in records that were made before it was kept."""
    allocator: str | None
    allocator_settings: str | None
    """$PYTORCH_ALLOC_CONF, or its older name $PYTORCH_CUDA_ALLOC_CONF."""
