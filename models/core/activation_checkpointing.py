"""Activation checkpointing: activations are recomputed in the backward pass instead of being saved."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from typing import Annotated, Any

import torch
from pydantic import BeforeValidator
from pydantic_core import PydanticCustomError
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from models.core.registry import InvalidModel


def _allowed(value: Any) -> Any:
    """Returns a value of ``checkpointing``. One error for it is clearer than pydantic's, one for each type."""
    if isinstance(value, bool) or (isinstance(value, int) and value >= 1):
        return value
    allowed = "true (all blocks), false, or a number of the first blocks, from 1 on"
    raise PydanticCustomError("checkpointing", "should be {allowed}", {"allowed": allowed})


Checkpointing = Annotated[bool | int, BeforeValidator(_allowed)]
"""Whether the activations of all blocks of an encoder are recomputed, or the number of the first blocks for which they
are."""
FACTORS = ("DropPath", "LayerScale")
"""Names of layers (of timm, sam3 and others) that multiply by a mask or by a weight."""


def spare_last_layers(encoder: nn.Module) -> None:
    """Avoids recomputing the last layers of frozen blocks; call it after ``store_frozen``.

    torch recomputes a checkpointed block up to its last saved tensor, even if that is only a factor. A transformer's
    block ends with the MLP's second layer, layer scale and stochastic depth. A frozen layer of these does not need its
    input again. Here they save their factors themselves, so that recomputation ends at the MLP's activation. Numbers
    stay the same to the bit.
    """
    for module in encoder.modules():
        if type(module).__name__ in FACTORS and not isinstance(module, _SavesItsFactor):
            module.__class__ = _sparing(type(module))


class _SavesItsFactor:
    """Mixin for a layer that returns ``x * factor``."""

    def forward(self, x: Tensor) -> Tensor:
        trains = any(p.requires_grad for p in self.parameters())  # then x is saved, too, and has to be recomputed
        if trains or torch.compiler.is_compiling():
            return super().forward(x)
        with saved_tensors_hooks(_as_it_is, _as_it_is):
            return super().forward(x)


@cache
def _sparing(layer: type[nn.Module]) -> type[nn.Module]:
    return type(layer.__name__, (_SavesItsFactor, layer), {"__module__": layer.__module__})


def _as_it_is(tensor: Tensor) -> Tensor:
    return tensor


def checkpoint_stages(module: nn.Module) -> None:
    """Recomputes a decoder stage by stage: each child of ``module``, and each item of its lists, is a stage.

    Names of parameters stay as they are.
    """
    for child in module.children():
        for stage in child.children() if isinstance(child, nn.ModuleList | nn.ModuleDict) else (child,):
            stage.forward = Recomputed(stage)


def checkpoint_blocks(encoder: nn.Module, checkpointing: bool | int) -> None:
    """Recomputes all blocks of an encoder or the first ``checkpointing``, with their adapters; call it at the end.

    An encoder with ``recomputes_itself`` does it for all blocks. The first blocks are chosen, because the activations
    of the others are gone when the backward pass reaches them. Raises ``InvalidModel`` if there are fewer blocks.
    """
    if checkpointing is True:
        checkpointing = 0 if getattr(encoder, "recomputes_itself", False) else len(encoder.blocks)
    if checkpointing > len(encoder.blocks):
        blocks = f"the encoder has {len(encoder.blocks)} blocks"
        raise InvalidModel(f"encoder.checkpointing: {checkpointing}, but {blocks}. Set it to true for all of them")
    for i in range(checkpointing):
        encoder.blocks[i].forward = Recomputed(encoder.blocks[i])


class Recomputed:
    """The ``forward`` of a module whose activations are recomputed in the backward pass. The numbers stay the same."""

    def __init__(self, stage: nn.Module) -> None:
        self.stage = stage
        self.inner = stage.forward
        """The function that is recomputed; ``bench.training.compiled`` replaces it."""
        self.whole: Callable[..., Any] | None = None
        """Runs the stage on its inputs and recomputes it, if ``bench.training.compiled`` has set it."""
        self.has_statistics = bool(_with_statistics(stage))

    def __call__(self, *inputs: Any, **more: Any) -> Any:
        if not (self.stage.training and torch.is_grad_enabled()):
            return self.inner(*inputs, **more)
        if self.whole is not None:
            return self.whole(self.stage, *inputs)
        if self.has_statistics:
            more["context_fn"] = lambda: (nullcontext(), _statistics_kept(self.stage))
        return checkpoint(self.inner, *inputs, use_reentrant=False, **more)


def _with_statistics(stage: nn.Module) -> list[_BatchNorm]:
    return [m for m in stage.modules() if isinstance(m, _BatchNorm) and m.num_batches_tracked is not None]


@contextmanager
def _statistics_kept(stage: nn.Module) -> Iterator[None]:
    """Keeps running statistics of batch norms unchanged in the recomputation: each batch counts once."""
    norms = _with_statistics(stage)
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, before):
            norm.momentum, norm.num_batches_tracked = momentum, count
