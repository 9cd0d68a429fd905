"""What a process takes of a card beside its tensors, by the card's generation: CUDA's context, and cuBLAS.

Measured where a card was at hand, else assumed; each entry says which. A prediction names its generation.
"""

from dataclasses import dataclass

import torch

from bench.memory import nvml

MIB = 2**20
SMALL_WORKSPACE = 8_519_680
LARGE_WORKSPACE = 32 * MIB
"""The two sizes that torch gives to a cuBLAS handle: ``:4096:2:16:8`` and 32 MiB (pytorch, aten/src/ATen/cuda/
CublasHandlePool.cpp, parseChosenWorkspaceSize; docs/source/notes/randomness.rst). ``$CUBLAS_WORKSPACE_CONFIG`` would
change them and is not looked at."""


@dataclass(frozen=True)
class Generation:
    """Sizes in bytes. Every thread that multiplies matrices has a cuBLAS handle of its own: one in the forward pass and
    one in the backward pass."""

    name: str
    since: tuple[int, int]  # lowest compute capability
    context_bytes: int  # CUDA's context and kernels, outside of torch's allocator
    handle_bytes: int  # what each cuBLAS handle takes there besides
    workspace_bytes: int  # what each cuBLAS handle takes from torch's allocator
    measured_on: str | None = None  # the card that says what is outside of the allocator; None where that is assumed

    def outside(self, handles: int) -> int:
        """Bytes that a process with so many cuBLAS handles takes outside of torch's allocator."""
        return self.context_bytes + handles * self.handle_bytes


_ALL = (
    Generation("turing", (7, 5), 450 * MIB, 0, SMALL_WORKSPACE),
    Generation("ampere", (8, 0), 450 * MIB, 0, SMALL_WORKSPACE),
    Generation("ada", (8, 9), 450 * MIB, 0, SMALL_WORKSPACE),
    # 31 runs of 27 configurations (driver 580.159.04, torch 2.11.0+cu130). What the card lost beyond what torch
    # reserved: 637.56 MiB for the U-Net, which multiplies no matrices, 701.56 where only the forward pass does, else
    # 765.56; at most 2 MiB more or less
    Generation("hopper", (9, 0), 668_532_736, 64 * MIB, LARGE_WORKSPACE, "an H100 80GB HBM3"),
    # assumed to be as on an H100; the workspace is large from pytorch's pull request 175344 (2026-02) on
    Generation("blackwell", (10, 0), 668_532_736, 64 * MIB, LARGE_WORKSPACE),
)
GENERATIONS = {generation.name: generation for generation in _ALL}
DEFAULT = GENERATIONS["ampere"]
"""Where no card is at hand and none is named: most cards whose memory is short are of this generation or near it."""


def of_capability(capability: tuple[int, int]) -> Generation:
    """The generation of a compute capability. What is older than all is taken for the first, what is newer for the
    last.

    >>> of_capability((9, 0)).name, of_capability((8, 6)).name, of_capability((12, 0)).name
    ('hopper', 'ampere', 'blackwell')
    """
    return next((each for each in reversed(_ALL) if capability >= each.since), _ALL[0])


def of_device(device: torch.device) -> Generation:
    """The generation of this process's card; ``DEFAULT`` for a CPU."""
    return of_capability(torch.cuda.get_device_capability(device)) if device.type == "cuda" else DEFAULT


def here() -> Generation | None:
    """The generation of this machine's first card, as NVML says it; ``None`` where NVML sees no card.

    CUDA is not asked: a process that asks it may appear on the card, beside a trial that has to be alone there.
    """
    capability = nvml.Gpus().capability()
    return None if capability is None else of_capability(capability)
