"""SAM3's image encoder: the ``ViT`` of the sam3 package with the published sizes (446,237,696 parameters).

Sizes: facebookresearch/sam3, sam3/model_builder.py, ``_create_vit_backbone``; ``image_size`` and, by default, the
single output map as in WZH0120/SAM3-UNet fdb21da, SAM3UNet.py. The neck and everything behind it are not used.
"""

from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import torch
from huggingface_hub import try_to_load_from_cache
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from models.core import weights
from models.core.activation_checkpointing import Checkpointing
from models.core.paths import given_by
from models.core.pretrained import Pretrained
from models.core.registry import InvalidModel
from models.core.size import height_width, in_words, misfit
from models.encoders import _sam3_hf
from models.encoders._sam3_package import sam3_module

CHECKPOINT_PREFIXES = (
    "detector.backbone.vision_backbone.trunk.",  # Meta's sam3.pt
    "detector_model.vision_encoder.backbone.",  # Hugging Face: model.safetensors of facebook/sam3
    "vision_encoder.backbone.",  # Hugging Face: Sam3Model alone
    "",
)


class Config(Pretrained):
    any_aspect: ClassVar[bool] = True
    shapeless: ClassVar[frozenset[str]] = frozenset({"weights", "drop_path", "checkpointing", "residual"})

    name: Literal["sam3_vit"] = "sam3_vit"
    weights: str = "pretrained"
    """``pretrained``: $SAM3_WEIGHTS, weights/sam3.pt or the Hugging Face cache; ``random``; or a path. Meta's layout
    and Hugging Face's are both read."""
    drop_path: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Stochastic depth of the last block, rising linearly from 0. Upstream leaves it on in the frozen blocks."""
    checkpointing: Checkpointing = True
    """Recompute each block's activations in the backward pass, or those of the first N blocks. Upstream's memory claim
    depends on it."""
    features: Literal["last", "global"] = "last"
    """Maps that the decoder gets: ``last``, that of the last global-attention block, as upstream; ``global``, one of
    each global-attention block, where the earliest goes to the finest level."""
    residual: Literal["float32", "bfloat16"] = "float32"
    """Under autocast: the type of the residual stream, which checkpointing keeps once for each block."""
    patch: PositiveInt = 14
    dim: PositiveInt = 1024
    depth: Annotated[int, Field(ge=1, le=1000)] = 32
    heads: PositiveInt = 16
    mlp_ratio: float = 4.625
    window: PositiveInt = 24
    """Side of the attention window in patches; at 336 px it is the whole image."""
    global_blocks: Annotated[tuple[int, ...], Field(strict=False)] = (7, 15, 23, 31)
    pretrain_size: PositiveInt = 336

    def published_checkpoint(self) -> Path:
        """Returns the first of: $SAM3_WEIGHTS, the file in weights/, the file in the Hub's cache."""
        if given := given_by("SAM3_WEIGHTS"):
            return given
        here = Path("weights/sam3.pt")
        cached = (try_to_load_from_cache("facebook/sam3", name) for name in ("sam3.pt", "model.safetensors"))
        found = [Path(path) for path in cached if isinstance(path, str)]
        return found[0] if found and not here.exists() else here

    def how_to_get(self) -> str:
        return (
            "accept the licence at https://huggingface.co/facebook/sam3, then run "
            "'hf download facebook/sam3 sam3.pt --local-dir weights' (3.4 GB); "
            "or point $SAM3_WEIGHTS or model.encoder.weights=PATH at your sam3.pt"
        )


