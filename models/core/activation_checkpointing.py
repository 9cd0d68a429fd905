"""Activation checkpointing: activations are recomputed in the backward pass instead of being saved."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

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
            stage.forward = _checkpointed(stage, stage.forward)


def _checkpointed(stage: nn.Module, forward: Callable[..., Any]) -> Callable[..., Any]:
    def run(*inputs: Any) -> Any:
        if not (stage.training and torch.is_grad_enabled()):
            return forward(*inputs)
        contexts = lambda: (nullcontext(), _statistics_kept(stage))  # noqa: E731
        return checkpoint(forward, *inputs, use_reentrant=False, context_fn=contexts)

    return run


@contextmanager
def _statistics_kept(stage: nn.Module) -> Iterator[None]:
    """Keeps running statistics of batch norms unchanged in the recomputation: each batch counts once."""
    norms = [m for m in stage.modules() if isinstance(m, _BatchNorm) and m.num_batches_tracked is not None]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, before):
            norm.momentum, norm.num_batches_tracked = momentum, count
