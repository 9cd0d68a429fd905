"""Compilation of the repeated parts of a model with torch.compile, for training steps (``train.compile: blocks``).

Each block of the encoder is a region, and so is the decoder (with ``model.checkpoint_decoder`` each of its stages).
torch.compile keeps one graph for all blocks with the same code, shapes and constants; weights are inputs of the graph.
Stochastic depth has another probability in each block, so it becomes an input, too. Modules are compiled in place: the
names of parameters stay. Recomputation (activation checkpointing) stays outside of the regions.

Only micro-batches of whole batches run compiled. The last, smaller batch of an epoch and all evaluation run the same
code as without compilation.
"""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from bench.config.settings import TrainConfig, TransformConfig
from bench.datasets import Features
from bench.training.batch_loss import batch_loss
from bench.training.data_parallel import Share
from models.core.activation_checkpointing import Recomputed


class Compiled:
    """The compiled regions of a model. Within the context the model runs compiled, except where ``for_images`` differs;
    afterwards it is as before. Without ``train.compile`` nothing happens."""

    def __init__(self, model: nn.Module, config: TrainConfig, share: Share = Share()) -> None:
        self.model, self.config, self.share = model, config, share
        self.seconds: float | None = None
        self._sizes: set[int] = set()  # numbers of images that are compiled
        self._stack = ExitStack()

    def __enter__(self) -> "Compiled":
        if self.config.compile:
            torch.compiler.reset()  # graphs of an earlier trial in this process count towards torch's limit
            self._stack.enter_context(torch._dynamo.config.patch(fail_on_recompile_limit_hit=True))
            self._stack.enter_context(torch.compiler.set_stance("force_eager"))
            for region in regions(self.model):
                self._stack.callback(_compile(region))
            device = next(self.model.parameters()).device
            for module in self.model.encoder.modules():
                if type(module).__name__ == "DropPath":
                    self._stack.callback(_draw_by_tensor(module, device))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def for_images(self, part: slice) -> AbstractContextManager[Any]:
        """Returns the context of forward and backward pass for these images of a batch."""
        compiled = part.stop - part.start in self._sizes
        return torch.compiler.set_stance("default") if compiled else nullcontext()

    def gradients(
        self,
        model: nn.Module,
        images: Tensor | Features,
        masks: Tensor,
        transform: TransformConfig,
        scaler: torch.amp.GradScaler,
    ) -> Tensor:
        """Computes the gradients of a batch in micro-batches, and returns its loss.

        model: this model, or its data-parallel wrapper; images, masks: a whole batch, as ``batch_loss`` takes it;
        scaler: enlarges the gradients in float16.
        """
        total = torch.zeros((), device=masks.device)
        for part, weight in self.share.micro_batches(len(images), self.config.accumulate):
            with self.for_images(part):
                loss = batch_loss(model, images[part], masks[part], self.config, transform) * weight
                scaler.scale(loss).backward()
            total += loss.detach()
        return total

    def warm_up(self, images: Tensor | Features, masks: Tensor, transform: TransformConfig) -> None:
        """Compiles by one step for each size of a micro-batch, and measures the time.

        Weights, buffers and random states stay as they are. images, masks: a whole batch, as ``batch_loss`` takes it.
        """
        began = time.perf_counter()
        buffers = {name: buffer.clone() for name, buffer in self.model.named_buffers()}
        parts = {
            part.stop - part.start: part for part, _ in self.share.micro_batches(len(images), self.config.accumulate)
        }
        self._sizes = set(parts)
        with torch.random.fork_rng():
            for part in parts.values():
                with self.for_images(part):
                    batch_loss(self.model, images[part], masks[part], self.config, transform).backward()
        self.model.zero_grad(set_to_none=True)
        with torch.no_grad():
            for name, buffer in self.model.named_buffers():
                buffer.copy_(buffers[name])
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.seconds = time.perf_counter() - began


def regions(model: nn.Module) -> list[nn.Module]:
    """Returns the modules that are compiled, each on its own."""
    stages = [module for module in model.decoder.modules() if isinstance(module.__dict__.get("forward"), Recomputed)]
    return [*model.encoder.blocks, *(stages or [model.decoder])]


def _compile(module: nn.Module) -> Callable[[], None]:
    """Compiles a module in place; returns a function that takes it back."""
    forward = module.__dict__.get("forward")
    if isinstance(forward, Recomputed):
        plain, forward.inner = forward.inner, torch.compile(forward.inner, dynamic=False)
        return lambda: setattr(forward, "inner", plain)
    module.compile(dynamic=False)
    return lambda: setattr(module, "_compiled_call_impl", None)


def _draw_by_tensor(module: nn.Module, device: torch.device) -> Callable[[], None]:
    """Makes the probability of stochastic depth a tensor; returns a function that takes it back."""
    kind = type(module)
    module.__class__ = _DropPath
    module.register_buffer("keep", torch.tensor(1.0 - module.drop_prob, device=device), persistent=False)

    def take_back() -> None:
        del module.keep
        module.__class__ = kind

    return take_back


class _DropPath(nn.Module):
    """timm's ``DropPath`` with its probability in a tensor: a constant would make a graph of its own in each block."""

    keep: Tensor

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        draws = torch.rand((x.shape[0],) + (1,) * (x.dim() - 1), device=x.device)
        return x * ((draws < self.keep) / self.keep).to(x.dtype)
