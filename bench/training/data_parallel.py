"""Data parallel training: every process takes its part of each batch; the gradients are those of the whole batch.

Every process draws order and flips for the whole batch, so they are those of a single process. Random numbers inside
the model (dropout, stochastic depth) differ between the processes and from a single process.

A process is known by its rank in ``torch.distributed``, counted from 0.
"""

from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from bench.training.checks import CheckFailed, tensor_digest
from models.core.registry import InvalidModel

T = TypeVar("T")
STRIDE = 1_000_003
"""Distance between the seeds of two processes: far larger than the seeds of a sweep."""


@dataclass(frozen=True)
class Share:
    """This process among those that train one model together; by default it is alone."""

    rank: int = 0
    """Rank in ``torch.distributed``."""
    of: int = 1
    """Number of processes."""

    def part(self, count: int) -> slice:
        """Returns this process's part of a batch of ``count`` images; parts differ by one image at most.

        A batch with fewer images than processes, as the last of an epoch may be, goes to each of them whole.
        """
        if count < self.of:
            return slice(0, count)
        return slice(count * self.rank // self.of, count * (self.rank + 1) // self.of)

    def weight(self, count: int) -> float:
        """Returns the factor of this process's mean loss that makes the mean over processes the mean over images."""
        part = self.part(count)
        return 1.0 if count < self.of else (part.stop - part.start) * self.of / count

    def micro_batches(self, count: int, parts: int) -> list[tuple[slice, float]]:
        """Splits this process's part of a batch of ``count`` images into at most ``parts`` micro-batches.

        Returns the place of each in the batch, and the factor of its mean loss with which the losses add up to
        ``weight`` times the mean over this process's images. All processes have the same number of micro-batches; a
        small batch has as many as the smallest part of a process has images.
        """
        whole = self.part(count)
        size = whole.stop - whole.start
        parts = min(parts, count if count < self.of else count // self.of)
        cuts = [whole.start + size * i // parts for i in range(parts + 1)]
        return [(slice(a, b), self.weight(count) * ((b - a) / size)) for a, b in zip(cuts, cuts[1:])]

    def mean(self, value: Tensor) -> Tensor:
        """Averages a tensor over the processes."""
        if self.of > 1:
            value = value.clone()
            dist.all_reduce(value)
            value /= self.of
        return value

    def from_first(self, value: T) -> T:
        """Returns the value of the first process; all processes must call it."""
        if self.of > 1:
            held = [value]
            dist.broadcast_object_list(held, src=0)
            (value,) = held
        return value

    def gather(self, value: T) -> list[T]:
        """Returns the values of all processes, by rank; all processes must call it."""
        values = [value] * self.of
        if self.of > 1:
            dist.all_gather_object(values, value)
        return values

    def seed(self, seed: int) -> int:
        """Returns the seed of random numbers inside the model; the first process has that of a single process."""
        return (seed + self.rank * STRIDE) % 2**63


def distribute(model: nn.Module, share: Share) -> nn.Module:
    """Wraps a model so that its backward pass averages gradients over the processes; a single process needs no wrapper.

    Batch norms become ``SyncBatchNorm`` in place: their statistics are those of the whole batch. Raises
    ``InvalidModel`` for a model with batch norms on a CPU, where torch has no ``SyncBatchNorm``.
    """
    if share.of == 1:
        return model
    parameter = next(model.parameters())
    norms = [name for name, module in model.named_modules() if isinstance(module, _BatchNorm)]
    if norms and parameter.device.type != "cuda":
        raise InvalidModel(f"batch norm over several processes needs GPUs, and this model has {norms[0]}")
    from timm.layers import convert_sync_batchnorm  # timm takes a second to load, and every command loads this file

    convert_sync_batchnorm(model)
    return DistributedDataParallel(
        model,
        device_ids=[torch.cuda.current_device()] if parameter.is_cuda else None,
        broadcast_buffers=False,  # synchronised norms agree
        init_sync=False,  # all processes start from one seed, and complex buffers cannot be broadcast
        gradient_as_bucket_view=True,  # no second copy of the gradients
        static_graph=True,  # allows parameters that the loss does not reach
    )


def check_processes_agree(model: nn.Module, share: Share) -> None:
    """Raises ``CheckFailed`` unless all processes hold the same trained weights, to the bit."""
    if share.of == 1:
        return
    own = {name: tensor_digest(p) for name, p in model.named_parameters() if p.requires_grad}
    digests = share.gather(own)
    differing = sorted(name for name in own if any(digest[name] != own[name] for digest in digests))
    if differing:
        raise CheckFailed(f"the processes hold different weights after training: {', '.join(differing[:5])}")
