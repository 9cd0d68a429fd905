"""The training loop: upstream's recipe by default, the same on every device."""

import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from bench.config.settings import LOSSES, TrainConfig, TransformConfig
from bench.datasets import Data, Split
from bench.datasets.core.prefetch import Batch, batches
from bench.datasets.core.transforms import flip, to_input
from bench.training.batch_loss import targets_of
from bench.training.checks import GradientCheck
from bench.training.compiled import Compiled
from bench.training.data_parallel import Share, check_processes_agree, distribute
from bench.training.optimiser import make_optimiser
from bench.training.precision import SMALLEST_SCALE, MeanLoss, make_scaler, skipped_steps


@dataclass(frozen=True)
class Epoch:
    """One point of the training curve."""

    epoch: int  # counted from 1
    train_loss: float  # mean over the batches
    val_loss: float | None  # None where the validation split was not used
    lr: float


class Diverged(Exception):
    """The loss became NaN or infinite, first at ``step``, counted from 1 over all epochs. ``curve`` ends before it."""

    def __init__(self, text: str, step: int, curve: list[Epoch]) -> None:
        super().__init__(text)
        self.step, self.curve = step, tuple(curve)


@dataclass
class Training:
    """The state of a training run after an epoch, without the random states of the process."""

    model: nn.Module
    optimiser: torch.optim.Optimizer
    lr_schedule: torch.optim.lr_scheduler.LRScheduler
    generator: torch.Generator
    """Draws the order of the images and their flips."""
    gradients: GradientCheck
    scaler: torch.amp.GradScaler
    """Scale of the loss; it is disabled unless the precision is float16."""
    curve: list[Epoch]
    steps: int = 0
    images: int = 0
    seconds: float = 0.0
    observed: bool = False
    """Whether this process has observed a step."""


class Resume(Protocol):
    """Storage for the state of a training run that may be interrupted (``bench.training.training_state``)."""

    def restore(self, training: Training) -> None:
        """Loads the state of the last stored epoch; without one it changes nothing."""

    def after_epoch(self, training: Training) -> None:
        """Stores the state if it is due."""


class Meter(Protocol):
    """Measures the training steps of each epoch, for example their energy (``bench.memory.energy``)."""

    def start(self) -> None:
        """Is called before the steps."""

    def stop(self, images: int) -> None:
        """Is called after the steps, which took this number of images."""


@dataclass(frozen=True)
class TrainResult:
    curve: tuple[Epoch, ...]
    steps: int
    images: int
    seconds: float  # in training steps only, without validation and compilation
    skipped: int | None = None  # steps whose gradients overflowed; None unless the precision is float16
    compile_seconds: float | None = None  # None without train.compile

    @property
    def timing(self) -> dict[str, float | None]:
        """The fields of ``bench.records.record.Timing`` that training decides."""
        speed = self.images / self.seconds
        return {
            "train_seconds": self.seconds,
            "train_images_per_second": speed,
            "compile_seconds": self.compile_seconds,
        }

    @property
    def notes(self) -> list[str]:
        """Notes for the readers of the record."""
        why = "their gradients overflowed float16, so that they changed no weight"
        return [f"{self.skipped} of {self.steps} steps were skipped: {why}"] if self.skipped else []


Observe = Callable[[nn.Module, torch.optim.Optimizer], AbstractContextManager]
"""Returns a context in which one training step of the model runs; it may not change the step."""


@dataclass(frozen=True)
class _Setup:
    """Everything that stays the same during a training run."""

    parallel_model: nn.Module  # the model, or its data-parallel wrapper
    data: Data
    config: TrainConfig
    transform: TransformConfig
    device: torch.device
    share: Share
    on_step: Callable[[], Any]
    observe: Observe | None
    meter: Meter | None
    compiled: Compiled


def train(
    model: nn.Module,
    data: Data,
    config: TrainConfig,
    transform: TransformConfig,
    device: torch.device,
    *,
    seed: int,
    on_epoch: Callable[[Epoch], Any] = lambda epoch: None,
    on_step: Callable[[], Any] = lambda: None,
    observe: Observe | None = None,
    resume: Resume | None = None,
    share: Share = Share(),
    meter: Meter | None = None,
) -> TrainResult:
    """Trains the trainable parameters in place. Raises ``Diverged`` and ``CheckFailed``.

    Order and flips come from a generator of their own on the CPU. Two models with the same seed therefore get the same
    batches, and so do a GPU and a CPU. ``on_epoch`` is called for the epochs before a resumption, too. ``on_step`` is
    called after every batch, also in validation, to show progress. ``observe`` gets the first step of a whole batch in
    which the optimiser's moments exist, unless it is compiled. Several processes, each with its ``share``, train the
    same model together; only the first one uses the validation split.
    """
    generator = torch.Generator().manual_seed(seed)
    gradients = GradientCheck(model)
    parallel_model = distribute(model, share)
    compiled = Compiled(model, config, share)
    setup = _Setup(parallel_model, data, config, transform, device, share, on_step, observe, meter, compiled)
    optimiser = make_optimiser(model, config)
    lr_schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, config.epochs, eta_min=config.min_lr)
    state = Training(model, optimiser, lr_schedule, generator, gradients, make_scaler(device, config.precision), [])
    if resume is not None:
        resume.restore(state)
        for epoch in state.curve:
            on_epoch(epoch)
    with compiled:
        _compile(state, setup)
        for number in range(len(state.curve) + 1, config.epochs + 1):
            train_loss = _train_epoch(state, setup, number)
            val_loss = _validate_epoch(state, setup, number)
            state.curve.append(Epoch(number, train_loss, val_loss, lr_schedule.get_last_lr()[0]))
            lr_schedule.step()
            on_epoch(state.curve[-1])
            if resume is not None:
                resume.after_epoch(state)
    _check_finite(state)
    gradients.check()
    check_processes_agree(model, share)
    skipped = skipped_steps(optimiser, state.steps) if state.scaler.is_enabled() else None
    return TrainResult(tuple(state.curve), state.steps, state.images, state.seconds, skipped, compiled.seconds)


