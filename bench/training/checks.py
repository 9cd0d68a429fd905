"""Checks of every trial: each adapter parameter received a gradient, and frozen weights did not change by a bit."""

import hashlib

import torch
from torch import Tensor, nn

from models.core.encoder_decoder import part_of


class CheckFailed(Exception):
    """The trial did not train what its configuration says, so its numbers must not enter a table."""


class GradientCheck:
    """Checks that every adapter parameter receives a gradient other than zero during training."""

    def __init__(self, model: nn.Module) -> None:
        self.without_gradient = {
            name: p for name, p in model.named_parameters() if p.requires_grad and part_of(name) == "adapter"
        }

    def update(self) -> None:
        """Call it after each backward pass; it costs nothing once all parameters had a gradient."""
        for name, parameter in list(self.without_gradient.items()):
            if parameter.grad is not None and bool(parameter.grad.any()):
                del self.without_gradient[name]

    def check(self) -> None:
        """Raises ``CheckFailed`` with the names of the parameters that never received a gradient."""
        if self.without_gradient:
            raise CheckFailed(f"no gradient ever reached {', '.join(sorted(self.without_gradient))}")


def frozen_digests(model: nn.Module) -> dict[str, str]:
    """Hashes the bits of every parameter that is not trained; returns digests by name."""
    return {n: tensor_digest(p) for n, p in model.named_parameters() if not p.requires_grad}


def check_frozen(model: nn.Module, before: dict[str, str]) -> None:
    """Raises ``CheckFailed`` with the names of frozen parameters that changed since ``frozen_digests``."""
    after = frozen_digests(model)
    changed = sorted(name for name in before if after.get(name) != before[name])
    if changed:
        raise CheckFailed(f"frozen, yet changed by training: {', '.join(changed)}")


def tensor_digest(tensor: Tensor) -> str:
    """Hashes the bytes of a tensor to 32 hex digits."""
    data = tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy()
    return hashlib.blake2b(data, digest_size=16).hexdigest()
