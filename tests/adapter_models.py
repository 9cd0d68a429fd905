"""Small models with an adapter, for tests of the methods."""

import torch

from models import MODELS
from models.core.encoder_decoder import ADAPTERS, part_of

DEPTH, DIM, HIDDEN, SIDE = 4, 16, 74, 32
SMALL = {
    "name": "sam3_vit_tiny",
    "weights": "random",
    "depth": DEPTH,
    "dim": DIM,
    "global_blocks": [1, 3],
    "drop_path": 0.0,
}
VARIANTS = [
    *({"name": name} for name in ADAPTERS.names()),
    {"name": "lora", "dora": True},
    {"name": "lora", "rank": 3, "alpha": 5, "layers": ["attn.proj", "mlp.fc1", "mlp.fc2"]},
]
STARTS_CHANGED = {"bottleneck", "mona"}
"""Methods whose papers do not start at the frozen encoder; every other one must."""


def label(variant):
    return "-".join(str(value) for value in variant.values()) if isinstance(variant, dict) else None


def config(adapter, **changes):
    encoder = {**SMALL, **changes.pop("encoder", {})}
    return MODELS.parse(
        {"name": "sam3_unet", "encoder": encoder, "adapter": adapter, "decoder": {"width": 8}, **changes}
    )


def build(adapter, seed=0, **changes):
    torch.manual_seed(seed)
    return MODELS.build(config(adapter, **changes), SIDE, False)


def adapter_parameters(model):
    return {n: p for n, p in model.named_parameters() if part_of(n) == "adapter"}


def stir(model):
    """Moves every adapter parameter away from its start."""
    for parameter in adapter_parameters(model).values():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model
