"""Activation checkpointing of a decoder's stages: computed again in the backward pass instead of being kept."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


def checkpoint_stages(module: nn.Module) -> None:
    """Makes each child of ``module``, and each item of its lists, a stage. Names of parameters stay as they are."""
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
