"""VeRA (Kopiczko et al., ICLR 2024, arXiv 2310.11454), by ``peft``: LoRA with frozen random matrices for all layers.

``W x + b * (B (d * (A x)))``: only the vectors ``b`` [out] and ``d`` [rank] are trained; ``b`` starts at zero, so the
start is the block itself. ``A`` and ``B`` are shared buffers drawn from ``projection_seed``, the same in every trial,
and not part of checkpoints, since every layer would write them again.
"""

import warnings
from collections.abc import Sequence
from typing import Literal

from peft import VeraConfig, VeraModel
from pydantic import NonNegativeInt, PositiveFloat, PositiveInt
from torch import nn

from models import adapters
from models.adapters import _peft


class Config(adapters.Config):
    name: Literal["vera"] = "vera"
    rank: PositiveInt = 256
    """Rows of the shared random matrix; it costs compute, but hardly any parameters."""
    layers: _peft.Layers = ("attn.qkv",)
    """Linear layers within a block."""
    d_initial: PositiveFloat = 0.1
    """Start of ``d``; 0.1 in the paper."""
    projection_seed: NonNegativeInt = 0


def build(config: Config, encoder: nn.Module, blocks: Sequence[int]) -> nn.Module:
    """Adds rank + out parameters per layer. Raises ``InvalidModel``."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Specified to not save vera_A")  # decided above
        method = VeraConfig(
            r=config.rank,
            target_modules=_peft.pattern(config.layers),
            d_initial=config.d_initial,
            projection_prng_key=config.projection_seed,
            save_projection=False,
        )
    return _peft.inject(encoder, blocks, config.layers, lambda chosen: VeraModel(chosen, method, _peft.NAME))
