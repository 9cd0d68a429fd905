"""The number types of a training step: autocast, the scale of the loss in float16, and steps that overflow.

float16 has 5 bits of exponent: small gradients become 0. The loss is therefore multiplied by a scale and the gradients
are divided by it. Where a gradient overflows, the optimiser's step is skipped and the scale halved, as in
``torch.amp.GradScaler``; after 2,000 steps without overflow it is doubled.
"""

import math

import torch
from torch import Tensor

from bench.training.data_parallel import Share

AUTOCAST = {"bfloat16": torch.bfloat16, "float16": torch.float16}
"""Types of autocast by ``train.precision``; ``float32`` runs without it."""
SMALLEST_SCALE = 1.0
"""Scale below which training has diverged: gradients overflow although they are not enlarged at all."""


def autocast(device_type: str, precision: str) -> torch.autocast:
    """Returns the context of a training step's forward pass."""
    return torch.autocast(device_type, AUTOCAST.get(precision, torch.bfloat16), enabled=precision in AUTOCAST)


def make_scaler(device: torch.device, precision: str) -> torch.amp.GradScaler:
    """Returns the scaler of the loss, which does nothing unless ``precision`` is float16."""
    return torch.amp.GradScaler(device.type, enabled=precision == "float16")


def skipped_steps(optimiser: torch.optim.Optimizer, steps: int) -> int:
    """Counts the steps, of ``steps``, that were skipped. The optimiser itself counts those that it took, so that no
    step has to wait for the device."""
    taken = [int(state["step"]) for state in optimiser.state.values()]
    return steps - max(taken, default=0)


class MeanLoss:
    """The mean loss of an epoch, counted on the device without a synchronisation in each step."""

    def __init__(self, device: torch.device, overflows: bool) -> None:
        """overflows: whether a loss that is not finite belongs to a skipped step and does not count (float16)."""
        self.total = torch.zeros((), device=device)
        self.finite_steps = torch.zeros((), dtype=torch.int64, device=device)
        self.overflows = overflows

    def add(self, loss: Tensor) -> None:
        """Adds the loss of a step."""
        finite = loss.isfinite()
        self.total += torch.where(finite, loss, 0.0) if self.overflows else loss
        self.finite_steps += finite if self.overflows else self.total.isfinite()

    def mean(self, share: Share, steps: int) -> float:
        """Returns the mean over ``steps`` steps and all processes, which must all call it; NaN if no step counts."""
        total, counted = share.mean(self.total).item(), float(steps)
        if self.overflows:
            counted = share.mean(self.finite_steps.double()).item()
        return total / counted if counted else math.nan
