"""Encoder, adapters, tuned blocks and decoder, assembled: the shape of SAM2-UNet, SAM3-UNet and their variants."""

from torch import Tensor, nn

from models._checkpointing import checkpoint_stages
from models._frozen import Storage, StoredLinear, store_frozen
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
    frozen_weights: Storage = "float32"
    """How the encoder's frozen linear layers are stored (``models._frozen``); they compute as the others do."""
    checkpoint_decoder: bool = False
    """Recompute each of the decoder's stages in the backward pass."""


class EncoderDecoder(nn.Module):
    """Frozen encoder with adapters around some blocks, and a decoder; only adapters, tuned blocks and decoder train."""

    def __init__(self, encoder: nn.Module, decoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """images [B, 3, H, W], normalised -> logits, each [B, 1, H, W]; the first is the answer."""
        return self.decoder(self.encoder(images), images.shape[-2:])


def build(config: Config, image_size: int, pretrained: bool) -> EncoderDecoder:
    """The model; with ``pretrained`` its encoder's weights are loaded, without it everything is random.

    Raises ``InvalidModel`` for what the encoder or the decoder cannot take, ``WeightsError`` for a wrong checkpoint.
    """
    encoder = ENCODERS.build(config.encoder, image_size)
    if pretrained:
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
    adapted = ADAPTERS.build(config.adapter, encoder, places)
    store_frozen(adapted, config.frozen_weights)
    if config.checkpoint_decoder:
        checkpoint_stages(decoder)
    return EncoderDecoder(adapted, decoder)


def part_of(name: str) -> str:
    """The part of a model that a parameter belongs to, by its dotted name: adapter, encoder, decoder or another."""
    parts = name.split(".")
    return "adapter" if "adapter" in parts else parts[0]


def parameter_counts(model: nn.Module) -> dict[str, int]:
    """Number of parameters: total, trainable, and the parts of the total (encoder, adapter, decoder)."""
    counts = {"total": 0, "trainable": 0, "encoder": 0, "adapter": 0, "decoder": 0}
    stored = {f"{n}.": m for n, m in model.named_modules() if isinstance(m, StoredLinear)}
    for name, parameter in model.named_parameters():
        part, number = part_of(name), parameter.numel()
        layer = stored.get(name.removesuffix("codes").removesuffix("scales"))
        if layer is not None:  # codes are packed, and scales are part of them
            number = layer.in_features * layer.out_features if name.endswith("codes") else 0
        counts["total"] += number
        counts["trainable"] += number * parameter.requires_grad
        if part in counts:
            counts[part] += number
    return counts