class SAM3ViT(nn.Module):
    """images [B, 3, H, W] -> maps [B, dim, H/patch, W/patch]: the output of the last global block, or of each."""

    def __init__(self, config: Config, image_size: int | tuple[int, int]) -> None:
        super().__init__()
        self.config = config
        self.channels = (config.dim,) * (len(config.global_blocks) if config.features == "global" else 1)
        self.block_dims = (config.dim,) * config.depth
        self.prefix_tokens = 0  # the stored class token's position is dropped, no token is
        height, width = height_width(image_size)
        self.trunk = sam3_module("model.vitdet").ViT(
            img_size=height,
            pretrain_img_size=config.pretrain_size,
            patch_size=config.patch,
            embed_dim=config.dim,
            depth=config.depth,
            num_heads=config.heads,
            mlp_ratio=config.mlp_ratio,
            drop_path_rate=config.drop_path,
            global_att_blocks=config.global_blocks,
            window_size=config.window,
            use_act_checkpoint=False,  # the same by models.core.activation_checkpointing, which may be compiled
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
            return_interm_layers=config.features == "global",
        )
        if height != width:  # sam3 builds the tables of global blocks for squares only
            for i in config.global_blocks:
                grid = (height // config.patch, width // config.patch)
                attention = self.trunk.blocks[i].attn
                attention.freqs_cis = rope_table(attention.head_dim, grid, config.window)

        for block in self.trunk.blocks:
            block.attn.__class__ = _compilable(type(block.attn))
        if config.residual == "bfloat16":
            self.trunk.ln_pre.register_forward_hook(_narrow)

    @property
    def blocks(self) -> nn.ModuleList:
        return self.trunk.blocks

    def stem_parameters(self) -> Iterator[nn.Parameter]:
        yield self.trunk.pos_embed
        yield from self.trunk.patch_embed.parameters()
        yield from self.trunk.ln_pre.parameters()

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.trunk(images))

    @property
    def cuts(self) -> range:
        return range(self.config.depth + 1)

    def run_to(self, images: Tensor, block: int) -> tuple[Tensor, ...]:
        trunk = self.trunk
        x = trunk.patch_embed(images)
        tokens = trunk.pretrain_use_cls_token, x.shape[1:3], trunk.retain_cls_token
        x = x + sam3_module("model.vitdet").get_abs_pos(trunk.pos_embed, *tokens, tiling=trunk.tile_abs_pos)
        return self._run((trunk.ln_pre(x),), 0, block)

    def run_from(self, hidden: tuple[Tensor, ...], block: int) -> tuple[Tensor, ...]:
        return self._run(hidden, block, self.config.depth)

    def _run(self, hidden: tuple[Tensor, ...], start: int, stop: int) -> tuple[Tensor, ...]:
        """Runs the loop of sam3's ``ViT.forward`` from one block to another. Returns the current map [B, h, w, dim], if
        a later block needs it, and the output maps so far."""
        last = self.config.global_blocks[-1]
        if start > last:
            return hidden
        x, *maps = hidden
        for i in range(start, min(stop, last + 1)):
            x = self.trunk.blocks[i](x)
            if i == last or (self.config.features == "global" and i in self.config.global_blocks):
                maps.append(x.permute(0, 3, 1, 2))
        return tuple(maps) if stop > last else (x, *maps)

    def load_pretrained(self) -> int:
        """Loads the checkpoint that the config names; returns the number of tensors (0 for random weights)."""
        path = self.config.checkpoint()
        if path is None:
            return 0
        return weights.load(self.trunk, path, CHECKPOINT_PREFIXES, convert=_sam3_hf.to_meta)


def rope_table(head_dim: int, grid: tuple[int, int], window: int) -> Tensor:
    """Computes rotations of a global block's queries and keys: complex [H * W, head_dim / 2], for x, then for y.

    Each side of the grid is stretched over the ``window`` positions of pre-training. On a square this is sam3's own
    table (``Attention._setup_rope_freqs``, which has one scale for both sides). Two different scales are possible
    because the rotations of x and y are independent, but SAM3 was never trained with them.
    """
    height, width = grid
    table = partial(sam3_module("model.vitdet").compute_axial_cis, dim=head_dim, end_x=width, end_y=height)
    of_x, of_y = table(scale_pos=window / width), table(scale_pos=window / height)
    return torch.cat([of_x[:, : head_dim // 4], of_y[:, head_dim // 4 :]], dim=1)


class _RotatesWithRealNumbers:
    """Mixin for sam3's ``Attention``: in compiled code the rotation of queries and keys has no complex numbers, for
    which torch's compiler generates no code. Without compilation sam3's own code runs, with the same bits as before."""

    def _apply_rope(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        if not torch.compiler.is_compiling():
            return super()._apply_rope(q, k)
        table = torch.view_as_real(self.freqs_cis)
        return rotated(q, table), rotated(k, table)


@cache
def _compilable(attention: type[nn.Module]) -> type[nn.Module]:
    return type(attention.__name__, (_RotatesWithRealNumbers, attention), {"__module__": attention.__module__})


def rotated(x: Tensor, table: Tensor) -> Tensor:
    """Rotates pairs of channels of x [B, heads, H * W, C]; table [H * W, C / 2, 2] holds cosines and sines.

    It is sam3's complex product in real arithmetic, in float32; the last bit may differ. Each channel is multiplied by
    the cosine, and its partner by the sine: the generated code then reads and writes neighbours together.
    """
    cos, sin = table.unbind(-1)
    of_own, of_partner = torch.stack((cos, cos), -1).flatten(-2), torch.stack((-sin, sin), -1).flatten(-2)
    x32 = x.float()
    partner = x32.unflatten(-1, (-1, 2)).flip(-1).flatten(-2)
    return (x32 * of_own + partner * of_partner).type_as(x)


def _narrow(module: nn.Module, inputs: tuple, output: Tensor) -> Tensor:
    """Converts the residual stream to autocast's type, which it then keeps through all blocks."""
    kind = output.device.type
    return output.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else output


def build(config: Config, image_size: int | tuple[int, int]) -> SAM3ViT:
    """Raises ``InvalidModel`` if the patches do not fill the image, or a global block is not among the blocks."""
    nearest = misfit(image_size, config.patch)
    if nearest is not None:
        what = f"transform.size {in_words(image_size)} is no multiple of its patch size {config.patch}"
        raise InvalidModel(f"encoder: {what}. Nearest: {nearest}")
    blocks = config.global_blocks
    if not blocks or blocks != tuple(sorted(set(blocks))) or blocks[0] < 0 or blocks[-1] >= config.depth:
        allowed = f"ascending, of the blocks 0 to {config.depth - 1}"
        raise InvalidModel(f"encoder.global_blocks: {list(blocks)} is not possible. Give at least one, {allowed}")
    return SAM3ViT(config, image_size)
