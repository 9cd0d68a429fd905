"""Encoder, adapters, tuned blocks and decoder, assembled: the shape of SAM2-UNet, SAM3-UNet and their variants."""

from collections.abc import Iterator
from copy import deepcopy
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from pydantic import PositiveInt, field_validator, model_validator
from torch import Tensor, nn

from models.core import frozen, weights
from models.core.activation_checkpointing import checkpoint_blocks, checkpoint_stages, spare_last_layers
from models.core.frozen import Storage, StoredLinear, store_frozen
from models.core.names import Names, renamed
from models.core.paths import expanded, given_by
from models.core.placement import Placement, resolve
from models.core.registry import InvalidModel, Missing, Registry
from models.core.registry import Config as Base

ENCODERS = Registry("models.encoders", "encoder")
ADAPTERS = Registry("models.adapters", "adapter")
DECODERS = Registry("models.decoders", "decoder")


class Upstream(NamedTuple):
    """The published model that an entry reproduces: its tensors' names, and its checkpoint."""

    names: Names
    variable: str  # environment variable with the path of the released checkpoint
    file: str  # else this file in weights/
    source: str  # page that links to it


class Config(Base):
    """Settings of a model of this shape."""

    upstream: ClassVar[Upstream | None] = None
    shapeless: ClassVar[frozenset[str]] = frozenset({"checkpoint", "checkpoint_decoder"})

    encoder: ENCODERS.field()
    adapter: ADAPTERS.field()
    decoder: DECODERS.field()
    tuned_blocks: Placement = "none"
    """Encoder blocks whose own weights are trained, besides the adapters."""
    tuned_parameters: Literal["all", "norms", "biases"] = "all"
    """Which weights of the tuned blocks: ``norms`` the scales and shifts of normalisation layers, ``biases`` every
    bias, those of norms too (BitFit, Ben Zaken et al., ACL 2022, arXiv 2106.10199)."""
    tuned_stem: bool = False
    """Train also the parameters before the first block (patch and position embedding): full fine-tuning."""
    num_classes: PositiveInt = 1
    """1: object against background."""
    checkpoint: str | None = None
    """Weights of a whole trained model, loaded after building: a path (upstream's names or the suite's), or
    ``released``, the authors' file. The encoder's own checkpoint is then not needed."""

    @model_validator(mode="after")
    def _has_a_release(self) -> Any:
        if self.checkpoint == "released" and self.upstream is None:
            raise ValueError("checkpoint: nothing was released for this model. Give the path of a file")
        return self

    def shape(self) -> dict[str, Any]:
        """Adds a number of recomputed blocks, because a model cannot be built if its encoder has fewer."""
        recomputed = getattr(self.encoder, "checkpointing", False)
        return super().shape() | ({} if isinstance(recomputed, bool) else {"checkpointing": recomputed})

    def checkpoint_path(self) -> Path | None:
        """Returns the file that ``checkpoint`` means, which need not exist."""
        if self.checkpoint != "released" or self.upstream is None:
            return None if self.checkpoint is None else expanded(self.checkpoint)
        return given_by(self.upstream.variable) or Path("weights", self.upstream.file)

    def missing(self) -> Iterator[Missing]:
        yield from frozen.missing(self.frozen_weights)
        path = self.checkpoint_path()
        # a whole model contains its encoder
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

    frozen_weights: Storage = "float32"
    """Format of the encoder's frozen linear layers in memory (``models.core.frozen``); computing is not changed."""
    checkpoint_decoder: bool = False
    """Recompute each stage of the decoder in the backward pass."""

    @field_validator("frozen_weights")
    @classmethod
    def _import_its_package(cls, storage: Storage) -> Storage:
        """Imports the package with the configuration, as an entry's: later it would count as the model's memory."""
        frozen.prepare(storage)
        return storage


