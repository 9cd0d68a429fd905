"""The training loop: upstream's recipe by default, the same on every device, and nothing else."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from bench.config.settings import LOSSES, TrainConfig, TransformConfig
from bench.datasets import Data, Split
from bench.datasets.core.transforms import flip, has_ignored, to_input, to_target
from bench.training.checks import GradientCheck
from bench.training.data_parallel import Share, check_ranks_agree, distribute
from models.core.encoder_decoder import layers_of, part_of


@dataclass(frozen=True)
class Epoch:
    """One epoch as the training curve shows it. ``val_loss`` is ``None`` where the split was not looked at."""

    epoch: int  # counted from 1
    train_loss: float  # mean over the batches
    val_loss: float | None
    lr: float


class Diverged(Exception):
    """The loss is no longer a number, first at ``step``, counted from 1 over all epochs; ``curve`` is from before."""

    def __init__(self, text: str, step: int, curve: tuple[Epoch, ...]) -> None:
        super().__init__(text)
        self.step, self.curve = step, curve


@dataclass
class Training:
    """All that the loop goes on from after an epoch, beside the random states that belong to the process."""

    model: nn.Module
    optimiser: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    draws: torch.Generator
    gradients: GradientCheck
    curve: list[Epoch]
    steps: int = 0
    images: int = 0
    seconds: float = 0.0


class Resume(Protocol):
    """Where a training that may be cut short is kept (``bench.training.training_state``)."""

    def restore(self, training: Training) -> None:
        """Puts the state of the last kept epoch in; leaves all as it is if there is none."""

    def after_epoch(self, training: Training) -> None:
        """May keep the state."""


@dataclass(frozen=True)
class TrainResult:
    curve: tuple[Epoch, ...]
    steps: int
    images: int
    seconds: float  # in training steps only, without validation


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
    resume: Resume | None = None,
    share: Share = Share(),
) -> TrainResult:
    """Trains the trainable parameters in place. Raises ``Diverged`` and ``CheckFailed``.

    Order and flips come from a generator of their own on the CPU, so that two models of one seed see the same batches
    and a GPU sees those of a CPU. ``on_epoch`` hears of the epochs before a resumption too. ``on_step`` is called after
    every batch, of validation too: a sign of life. Several ranks that each have a ``share`` train the same model
    together; only rank 0 looks at the validation split.
    """
    draws = torch.Generator().manual_seed(seed)
    gradients = GradientCheck(model)
    wrapped = distribute(model, share)
    optimiser = make_optimiser(model, config)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, config.epochs, eta_min=config.min_lr)
    state = Training(model, optimiser, schedule, draws, gradients, [])
    if resume is not None:
        resume.restore(state)
        for epoch in state.curve:
            on_epoch(epoch)
    for epoch in range(len(state.curve) + 1, config.epochs + 1):
        started = time.perf_counter()
        model.train()
        total = torch.zeros((), device=device)
        sound = torch.zeros((), dtype=torch.int64, device=device)  # steps before the sum is no longer a number
        batches = torch.randperm(len(data.train), generator=draws).split(config.batch_size)
        for chosen in batches:
            images, masks = flip(*data.train.batch(chosen.numpy(), device), transform, draws)
            optimiser.zero_grad(set_to_none=True)
            part = share.part(len(images))
            loss = batch_loss(wrapped, images[part], masks[part], config, transform) * share.weight(len(images))
            loss.backward()
            state.gradients.look()
            optimiser.step()
            total += loss.detach()
            sound += total.isfinite()
            on_step()
        mean_loss = share.mean(total).item() / len(batches)
        state.seconds += time.perf_counter() - started
        if not math.isfinite(mean_loss):
            step = state.steps + int(sound) + 1
            text = f"the loss became {mean_loss} at step {step}, batch {int(sound) + 1} of {len(batches)} in epoch "
            raise Diverged(f"{text}{epoch} of {config.epochs}", step, tuple(state.curve))
        state.steps += len(batches)
        state.images += len(data.train)
        val_loss = None
        if share.rank == 0 and config.validate_every and epoch % config.validate_every == 0 and len(data.val):
            val_loss = validate(model, data.val, config, transform, device, on_step)
            if not math.isfinite(val_loss):
                text = (
                    f"the validation loss became {val_loss} after step {state.steps}, epoch {epoch} of {config.epochs}"
                )
                raise Diverged(text, state.steps, tuple(state.curve))
        state.curve.append(Epoch(epoch, mean_loss, val_loss, schedule.get_last_lr()[0]))
        schedule.step()
        on_epoch(state.curve[-1])
        if resume is not None:
            resume.after_epoch(state)
    broken = [name for name, p in model.named_parameters() if p.requires_grad and not p.isfinite().all()]
    if broken:  # the last step's gradient was no number, though its loss was
        text = f"after the last step, {state.steps}, these are no numbers: {', '.join(broken[:5])}"
        raise Diverged(text, state.steps, tuple(state.curve))
    state.gradients.finish()
    check_ranks_agree(model, share)
    return TrainResult(tuple(state.curve), state.steps, state.images, state.seconds)


def batch_loss(
    model: nn.Module, images: Tensor, masks: Tensor, config: TrainConfig, transform: TransformConfig
) -> Tensor:
    """Loss of a batch, images uint8 [B, H, W, 3] and masks [B, H, W]: the sum over the model's logits maps."""
    targets, counted = _targets(masks, config)
    with torch.autocast(images.device.type, torch.bfloat16, enabled=config.precision == "bfloat16"):
        answers = model(to_input(images, transform.normalisation))
    loss = LOSSES.module(config.loss).loss
    return sum(loss(logits.float(), targets, counted) for logits in answers)


def _targets(masks: Tensor, config: TrainConfig) -> tuple[Tensor, Tensor | None]:
    """What the loss compares with, and which of its pixels count; ``None`` is all."""
    targets = to_target(masks, LOSSES.module(config.loss).FOR_CLASSES)
    if not has_ignored(masks):
        return targets, None
    counted = targets >= 0
    return targets * counted, counted.float()


def make_optimiser(model: nn.Module, config: TrainConfig, foreach: bool | None = None) -> torch.optim.AdamW:
    """AdamW over what trains. ``foreach``: all tensors at once, which torch itself chooses on a GPU."""
    return torch.optim.AdamW(_groups(model, config), lr=config.lr, weight_decay=config.weight_decay, foreach=foreach)


def _groups(model: nn.Module, config: TrainConfig) -> list[dict[str, Any]]:
    """Trainable parameters: adapters, decoder and whatever else is new first, then the encoder's own weights."""
    new, tuned = [], []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            (tuned if part_of(name) == "encoder" else new).append(parameter)
    layers = {0: tuned}
    if config.layer_decay < 1:
        layers = {}
        for parameter, distance in layers_of(model):
            layers.setdefault(distance, []).append(parameter)
    rate = config.lr * config.encoder_lr_scale
    groups = [{"params": new}]
    groups += [{"params": layers[i], "lr": rate * config.layer_decay**i} for i in sorted(layers)]
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
    """Mean loss of the answers over a split, in eval mode, without flips."""
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
