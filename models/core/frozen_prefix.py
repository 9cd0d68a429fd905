"""A model cut behind the blocks that never change: what they make of an image is always the same and can be kept."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from models.core.encoder_decoder import EncoderDecoder

WORTH = 0.25
"""Below this share of the encoder's blocks, reading what they give costs about as much as computing it."""
NUMBERED = torch.int64
"""Type of images that are given by number; pixels are floats."""


class NoFrozenPrefix(ValueError):
    """A model of which no part can be kept; the text says why."""


def frozen_prefix(model: nn.Module) -> int:
    """How many of the encoder's first blocks can be kept: nothing before or in them is trained or left to chance.

    Raises ``NoFrozenPrefix`` where there are none, or too few.
    """
    encoder = getattr(model, "encoder", None)
    if not isinstance(model, EncoderDecoder):
        raise NoFrozenPrefix(f"{type(model).__name__} is no frozen encoder with a decoder")
    if not hasattr(encoder, "cuts"):
        raise NoFrozenPrefix(f"{type(encoder).__name__} cannot be cut between its blocks")
    blocks = list(encoder.blocks)
    inside = {id(module) for block in blocks for module in block.modules()}
    stem = [module for module in encoder.modules() if id(module) not in inside]
    reason = next(_changes(stem), None)
    if reason:
        raise NoFrozenPrefix(f"outside of the blocks {reason}")
    count = 0
    for count, block in enumerate([*blocks, None]):
        reason = None if block is None else next(_changes(block.modules()), None)
        if reason:
            break
    kept = max((cut for cut in encoder.cuts if cut <= count), default=0)
    if kept < WORTH * len(blocks):
        obstacle = f"in block {count} {reason}" if reason else "it cannot be cut there"
        raise NoFrozenPrefix(f"only {kept} of {len(blocks)} blocks always give the same: {obstacle}")
    return kept


def _changes(modules: Iterator[nn.Module]) -> Iterator[str]:
    """Why the output of these modules, taken alone, may differ between two looks at the same image in training."""
    for module in modules:
        kind = type(module).__name__
        if any(parameter.requires_grad for parameter in module.parameters(recurse=False)):
            yield f"{kind} is trained"
        chance = max((getattr(module, name, None) or 0 for name in ("p", "prob", "drop_prob")), default=0)
        if "drop" in kind.lower() and chance > 0:
            yield f"{kind} is active at {chance:.3g} (model.encoder.drop_path=0 turns stochastic depth off)"
        if isinstance(module, _BatchNorm):
            yield f"{kind} depends on the batch"


class Continued(EncoderDecoder):
    """A model that is handed images by number, and asks ``recall`` for what enters block ``start`` of its encoder.

    It consists of the parts of ``model``, under the same names, so whatever is trained is trained there. Images that
    are given as pixels go through the whole of it.
    """

    def __init__(
        self,
        model: EncoderDecoder,
        start: int,
        size: tuple[int, int],
        recall: Callable[[Tensor], tuple[Tensor, ...]],
    ) -> None:
        """size: [H, W] of the images; recall: numbers int64 [B, ...] -> what ``encoder.run_to`` gave for them."""
        super().__init__(model.encoder, model.decoder)
        self.start, self.size, self.recall = start, torch.Size(size), recall

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """images [B, 3, H, W], normalised, or numbers int64 [B, ...] -> logits, as ``EncoderDecoder``."""
        if images.dtype != NUMBERED:
            return super().forward(images)
        return self.decoder(self.encoder.run_from(self.recall(images), self.start), self.size)
