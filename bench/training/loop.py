"""The training loop: upstream's recipe by default, the same on every device."""

import math
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from bench.config.settings import LOSSES, TrainConfig, TransformConfig
from bench.datasets import Data, Features, Split
from bench.datasets.core.transforms import flip, has_ignored, to_input, to_target
from bench.training.checks import GradientCheck
from bench.training.data_parallel import Share, check_processes_agree, distribute
from models.core.encoder_decoder import layers_of, part_of


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


@dataclass(frozen=True)
class TrainResult:
    curve: tuple[Epoch, ...]
    steps: int
    images: int
    seconds: float  # in training steps only, without validation


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
) -> TrainResult:
    """Trains the trainable parameters in place. Raises ``Diverged`` and ``CheckFailed``.

    Order and flips come from a generator of their own on the CPU. Two models with the same seed therefore get the same
    batches, and so do a GPU and a CPU. ``on_epoch`` is called for the epochs before a resumption, too. ``on_step`` is
    called after every batch, also in validation, to show progress. ``observe`` gets the first step of a whole batch in
    which the optimiser's moments exist. Several processes, each with its ``share``, train the same model together;
    only the first one uses the validation split.
    """
    generator = torch.Generator().manual_seed(seed)
    gradients = GradientCheck(model)
    setup = _Setup(distribute(model, share), data, config, transform, device, share, on_step, observe)
    optimiser = make_optimiser(model, config)
    lr_schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, config.epochs, eta_min=config.min_lr)
    state = Training(model, optimiser, lr_schedule, generator, gradients, [])
    if resume is not None:
        resume.restore(state)
        for epoch in state.curve:
            on_epoch(epoch)
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
    return TrainResult(tuple(state.curve), state.steps, state.images, state.seconds)


def _train_epoch(state: Training, setup: _Setup, number: int) -> float:
    """Takes the training steps of one epoch and returns their mean loss. Raises ``Diverged``."""
    data, share, device = setup.data.train, setup.share, setup.device
    started = time.perf_counter()
    state.model.train()
    total = torch.zeros((), device=device)
    finite_steps = torch.zeros(
        (), dtype=torch.int64, device=device
    )  # counted on the device, without a synchronisation in each step
    batches = torch.randperm(len(data), generator=state.generator).split(setup.config.batch_size)
    for chosen in batches:
        state.optimiser.zero_grad(set_to_none=True)
        with _observed(state, setup, len(chosen)):
            loss = _step(state, setup, chosen.numpy())
        total += loss
        finite_steps += total.isfinite()
        setup.on_step()
    mean_loss = share.mean(total).item() / len(batches)
    state.seconds += time.perf_counter() - started
    if not math.isfinite(mean_loss):
        batch = int(finite_steps) + 1
        where = (
            f"step {state.steps + batch}, batch {batch} of {len(batches)} in epoch {number} of {setup.config.epochs}"
        )
        raise Diverged(f"the loss became {mean_loss} at {where}", state.steps + batch, state.curve)
    state.steps += len(batches)
    state.images += len(data)
    return mean_loss


def _observed(state: Training, setup: _Setup, images: int) -> AbstractContextManager:
    """Returns the context of a step: ``observe``, once, in a step as all others but the first and the last are."""
    usual = state.optimiser.state and images == min(setup.config.batch_size, len(setup.data.train))
    if setup.observe is None or state.observed or not usual:
        return nullcontext()
    state.observed = True
    return setup.observe(state.model, state.optimiser)


def _step(state: Training, setup: _Setup, chosen: np.ndarray) -> Tensor:
    """Takes a training step on some pairs of the training split, and returns its loss."""
    images, masks = flip(*setup.data.train.batch(chosen, setup.device), setup.transform, state.generator)
    part = setup.share.part(len(images))
    loss = batch_loss(setup.parallel_model, images[part], masks[part], setup.config, setup.transform)
    loss = loss * setup.share.weight(len(images))
    loss.backward()
    state.gradients.update()
    state.optimiser.step()
    return loss.detach()


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


def batch_loss(
    model: nn.Module, images: Tensor | Features, masks: Tensor, config: TrainConfig, transform: TransformConfig
) -> Tensor:
    """Computes the loss of a batch, images uint8 [B, H, W, 3] and masks [B, H, W]: the sum over all logits maps."""
    targets, counted = _targets(masks, config)
    with torch.autocast(masks.device.type, torch.bfloat16, enabled=config.precision == "bfloat16"):
        outputs = model(to_input(images, transform.normalisation))
    loss = LOSSES.module(config.loss).loss
    return sum(loss(logits.float(), targets, counted) for logits in outputs)


def _targets(masks: Tensor, config: TrainConfig) -> tuple[Tensor, Tensor | None]:
    """Returns the target of the loss, and which pixels count; ``None`` means all pixels."""
    targets = to_target(masks, LOSSES.module(config.loss).FOR_CLASSES)
    if not has_ignored(masks):
        return targets, None
    counted = targets >= 0
    return targets * counted, counted.float()


def make_optimiser(model: nn.Module, config: TrainConfig, foreach: bool | None = None) -> torch.optim.AdamW:
    """Makes AdamW for the trainable parameters. ``foreach`` updates all tensors at once, torch's default on a GPU."""
    return torch.optim.AdamW(_groups(model, config), lr=config.lr, weight_decay=config.weight_decay, foreach=foreach)


def _groups(model: nn.Module, config: TrainConfig) -> list[dict[str, Any]]:
    """Groups the trainable parameters: first those of adapters, decoder and other new parts, then the encoder's own."""
    new, tuned = [], []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            group = tuned if part_of(name) == "encoder" else new
            group.append(parameter)
    if config.layer_decay == 1:
        layers = {0: tuned}
    else:
        layers = defaultdict(list)
        for parameter, distance in layers_of(model):
            layers[distance].append(parameter)
    rate = config.lr * config.encoder_lr_scale
    groups = [{"params": new}]
    for distance in sorted(layers):
        groups.append({"params": layers[distance], "lr": rate * config.layer_decay**distance})
    return [group for group in groups if group["params"]]


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
    for start in range(0, len(split), config.batch_size):
        chosen = np.arange(start, min(start + config.batch_size, len(split)))
        images, masks = split.batch(chosen, device)
        logits = model(to_input(images, transform.normalisation))[0]
        total += loss(logits, *_targets(masks, config)) * len(chosen)
        on_step()
    return total.item() / len(split)
