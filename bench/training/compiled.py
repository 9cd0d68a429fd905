"""Compilation of the repeated parts of a model with torch.compile, for training steps (``train.compile``).

``blocks``: each block of the encoder is a region, together with its recomputation (activation checkpointing). In the
decoder its ``compiled_parts`` are regions, or else the whole of it (with ``model.checkpoint_decoder`` each stage).
torch.compile keeps one graph for all blocks with the same code, shapes and constants; weights are inputs of the graph.
Modules are compiled in place: the names of parameters stay.

``step``: the same regions, and the whole forward and backward pass is a CUDA graph (``bench.training.static_step``).

Only whole batches run compiled. The last, smaller batch of an epoch and all evaluation run the same code as without
compilation. Stochastic depth has another probability in each block. Here its factors are drawn before each step, and
are an input of the blocks, so that blocks share a graph and recomputation needs no random numbers.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd
from torch.utils.checkpoint import checkpoint

from bench.config.settings import TrainConfig, TransformConfig
from bench.datasets import Features
from bench.training.batch_loss import batch_loss
from bench.training.data_parallel import Share
from bench.training.static_step import StaticStep
from models.core.activation_checkpointing import Recomputed
from models.core.registry import InvalidModel


class Compiled:
    """The compiled regions of a model. Within the context the model runs compiled for whole batches; afterwards it is as
    before. Without ``train.compile`` nothing happens."""

    def __init__(self, model: nn.Module, config: TrainConfig, share: Share = Share()) -> None:
        self.model, self.config, self.share = model, config, share
        self.seconds: float | None = None
        self._sizes: set[int] = set()  # numbers of images that are compiled
        self._depth: _StochasticDepth | None = None
        self._step: StaticStep | None = None
        self._stack = ExitStack()

    def __enter__(self) -> "Compiled":
        if self.config.compile:
            with ExitStack() as stack:  # which takes everything back if something fails here
                torch.compiler.reset()  # graphs of an earlier trial in this process count towards torch's limit
                stack.enter_context(torch._dynamo.config.patch(fail_on_recompile_limit_hit=True))
                stack.enter_context(torch.compiler.set_stance("force_eager"))
                stack.enter_context(_attention_is_not_random())
                for region in regions(self.model):
                    stack.callback(_compile(region))
                self._depth = stack.enter_context(_StochasticDepth(self.model))
                self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._step = None  # and with it the memory of the graph
        self._stack.close()

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
        if self._step is not None and len(self._step) == len(images):
            return self._step(images, masks)
        return self._compute(model, images, masks, transform, scaler)

    def _compute(
        self,
        model: nn.Module,
        images: Tensor | Features,
        masks: Tensor,
        transform: TransformConfig,
        scaler: torch.amp.GradScaler,
    ) -> Tensor:
        if self._depth is not None:
            self._depth.draw(len(images))
        total = torch.zeros((), device=masks.device)
        for part, weight in self.share.micro_batches(len(images), self.config.accumulate):
            with self._running(part):
                loss = batch_loss(model, images[part], masks[part], self.config, transform) * weight
                scaler.scale(loss).backward()
            total += loss.detach()
        return total

    @contextmanager
    def _running(self, part: slice) -> Iterator[None]:
        """The context of the forward and backward pass for these images of a batch."""
        if self._depth is not None:
            self._depth.choose(part)
        if part.stop - part.start not in self._sizes:
            yield
            return
        with torch.compiler.set_stance("default"):
            yield

    def warm_up(
        self,
        images: Tensor | Features,
        masks: Tensor,
        transform: TransformConfig,
        scaler: torch.amp.GradScaler,
    ) -> None:
        """Compiles in one step, records the step for ``train.compile: step``, and measures the time of both.

        Weights, buffers and random states stay as they are. The arguments are those of ``gradients``. Raises
        ``InvalidModel`` where a step cannot be recorded.
        """
        began = time.perf_counter()
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        buffers = {name: buffer.clone() for name, buffer in self.model.named_buffers()}
        parts = [part for part, _ in self.share.micro_batches(len(images), self.config.accumulate)]
        self._sizes = {part.stop - part.start for part in parts}
        with torch.random.fork_rng():
            self._compute(self.model, images, masks, transform, scaler)
            self.model.zero_grad(set_to_none=True)
            if self.config.compile == "step":
                self._record(images, masks, transform, scaler, trained)
        with torch.no_grad():
            for name, buffer in self.model.named_buffers():
                if name in buffers:
                    buffer.copy_(buffers[name])
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.seconds = time.perf_counter() - began

    def _record(
        self,
        images: Tensor,
        masks: Tensor,
        transform: TransformConfig,
        scaler: torch.amp.GradScaler,
        trained: Sequence[nn.Parameter],
    ) -> None:
        if any(_drops(part) for part in self.model.modules() if isinstance(part.__dict__.get("forward"), Recomputed)):
            raise InvalidModel("train.compile: a step with recomputed dropout cannot be recorded. Set it to blocks")

        def compute(images: Tensor, masks: Tensor) -> Tensor:
            return self._compute(self.model, images, masks, transform, scaler)

        self._step = StaticStep(compute, images, masks, trained)


def regions(model: nn.Module) -> list[nn.Module]:
    """Returns the modules that are compiled, each on its own."""
    decoder = model.decoder
    parts = getattr(decoder, "compiled_parts", None)
    if parts is None:
        stages = [module for module in decoder.modules() if isinstance(module.__dict__.get("forward"), Recomputed)]
        parts = stages or [decoder]
    return [*model.encoder.blocks, *parts]


def _compile(module: nn.Module) -> Callable[[], None]:
    """Compiles a module in place; returns a function that takes it back."""
    forward = module.__dict__.get("forward")
    if isinstance(forward, Recomputed) and not forward.has_statistics and not _drops(module):
        forward.whole = torch.compile(_recomputing, dynamic=False)
        return lambda: setattr(forward, "whole", None)
    if isinstance(forward, Recomputed):
        plain, forward.inner = forward.inner, torch.compile(forward.inner, dynamic=False)
        return lambda: setattr(forward, "inner", plain)
    module.compile(dynamic=False)
    return lambda: setattr(module, "_compiled_call_impl", None)


def _drops(module: nn.Module) -> bool:
    return any(isinstance(part, _DropoutNd) and part.p > 0 for part in module.modules())


def _recomputing(stage: nn.Module, *inputs: Tensor) -> Any:
    """Compiled together with its recomputation: the backward pass then leaves out what it does not need, which in a
    frozen block is the last matrix product."""
    return checkpoint(partial(type(stage).forward, stage), *inputs, use_reentrant=False)


@contextmanager
def _attention_is_not_random() -> Iterator[None]:
    """Some versions of torch (2.11) store the state of the random numbers for recomputed attention, which might drop
    weights, and a CUDA graph cannot do that. Here nothing in a recomputed region is random."""
    from torch._functorch import partitioners  # takes two seconds, and every command loads this file

    name = "functionalize_rng_ops"
    stored = getattr(partitioners, name, None)
    if stored is not None:
        setattr(partitioners, name, lambda joint, forward, backward, symbols: (forward, backward))
    try:
        yield
    finally:
        if stored is not None:
            setattr(partitioners, name, stored)


class _StochasticDepth:
    """Draws the factors of stochastic depth for a whole batch before its step. Afterwards the model is as before."""

    def __init__(self, model: nn.Module) -> None:
        self._modules = [module for module in model.encoder.modules() if type(module).__name__ == "DropPath"]
        self._kinds = [type(module) for module in self._modules]
        keep = [[1.0 - module.drop_prob] for module in self._modules]
        self._keep = torch.tensor(keep, device=next(model.parameters()).device)
        self._factors: Tensor | None = None

    def __enter__(self) -> "_StochasticDepth":
        for module in self._modules:
            module.__class__ = _DropPath
            module.register_buffer("factor", None, persistent=False)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for module, kind_before in zip(self._modules, self._kinds):
            del module.factor
            module.__class__ = kind_before

    def draw(self, images: int) -> None:
        """Draws the factors, float32 [modules, images]: 0 where a sample's branch is dropped, else 1 / (1 - p)."""
        if self._modules:
            draws = torch.rand((len(self._modules), images), device=self._keep.device)
            self._factors = (draws < self._keep) / self._keep

    def choose(self, part: slice) -> None:
        """Gives each module the factors of a micro-batch."""
        for i, module in enumerate(self._modules):
            module.factor = self._factors[i, part]


class _DropPath(nn.Module):
    """timm's ``DropPath`` with factors that are drawn before the step."""

    factor: Tensor
    """float32 [B]."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        return x * self.factor.to(x.dtype).view(-1, *(1,) * (x.dim() - 1))
