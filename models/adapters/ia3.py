"""(IA)3 (Liu et al., NeurIPS 2022, arXiv 2205.05638), by ``peft``: activations scaled by learned vectors.

The paper scales keys, values and the activations within the MLP. With a fused ``qkv`` the query is scaled too, at
``dim`` more parameters. All scales start at 1: the block itself.
"""

from collections.abc import Sequence
from typing import Literal

from peft import IA3Config, inject_adapter_in_model
from torch import nn

from models import adapters
from models.adapters import _peft


class Config(adapters.Config):
    name: Literal["ia3"] = "ia3"
    scaled_outputs: _peft.Layers = ("attn.qkv",)
    """Linear layers within a block whose output is scaled."""
    scaled_inputs: _peft.Layers = ("mlp.fc2",)
    """Linear layers within a block whose input is scaled."""


def build(config: Config, encoder: nn.Module, blocks: Sequence[int]) -> nn.Module:
    """Adds a parameter per scaled channel. Raises ``InvalidModel``."""
    layers = config.scaled_outputs + config.scaled_inputs
    method = IA3Config(target_modules=_peft.pattern(layers), feedforward_modules=_peft.pattern(config.scaled_inputs))
    return _peft.inject(
        encoder, blocks, layers, lambda chosen: inject_adapter_in_model(method, chosen, adapter_name=_peft.NAME)
    )
