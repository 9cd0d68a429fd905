"""Peak memory as a record holds it."""

from typing import Literal

from models.core.registry import Config

SLACK_BYTES = 16 * 2**20
"""NVML counts in pages of 2 MiB and is read every 10 ms: differences below this are no contradiction."""
PEAKS = ("nvml_device_bytes", "torch_reserved_bytes", "torch_allocated_bytes", "rss_bytes")
"""Fields of ``Memory`` in the order in which they say whether a card is large enough."""


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
