"""Every trial checks itself: what should learn did learn, and what is frozen has not moved by a single bit."""

import hashlib

import torch
from torch import Tensor, nn

from models.core.encoder_decoder import part_of


class CheckFailed(Exception):
    """A trial whose numbers would not mean what the table says."""


class GradientCheck:
    """Watches, from the first backward pass on, whether every adapter parameter receives a gradient other than zero."""

    def __init__(self, model: nn.Module) -> None:
        self.unseen = {n: p for n, p in model.named_parameters() if p.requires_grad and part_of(n) == "adapter"}

    def look(self) -> None:
        """Call after each backward pass; costs nothing once all have been seen."""
        seen = [n for n, p in self.unseen.items() if p.grad is not None and bool(p.grad.any())]
        for name in seen:
            del self.unseen[name]

    def finish(self) -> None:
        """Raises ``CheckFailed`` with the names of the parameters that never received a gradient."""
        if self.unseen:
            raise CheckFailed(f"no gradient ever reached {', '.join(sorted(self.unseen))}")


def frozen_digests(model: nn.Module) -> dict[str, str]:
    """A hash of the bits of every parameter that is not trained, by name."""
    return {n: tensor_digest(p) for n, p in model.named_parameters() if not p.requires_grad}


def check_frozen(model: nn.Module, before: dict[str, str]) -> None:
    """Raises ``CheckFailed`` with the names of frozen parameters that changed since ``frozen_digests``."""
    after = frozen_digests(model)
    changed = sorted(name for name in before if after.get(name) != before[name])
    if changed:
        raise CheckFailed(f"frozen, yet changed by training: {', '.join(changed)}")


def tensor_digest(tensor: Tensor) -> str:
    """32 hex digits over the bytes of a tensor."""
    data = tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy()
    return hashlib.blake2b(data, digest_size=16).hexdigest()
