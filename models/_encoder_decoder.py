"""Encoder, adapters, tuned blocks and decoder, assembled: the shape of SAM2-UNet, SAM3-UNet and their variants."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from pydantic import model_validator
from torch import Tensor, nn

from models import _weights
from models._names import Names, renamed
from models._placement import Placement, resolve
from models._registry import Config as Base
from models._registry import Missing, Registry

ENCODERS = Registry("models.encoders", "encoder")
ADAPTERS = Registry("models.adapters", "adapter")
DECODERS = Registry("models.decoders", "decoder")
CHECKPOINT_PREFIXES = ("module.", "")  # as saved from DataParallel, and plain


class Upstream(NamedTuple):
    """The published model that an entry equals: names of its tensors there, place of its checkpoint here."""

    names: Names
    variable: str  # environment variable with the path of the released checkpoint
    file: str  # else this file in weights/
    source: str  # page that links to it


class Config(Base):
    """What a model of this shape is made of."""

    upstream: ClassVar[Upstream | None] = None

    encoder: ENCODERS.field()
    adapter: ADAPTERS.field()
    decoder: DECODERS.field()
    tuned_blocks: Placement = "none"
    """Encoder blocks whose own weights are trained, beside the adapters."""
    tuned_stem: bool = False
    """Train what lies before the first block too (patch and position embedding): full fine-tuning."""
    checkpoint: str | None = None
    """Weights of a whole trained model, put in after building: a path (upstream's names or ours), or ``released``, the
    authors' file. The encoder's own checkpoint is then not needed."""

    @model_validator(mode="after")
    def _has_a_release(self) -> Any:
        if self.checkpoint == "released" and self.upstream is None:
            raise ValueError("checkpoint: nothing was released for this model. Give the path of a file")
        return self

    def checkpoint_path(self) -> Path | None:
        """The file that ``checkpoint`` means. It need not exist."""
        if self.checkpoint != "released" or self.upstream is None:
            return None if self.checkpoint is None else Path(self.checkpoint)
        return Path(os.environ.get(self.upstream.variable, f"weights/{self.upstream.file}"))

    def missing(self) -> Iterator[Missing]:
        path = self.checkpoint_path()
        # a whole model brings its encoder along
        yield from (m for m in super().missing() if path is None or m.field != "encoder.weights")
        if path is not None and not path.is_file():
            remedy = "give the path of an existing file"
            if self.checkpoint == "released" and self.upstream is not None:
                place = f"save it as weights/{self.upstream.file} or point ${self.upstream.variable} at it"
                remedy = f"get the authors' checkpoint through {self.upstream.source}, then {place}"
            yield Missing("weights", "checkpoint", f"{path} does not exist", remedy)

    def weight_files(self) -> Iterator[Path]:
        path = self.checkpoint_path()
        if path is None:
            yield from super().weight_files()
        else:
            yield path


class EncoderDecoder(nn.Module):
    """Frozen encoder with adapters around some blocks, and a decoder; only adapters, tuned blocks and decoder train."""

    def __init__(self, encoder: nn.Module, decoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """images [B, 3, H, W], normalised -> logits, each [B, 1, H, W]; the first is the answer."""
        return self.decoder(self.encoder(images), images.shape[-2:])


def build(config: Config, image_size: int | tuple[int, int], pretrained: bool) -> EncoderDecoder:
    """The model; with ``pretrained`` its encoder's weights are loaded, without it everything is random.

    Raises ``InvalidModel`` for what the encoder or the decoder cannot take, ``WeightsError`` for a wrong checkpoint.
    """
    encoder = ENCODERS.build(config.encoder, image_size)
    if pretrained and config.checkpoint is None:
        encoder.load_pretrained()  # before adapters wrap the blocks and change their names
    encoder.requires_grad_(False)
    decoder = DECODERS.build(config.decoder, encoder.channels)  # before the adapters: they do not change its start
    depth = len(encoder.blocks)
    for i in resolve(config.tuned_blocks, depth, "tuned_blocks"):
        encoder.blocks[i].requires_grad_(True)
    if config.tuned_stem:
        for parameter in encoder.stem_parameters():
            parameter.requires_grad_(True)
    places = resolve(config.adapter.placement, depth, "adapter.placement")
    model = EncoderDecoder(ADAPTERS.build(config.adapter, encoder, places), decoder)
    if pretrained and config.checkpoint is not None:
        load_checkpoint(model, config)
    return model


def load_checkpoint(model: EncoderDecoder, config: Config) -> int:
    """Puts the whole trained model in that ``config.checkpoint`` names; returns the number of tensors.

    Raises ``WeightsError`` unless file and model hold the same tensors, so that adapters must be at the same blocks.
    """
    path = config.checkpoint_path()
    assert path is not None, "config.checkpoint is None"

    def ours(state: dict[str, Tensor]) -> dict[str, Tensor]:
        return state if config.upstream is None else renamed(state, config.upstream.names.ours)

    return _weights.load(model, path, CHECKPOINT_PREFIXES, convert=ours)


def upstream_state(model: EncoderDecoder, config: Config) -> dict[str, Tensor]:
    """The model's tensors under upstream's names: what upstream's own class loads with ``strict=True``."""
    assert config.upstream is not None, f"{config.name} is nobody's model but ours"
    return renamed(model.state_dict(), config.upstream.names.theirs)


def part_of(name: str) -> str:
    """The part of a model that a parameter belongs to, by its dotted name: adapter, encoder, decoder or another."""
    parts = name.split(".")
    return "adapter" if "adapter" in parts else parts[0]


def parameter_counts(model: nn.Module) -> dict[str, int]:
    """Number of parameters: total, trainable, and the parts of the total (encoder, adapter, decoder)."""
    counts = {"total": 0, "trainable": 0, "encoder": 0, "adapter": 0, "decoder": 0}
    for name, parameter in model.named_parameters():
        part = part_of(name)
        counts["total"] += parameter.numel()
        counts["trainable"] += parameter.numel() * parameter.requires_grad
        if part in counts:
            counts[part] += parameter.numel()
    return counts
