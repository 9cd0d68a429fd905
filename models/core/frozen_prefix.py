"""A model cut behind the blocks that never change: their output for an image is always the same and can be cached."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from models.core.encoder_decoder import EncoderDecoder

WORTH = 0.25
"""Smallest share of the encoder's blocks. Below it, reading their output takes about as long as computing it."""


class NoFrozenPrefix(ValueError):
    """A model of which no part can be cached; the text gives the reason."""


def frozen_prefix(model: nn.Module) -> int:
    """Counts the encoder's first blocks that can be cached: nothing before or in them is trained or random.

    Raises ``NoFrozenPrefix`` if there are none, or too few.
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
    """Yields reasons why the output of these modules for one image may change between two epochs of training."""
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
    """A model that continues from the output of its encoder's first ``start`` blocks.

    It consists of the parts of ``model``, under the same names, so that training changes the weights of ``model``.
    """

    def __init__(self, model: EncoderDecoder, start: int, size: tuple[int, int]) -> None:
        """size: [H, W] of the images."""
        super().__init__(model.encoder, model.decoder)
        self.start, self.size = start, torch.Size(size)

    def forward(self, inputs: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Takes the output of ``encoder.run_to``, or images [B, 3, H, W], normalised. Returns logits as
        ``EncoderDecoder`` does."""
        if isinstance(inputs, Tensor):
            return super().forward(inputs)
        return self.decoder(self.encoder.run_from(inputs, self.start), self.size)