class EncoderDecoder(nn.Module):
    """A frozen encoder with adapters around some blocks, and a decoder; adapters, tuned blocks and decoder train."""

    def __init__(self, encoder: nn.Module, decoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """images [B, 3, H, W], normalised -> logits, each [B, num_classes, H, W]; the first is the answer."""
        return self.decoder(self.encoder(images), images.shape[-2:])


def build(config: Config, image_size: int | tuple[int, int], pretrained: bool) -> EncoderDecoder:
    """Builds the model. With ``pretrained`` its encoder's weights are loaded, else all weights are random.

    Raises ``InvalidModel`` for settings that do not fit each other, ``WeightsError`` for a wrong checkpoint.
    """
    if torch.get_default_device().type == "meta":
        # in Python True == 1, but checkpointing of all blocks is not that of one
        encoder = deepcopy(_shape(config.encoder, image_size, type(getattr(config.encoder, "checkpointing", None))))
    else:
        encoder = ENCODERS.build(config.encoder, image_size)
    if pretrained and config.checkpoint is None:
        encoder.load_pretrained()  # before adapters wrap the blocks and change their names
    encoder.requires_grad_(False)
    # before the adapters, so that they do not change its initial weights
    decoder = DECODERS.build(config.decoder, encoder.channels, config.num_classes)
    depth = len(encoder.blocks)
    tuned = resolve(config.tuned_blocks, depth, "tuned_blocks")
    if not tuned and config.tuned_parameters != "all":
        raise InvalidModel(
            f"tuned_parameters: '{config.tuned_parameters}' says which weights of the tuned blocks are trained, but "
            "tuned_blocks is none. Set tuned_blocks, e.g. to all, or leave tuned_parameters at 'all'"
        )
    for i in tuned:
        for parameter in _chosen(encoder.blocks[i], i, config.tuned_parameters):
            parameter.requires_grad_(True)
    if config.tuned_stem:
        for parameter in encoder.stem_parameters():
            parameter.requires_grad_(True)
    places = resolve(config.adapter.placement, depth, "adapter.placement")
    model = EncoderDecoder(ADAPTERS.build(config.adapter, encoder, places), decoder)
    if pretrained and config.checkpoint is not None:
        load_checkpoint(model, config)
    store_frozen(model.encoder, config.frozen_weights)
    spare_last_layers(model.encoder)
    checkpoint_blocks(model.encoder, getattr(config.encoder, "checkpointing", False))
    if config.checkpoint_decoder:
        checkpoint_stages(model.decoder)
    return model


@lru_cache(maxsize=8)
def _shape(config: Base, image_size: int | tuple[int, int], kind: type) -> nn.Module:
    """Builds an encoder without memory (``models.core.skeleton``), to be copied: most models of a sweep share it, and
    building takes ten times as long as copying. kind: type of the value of ``checkpointing``, for the cache."""
    return ENCODERS.build(config, image_size)


def load_checkpoint(model: EncoderDecoder, config: Config) -> int:
    """Loads the whole trained model that ``config.checkpoint`` names; returns the number of tensors.

    Raises ``WeightsError`` unless file and model hold the same tensors, so that adapters must be at the same blocks.
    """
    path = config.checkpoint_path()
    assert path is not None, "config.checkpoint is None"

    def to_our_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
        return state if config.upstream is None else renamed(state, config.upstream.names.ours)

    return weights.load(model, path, convert=to_our_names)


def upstream_state(model: EncoderDecoder, config: Config) -> dict[str, Tensor]:
    """Returns the model's tensors under upstream's names; upstream's own class loads them with ``strict=True``."""
    assert config.upstream is not None, f"{config.name} reproduces no published model"
    return renamed(model.state_dict(), config.upstream.names.theirs)


def _chosen(block: nn.Module, number: int, which: str) -> list[nn.Parameter]:
    """Returns the trained parameters of a tuned block. Raises ``InvalidModel`` if it has none of this kind."""
    if which == "norms":
        norms = [module for module in block.modules() if "norm" in type(module).__name__.lower()]
        chosen = [parameter for norm in norms for parameter in norm.parameters(recurse=False)]
    else:
        chosen = [p for name, p in block.named_parameters() if which == "all" or name.endswith("bias")]
    if not chosen:
        raise InvalidModel(f"tuned_parameters: block {number} ({type(block).__name__}) has no {which} to train")
    return chosen


def layers_of(model: nn.Module) -> Iterator[tuple[nn.Parameter, int]]:
    """Yields the encoder's own trained weights, each with its distance to the decoder, for layer-wise learning rates.

    As in BEiT (Bao et al., ICLR 2022, arXiv 2106.08254; beit/optim_factory.py) the decoder is at 0, the last block at
    1, the first at the number of blocks, and the stem one further; a neck after the blocks is at 0 like the decoder.
    Raises ``InvalidModel`` for a model with trained encoder weights, but without encoder blocks.
    """
    trained = [p for name, p in model.named_parameters() if part_of(name) == "encoder" and p.requires_grad]
    if not trained:
        return
    if not hasattr(model.encoder, "blocks"):
        raise InvalidModel(f"{type(model).__name__} has an encoder without blocks, so no layer-wise learning rates")
    blocks = list(model.encoder.blocks)
    distance = {id(p): len(blocks) + 1 for p in model.encoder.stem_parameters()}
    for i, block in enumerate(blocks):
        distance.update((id(p), len(blocks) - i) for p in block.parameters())
    for parameter in trained:
        yield parameter, distance.get(id(parameter), 0)


def part_of(name: str) -> str:
    """Returns the part of a model that a parameter belongs to, by its dotted name: adapter, encoder, decoder, ..."""
    parts = name.split(".")
    return "adapter" if "adapter" in parts else parts[0]


def parameter_counts(model: nn.Module) -> dict[str, int]:
    """Counts parameters: total, trainable, and the parts of the total (encoder, adapter, decoder)."""
    counts = {"total": 0, "trainable": 0, "encoder": 0, "adapter": 0, "decoder": 0}
    stored = {name: module for name, module in model.named_modules() if isinstance(module, StoredLinear)}
    for name, parameter in model.named_parameters():
        part, number = part_of(name), parameter.numel()
        owner, _, leaf = name.rpartition(".")
        layer = stored.get(owner)
        if layer is not None and leaf in layer.part_names:  # codes and scales are one weight
            number = layer.in_features * layer.out_features if leaf == layer.part_names[0] else 0
        counts["total"] += number
        counts["trainable"] += number * parameter.requires_grad
        if part in counts:
            counts[part] += number
    return counts
