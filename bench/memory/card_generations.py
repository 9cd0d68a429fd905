"""Memory of a process on a card besides its tensors, by the card's generation: CUDA's context, and cuBLAS.

Each entry says whether it was measured or is assumed. A prediction names its generation.
"""

from dataclasses import dataclass

import torch

from bench.memory import nvml

MIB = 2**20
SMALL_WORKSPACE = 8_519_680
LARGE_WORKSPACE = 32 * MIB
"""The two workspace sizes that torch gives to a cuBLAS handle: ``:4096:2:16:8`` and 32 MiB (pytorch,
aten/src/ATen/cuda/CublasHandlePool.cpp, parseChosenWorkspaceSize; docs/source/notes/randomness.rst).
``$CUBLAS_WORKSPACE_CONFIG``, which changes them, is ignored."""


@dataclass(frozen=True)
class Generation:
    """Sizes in bytes. Every thread that multiplies matrices has a cuBLAS handle: one in the forward pass and one in the
    backward pass."""

    name: str
    since: tuple[int, int]  # lowest compute capability
    context_bytes: int  # CUDA's context and kernels, outside of torch's allocator
    handle_bytes: int  # of each cuBLAS handle, outside of torch's allocator
    workspace_bytes: int  # of each cuBLAS handle, from torch's allocator
    measured_on: str | None = None  # the card of the measurement; None: the sizes are assumed

    def outside(self, handles: int) -> int:
        """Returns the bytes outside of torch's allocator of a process with this number of cuBLAS handles."""
        return self.context_bytes + handles * self.handle_bytes


_ALL = (
    Generation("turing", (7, 5), 450 * MIB, 0, SMALL_WORKSPACE),
    Generation("ampere", (8, 0), 450 * MIB, 0, SMALL_WORKSPACE),
    Generation("ada", (8, 9), 450 * MIB, 0, SMALL_WORKSPACE),
    # 31 runs of 27 configurations (driver 580.159.04, torch 2.11.0+cu130). Memory in use above the memory that torch
    # reserved: 637.56 MiB for the U-Net, which multiplies no matrices, 701.56 where only the forward pass does, else
    # 765.56; all within 2 MiB
    Generation("hopper", (9, 0), 668_532_736, 64 * MIB, LARGE_WORKSPACE, "an H100 80GB HBM3"),
    # assumed to be as on an H100; the workspace is large from pytorch's pull request 175344 (2026-02) on
    Generation("blackwell", (10, 0), 668_532_736, 64 * MIB, LARGE_WORKSPACE),
)
GENERATIONS = {generation.name: generation for generation in _ALL}
DEFAULT = GENERATIONS["ampere"]
"""Generation if there is no card and none is named: most cards with little memory are of this or a similar one."""


def of_capability(capability: tuple[int, int]) -> Generation:
    """Returns the generation of a compute capability. Older cards count as the first one, newer ones as the last.

    >>> of_capability((9, 0)).name, of_capability((8, 6)).name, of_capability((12, 0)).name
    ('hopper', 'ampere', 'blackwell')
    """
    return next((each for each in reversed(_ALL) if capability >= each.since), _ALL[0])


def of_device(device: torch.device) -> Generation:
    """Returns the generation of this process's card; ``DEFAULT`` for a CPU."""
    return of_capability(torch.cuda.get_device_capability(device)) if device.type == "cuda" else DEFAULT


def here() -> Generation | None:
    """Returns the generation of this machine's first card according to NVML; ``None`` where NVML knows no card.

    CUDA is not used: a process that initialises CUDA may appear on the card, where a trial has to be alone.
    """
    capability = nvml.Gpus().capability()
    return None if capability is None else of_capability(capability)
