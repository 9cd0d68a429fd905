"""Activation checkpointing: what is computed again in the backward pass instead of being kept."""

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
"""Layers by whose name (timm's, sam3's and others') one knows that they multiply by a mask or by a weight."""


def spare_last_layers(encoder: nn.Module) -> None:
    """Spares checkpointing the last layers of frozen blocks; to be called after ``store_frozen``.

    torch computes a checkpointed block again up to the last tensor that it kept, be it only a factor. A transformer's
    block ends with the MLP's second layer, layer scale and stochastic depth; none of them needs its input again if
    it does not train. Here they keep their factors themselves, so that the block ends at the MLP's activation the
    second time. Numbers stay the same to the bit.
    """
    for module in encoder.modules():
        if type(module).__name__ in FACTORS and not isinstance(module, _KeepsItsFactor):
            module.__class__ = _sparing(type(module))


class _KeepsItsFactor:
    """To be mixed into a layer that returns ``x * factor``."""

    def forward(self, x: Tensor) -> Tensor:
        trains = any(p.requires_grad for p in self.parameters())  # then x is kept too, which is to be computed again
        if trains or torch.compiler.is_compiling():
            return super().forward(x)
        with saved_tensors_hooks(_as_it_is, _as_it_is):
            return super().forward(x)


@cache
def _sparing(layer: type[nn.Module]) -> type[nn.Module]:
    return type(layer.__name__, (_KeepsItsFactor, layer), {"__module__": layer.__module__})


def _as_it_is(tensor: Tensor) -> Tensor:
    return tensor


def checkpoint_stages(module: nn.Module) -> None:
    """Has a decoder computed stage by stage again: each child of ``module``, and each item of its lists, is a stage.
    Names of parameters stay as they are."""
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
    """The second time, batch norms leave their running statistics alone: a batch counts once."""
    norms = [m for m in stage.modules() if isinstance(m, _BatchNorm) and m.num_batches_tracked is not None]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, before):
            norm.momentum, norm.num_batches_tracked = momentum, count
