"""LoRA (Hu et al., ICLR 2022, arXiv 2106.09685) and DoRA (Liu et al., ICML 2024, arXiv 2402.09353), by ``peft``.

``W x + alpha / rank * B A x`` at linear layers of the blocks; with DoRA the changed weights of every output are
rescaled to a trained norm. ``B`` starts at zero, so the start is the block itself. The paper adapts the query and value
projections; encoders with a fused ``qkv`` have one pair of matrices for query, key and value together.
"""

from collections.abc import Sequence
from typing import Literal

from peft import LoraConfig, inject_adapter_in_model
from pydantic import PositiveInt
from torch import nn

from models import adapters
from models.adapters import _peft


class Config(adapters.Config):
    name: Literal["lora"] = "lora"
    rank: PositiveInt = 16
    """Rank of the update. 16 adds about as many parameters to SAM3's blocks (65,536) as the papers' bottleneck of 32
    (66,592)."""
    alpha: PositiveInt = 16
    """The update is scaled by alpha / rank."""
    layers: _peft.Layers = ("attn.qkv",)
    """Linear layers within a block."""
    dora: bool = False
    """DoRA: train the weights' magnitudes apart from their directions."""


def build(config: Config, encoder: nn.Module, blocks: Sequence[int]) -> nn.Module:
    """Adds rank * (in + out) parameters per layer, and out more with DoRA. Raises ``InvalidModel``."""
    method = LoraConfig(
        r=config.rank, lora_alpha=config.alpha, target_modules=_peft.pattern(config.layers), use_dora=config.dora
    )
    return _peft.inject(
        encoder, blocks, config.layers, lambda chosen: inject_adapter_in_model(method, chosen, adapter_name=_peft.NAME)
    )