def _compile(state: Training, setup: _Setup) -> None:
    """Compiles with the first images, if ``train.compile`` asks for it and an epoch is left to train."""
    if not setup.config.compile or len(state.curve) == setup.config.epochs:
        return
    state.model.train()
    first = np.arange(min(setup.config.batch_size, len(setup.data.train)))
    setup.compiled.warm_up(*setup.data.train.batch(first, setup.device), setup.transform, state.scaler)


def _train_epoch(state: Training, setup: _Setup, number: int) -> float:
    """Takes the training steps of one epoch and returns their mean loss. Raises ``Diverged``."""
    data, device = setup.data.train, setup.device
    if setup.meter:
        setup.meter.start()
    started = time.perf_counter()
    state.model.train()
    losses = MeanLoss(device, overflows=state.scaler.is_enabled())
    order = torch.randperm(len(data), generator=state.generator).split(setup.config.batch_size)
    read = batches(data, [chosen.numpy() for chosen in order], device)
    for chosen in order:
        state.optimiser.zero_grad(set_to_none=True)
        with _observed(state, setup, len(chosen)):
            loss = _step(state, setup, next(read))
        losses.add(loss)
        setup.on_step()
    mean_loss = losses.mean(setup.share, len(order))
    state.seconds += time.perf_counter() - started
    if setup.meter:
        setup.meter.stop(len(data))
    if state.scaler.is_enabled() and state.scaler.get_scale() < SMALLEST_SCALE:
        text = f"the gradients overflow float16 up to step {state.steps + len(order)}, although the loss is scaled down"
        raise Diverged(f"{text}. Set a lower train.lr or train.precision=float32", state.steps + 1, state.curve)
    if not math.isfinite(mean_loss):
        batch = int(losses.finite_steps) + 1
        where = f"step {state.steps + batch}, batch {batch} of {len(order)} in epoch {number} of {setup.config.epochs}"
        raise Diverged(f"the loss became {mean_loss} at {where}", state.steps + batch, state.curve)
    state.steps += len(order)
    state.images += len(data)
    return mean_loss


def _observed(state: Training, setup: _Setup, images: int) -> AbstractContextManager:
    """Returns the context of a step: ``observe`` for the first step of a whole batch with moments, else nothing."""
    usual = state.optimiser.state and images == min(setup.config.batch_size, len(setup.data.train))
    if setup.observe is None or state.observed or setup.config.compile or not usual:
        return nullcontext()
    state.observed = True
    return setup.observe(state.model, state.optimiser)


def _step(state: Training, setup: _Setup, batch: Batch) -> Tensor:
    """Takes a training step on a batch of the training split, and returns its loss."""
    images, masks = flip(batch.images, batch.masks, setup.transform, state.generator)
    loss = setup.compiled.gradients(setup.parallel_model, images, masks, setup.transform, state.scaler)
    state.gradients.update()
    state.scaler.step(state.optimiser)
    state.scaler.update()
    return loss


def _validate_epoch(state: Training, setup: _Setup, number: int) -> float | None:
    """Returns the validation loss; ``None`` where validation is not due. Raises ``Diverged``."""
    split, config = setup.data.val, setup.config
    due = config.validate_every and number % config.validate_every == 0 and len(split)
    if setup.share.rank or not due:
        return None
    loss = validate(state.model, split, config, setup.transform, setup.device, setup.on_step)
    if not math.isfinite(loss):
        where = f"after step {state.steps}, epoch {number} of {config.epochs}"
        raise Diverged(f"the validation loss became {loss} {where}", state.steps, state.curve)
    return loss


def _check_finite(state: Training) -> None:
    """Raises ``Diverged`` for weights that are not finite. The last step may have a finite loss and a NaN gradient."""
    trained = [(name, p) for name, p in state.model.named_parameters() if p.requires_grad]
    broken = [name for name, parameter in trained if not parameter.isfinite().all()]
    if broken:
        names = ", ".join(broken[:5])
        text = f"after the last step, {state.steps}, these weights are not finite (NaN or infinity): {names}"
        raise Diverged(text, state.steps, state.curve)


@torch.no_grad()
def validate(
    model: nn.Module,
    split: Split,
    config: TrainConfig,
    transform: TransformConfig,
    device: torch.device,
    on_step: Callable[[], Any] = lambda: None,
) -> float:
    """Computes the mean loss of the first logits map over a split, in eval mode, without flips."""
    model.eval()
    loss = LOSSES.module(config.loss).loss
    total = torch.zeros((), device=device)
    order = np.split(np.arange(len(split)), range(config.batch_size, len(split), config.batch_size))
    for images, masks, _ in batches(split, order, device):
        logits = model(to_input(images, transform.normalisation))[0]
        total += loss(logits, *targets_of(masks, config)) * len(masks)
        on_step()
    return total.item() / len(split)
