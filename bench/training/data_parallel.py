"""Data parallel training: every rank takes its part of each batch, and the gradients are those of the whole batch.

Order and flips are drawn by every rank for the whole batch, so they are those of a single process. What a model draws
itself while training (dropout, stochastic depth) differs between the ranks and from a single process.
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
"""Between the seeds of two ranks: far beyond the seeds of a sweep."""


@dataclass(frozen=True)
class Share:
    """Which of several processes this one is; the default is a process that trains alone."""

    rank: int = 0
    of: int = 1

    def part(self, count: int) -> slice:
        """This rank's part of a batch of ``count`` images; parts differ by one image at most.

        A batch of fewer images than ranks, which an epoch may end with, goes to each of them whole.
        """
        if count < self.of:
            return slice(0, count)
        return slice(count * self.rank // self.of, count * (self.rank + 1) // self.of)

    def weight(self, count: int) -> float:
        """What this rank's mean loss is multiplied by, so that the mean over the ranks is that over the images."""
        part = self.part(count)
        return 1.0 if count < self.of else (part.stop - part.start) * self.of / count

    def mean(self, value: Tensor) -> Tensor:
        """Mean of a tensor over the ranks."""
        if self.of > 1:
            value = value.clone()
            dist.all_reduce(value)
            value /= self.of
        return value

    def of_first(self, value: T) -> T:
        """What rank 0 has; all ranks must ask."""
        if self.of > 1:
            held = [value]
            dist.broadcast_object_list(held, src=0)
            (value,) = held
        return value

    def of_all(self, value: T) -> list[T]:
        """What each rank has, by rank; all ranks must ask."""
        values = [value] * self.of
        if self.of > 1:
            dist.all_gather_object(values, value)
        return values

    def seed(self, seed: int) -> int:
        """Of what a model draws itself; rank 0 draws as a single process would."""
        return (seed + self.rank * STRIDE) % 2**63


def distribute(model: nn.Module, share: Share) -> nn.Module:
    """``model`` itself for a single process; else a wrapper whose backward pass averages gradients over the ranks.

    Batch norms become ``SyncBatchNorm`` in place: their statistics are those of the whole batch. Raises
    ``InvalidModel`` for a model with batch norms on a CPU, where torch has none.
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
        init_sync=False,  # all ranks start from one seed, and complex buffers cannot be broadcast
        gradient_as_bucket_view=True,  # no second copy of the gradients
        static_graph=True,  # allows parameters that the loss does not reach
    )


def check_ranks_agree(model: nn.Module, share: Share) -> None:
    """Raises ``CheckFailed`` unless all ranks hold the same trained weights, to the bit."""
    if share.of == 1:
        return
    mine = {name: tensor_digest(p) for name, p in model.named_parameters() if p.requires_grad}
    digests = share.of_all(mine)
    differing = sorted(name for name in mine if len({digest[name] for digest in digests}) > 1)
    if differing:
        raise CheckFailed(f"the ranks hold different weights after training: {', '.join(differing[:5])}")
