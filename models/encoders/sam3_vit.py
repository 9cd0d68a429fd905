"""SAM3's image encoder: the ``ViT`` of the sam3 package with the published sizes (446,237,696 parameters).

Sizes: facebookresearch/sam3, sam3/model_builder.py, ``_create_vit_backbone``; ``image_size`` and the single output map
as in WZH0120/SAM3-UNet fdb21da, SAM3UNet.py. The neck and everything behind it are not used.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

import torch
from huggingface_hub import try_to_load_from_cache
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from models import _weights
from models._registry import Config as Base
from models._registry import InvalidModel, Missing
from models.encoders._sam3_package import sam3_module

CHECKPOINT_PREFIXES = ("detector.backbone.vision_backbone.trunk.", "")
ROPE_TABLE = "freqs_cis"  # depends on the image size, so it is rebuilt and never loaded


class Config(Base):
    name: Literal["sam3_vit"] = "sam3_vit"
    weights: str = "pretrained"
    """``pretrained``: sam3.pt from $SAM3_WEIGHTS, weights/sam3.pt or the Hugging Face cache; ``random``; or a path."""
    drop_path: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Stochastic depth of the last block, rising linearly from 0. Upstream leaves it on in the frozen blocks."""
    checkpointing: bool = True
    """Recompute each block's activations in the backward pass. Upstream's memory claim depends on it."""
    residual: Literal["float32", "bfloat16"] = "float32"
    """Under autocast: the type of the sum that each block adds to, and that checkpointing keeps once a block."""
    patch: PositiveInt = 14
    dim: PositiveInt = 1024
    depth: PositiveInt = 32
    heads: PositiveInt = 16
    mlp_ratio: float = 4.625
    window: PositiveInt = 24
    """Side of the attention window in patches; at 336 px it is the whole image."""
    global_blocks: Annotated[tuple[int, ...], Field(strict=False)] = (7, 15, 23, 31)
    pretrain_size: PositiveInt = 336

    def checkpoint(self) -> Path | None:
        """The checkpoint to load, ``None`` for random weights. The file need not exist."""
        if self.weights == "random":
            return None
        if self.weights != "pretrained":
            return Path(self.weights)
        return self.published_checkpoint()

    def published_checkpoint(self) -> Path:
        """Where ``pretrained`` lies: the environment, this directory, the Hub's cache, in this order."""
        if "SAM3_WEIGHTS" in os.environ:
            return Path(os.environ["SAM3_WEIGHTS"])
        here = Path("weights/sam3.pt")
        cached = try_to_load_from_cache("facebook/sam3", "sam3.pt")
        return Path(cached) if isinstance(cached, str) and not here.exists() else here

    def missing(self) -> Iterator[Missing]:
        path = self.checkpoint()
        if path is not None and not path.is_file():
            by_path = "give the path of an existing file, 'pretrained' or 'random'"
            remedy = self.how_to_get() if self.weights == "pretrained" else by_path
            yield Missing("weights", "weights", f"{path} does not exist", remedy)

    def weight_files(self) -> Iterator[Path]:
        path = self.checkpoint()
        if path is not None:
            yield path

    def how_to_get(self) -> str:
        return (
            "accept the licence at https://huggingface.co/facebook/sam3, then run "
            "'hf download facebook/sam3 sam3.pt --local-dir weights' (3.4 GB); "
            "or point $SAM3_WEIGHTS or model.encoder.weights=PATH at your sam3.pt"
        )


class SAM3ViT(nn.Module):
    """images [B, 3, H, W] -> one map [B, dim, H/patch, W/patch], the output of the last global-attention block."""

    def __init__(self, config: Config, image_size: int) -> None:
        super().__init__()
        self.config = config
        self.channels = (config.dim,)
        self.block_dims = (config.dim,) * config.depth
        self.prefix_tokens = 0  # the stored class token's position is dropped, no token is
        self.trunk = sam3_module("model.vitdet").ViT(
            img_size=image_size,
            pretrain_img_size=config.pretrain_size,
            patch_size=config.patch,
            embed_dim=config.dim,
            depth=config.depth,
            num_heads=config.heads,
            mlp_ratio=config.mlp_ratio,
            drop_path_rate=config.drop_path,
            global_att_blocks=config.global_blocks,
            window_size=config.window,
            use_act_checkpoint=config.checkpointing,
            norm_layer="LayerNorm",
            qkv_bias=True,
            use_abs_pos=True,
            tile_abs_pos=True,
            rel_pos_blocks=(),
            use_rope=True,
            use_interp_rope=True,
            pretrain_use_cls_token=True,
            retain_cls_token=False,
            ln_pre=True,
            ln_post=False,
            bias_patch_embed=False,
        )

        if config.residual == "bfloat16":
            self.trunk.ln_pre.register_forward_hook(_narrow)

    @property
    def blocks(self) -> nn.ModuleList:
        return self.trunk.blocks

    def stem_parameters(self) -> Iterator[nn.Parameter]:
        yield self.trunk.pos_embed
        yield from self.trunk.patch_embed.parameters()
        yield from self.trunk.ln_pre.parameters()

    def forward(self, images: Tensor) -> tuple[Tensor]:
        return (self.trunk(images)[-1],)

    def load_pretrained(self) -> int:
        """Loads the checkpoint that the config names; returns the number of tensors (0: random by request)."""
        path = self.config.checkpoint()
        if path is None:
            return 0
        return _weights.load(self.trunk, path, CHECKPOINT_PREFIXES, ROPE_TABLE)


def _narrow(module: nn.Module, inputs: tuple, output: Tensor) -> Tensor:
    """From here on, blocks add to a sum of autocast's type; every sum after it has that type too."""
    kind = output.device.type
    return output.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else output


def build(config: Config, image_size: int) -> SAM3ViT:
    """Raises ``InvalidModel`` when the patches do not fill the image."""
    if image_size % config.patch:
        low = image_size // config.patch * config.patch
        near = ", ".join(str(n) for n in (low, low + config.patch) if n)
        raise InvalidModel(f"encoder: transform.size {image_size} is no multiple of its patch size {config.patch}. Nearest: {near}")
    return SAM3ViT(config, image_size)
