"""Encoder, adapters, tuned blocks and decoder, assembled: the shape of SAM2-UNet, SAM3-UNet and their variants."""

from pydantic import PositiveInt
from torch import Tensor, nn

from models._placement import Placement, resolve
from models._registry import Config as Base
from models._registry import Registry

ENCODERS = Registry("models.encoders", "encoder")
ADAPTERS = Registry("models.adapters", "adapter")
DECODERS = Registry("models.decoders", "decoder")


class Config(Base):
    """What a model of this shape is made of."""

    encoder: ENCODERS.field()
    adapter: ADAPTERS.field()
    decoder: DECODERS.field()
    tuned_blocks: Placement = "none"
    """Encoder blocks whose own weights are trained, beside the adapters."""
    tuned_stem: bool = False
    """Train what lies before the first block too (patch and position embedding): full fine-tuning."""
    num_classes: PositiveInt = 1
    """1: object against background."""


class EncoderDecoder(nn.Module):
    """Frozen encoder with adapters around some blocks, and a decoder; only adapters, tuned blocks and decoder train."""

    def __init__(self, encoder: nn.Module, decoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """images [B, 3, H, W], normalised -> logits, each [B, num_classes, H, W]; the first is the answer."""
        return self.decoder(self.encoder(images), images.shape[-2:])


def build(config: Config, image_size: int, pretrained: bool) -> EncoderDecoder:
    """The model; with ``pretrained`` its encoder's weights are loaded, without it everything is random.

    Raises ``InvalidModel`` for what the encoder or the decoder cannot take, ``WeightsError`` for a wrong checkpoint.
    """
    encoder = ENCODERS.build(config.encoder, image_size)
    if pretrained:
        encoder.load_pretrained()  # before adapters wrap the blocks and change their names
    encoder.requires_grad_(False)
    # before the adapters: they do not change its start
    decoder = DECODERS.build(config.decoder, encoder.channels, config.num_classes)
    depth = len(encoder.blocks)
    for i in resolve(config.tuned_blocks, depth, "tuned_blocks"):
        encoder.blocks[i].requires_grad_(True)
    if config.tuned_stem:
        for parameter in encoder.stem_parameters():
            parameter.requires_grad_(True)
    places = resolve(config.adapter.placement, depth, "adapter.placement")
    return EncoderDecoder(ADAPTERS.build(config.adapter, encoder, places), decoder)


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
