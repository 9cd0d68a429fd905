"""SAM2's image encoder: Hiera (Ryali et al., ICML 2023) as timm's ``HieraDet``, in the four published sizes.

Sizes: facebookresearch/sam2, ``sam2_hiera_{t,s,b+,l}.yaml``, as shipped in WZH0120/SAM2-UNet 01598e5. The neck and
everything behind it are not used. SAM2 and SAM2.1 differ in their weights, not in this part of their shape.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from huggingface_hub import try_to_load_from_cache
from pydantic import Field
from timm.models import checkpoint
from timm.models.hieradet_sam2 import HieraDet
from torch import Tensor, nn

from models.core import weights
from models.core.activation_checkpointing import Checkpointing
from models.core.paths import given_by
from models.core.pretrained import Pretrained
from models.core.registry import InvalidModel
from models.core.size import in_words, misfit

CHECKPOINT_PREFIXES = ("image_encoder.trunk.", "")
TIMM_NAMES = ((".mlp.layers.0.", ".mlp.fc1."), (".mlp.layers.1.", ".mlp.fc2."))
STRIDE = 4
SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"embed_dim": 96, "num_heads": 1, "stages": (1, 2, 7, 2), "global_att_blocks": (5, 7, 9)},
    "small": {"embed_dim": 96, "num_heads": 1, "stages": (1, 2, 11, 2), "global_att_blocks": (7, 10, 13)},
    "base_plus": {
        "embed_dim": 112,
        "num_heads": 2,
        "stages": (2, 3, 16, 3),
        "global_att_blocks": (12, 16, 20),
        "global_pos_size": (14, 14),
    },
    "large": {
        "embed_dim": 144,
        "num_heads": 2,
        "stages": (2, 6, 36, 4),
        "global_att_blocks": (23, 33, 43),
        "window_spec": (8, 4, 16, 8),
    },
}


class Config(Pretrained):
    any_aspect: ClassVar[bool] = True
    shapeless: ClassVar[frozenset[str]] = frozenset({"release", "weights", "drop_path", "checkpointing"})

    name: Literal["sam2_hiera"] = "sam2_hiera"
    size: Literal["tiny", "small", "base_plus", "large"] = "large"
    release: Literal["2.0", "2.1"] = "2.0"
    """Which of Meta's weights ``pretrained`` means; SAM2-UNet used 2.0."""
    weights: str = "pretrained"
    """``pretrained``: Meta's file from $SAM2_WEIGHTS, weights/ or the Hugging Face cache; ``random``; or a path."""
    drop_path: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Stochastic depth of the last block, rising linearly from 0. SAM2-UNet has none."""
    checkpointing: Checkpointing = False
    """Recompute each block's activations in the backward pass, or those of the first N blocks. SAM2-UNet does not."""

    @property
    def file_name(self) -> str:
        return f"sam2{'.1' if self.release == '2.1' else ''}_hiera_{self.size}.pt"

    @property
    def repository(self) -> str:
        return f"facebook/sam2{'.1' if self.release == '2.1' else ''}-hiera-{self.size.replace('_', '-')}"

    def published_checkpoint(self) -> Path:
        """Returns the first of: $SAM2_WEIGHTS, the file in weights/, the file in the Hub's cache."""
        if given := given_by("SAM2_WEIGHTS"):
            return given / self.file_name if given.is_dir() else given
        here = Path("weights") / self.file_name
        cached = try_to_load_from_cache(self.repository, self.file_name)
        return Path(cached) if isinstance(cached, str) and not here.exists() else here

    def how_to_get(self) -> str:
        return (
            f"'hf download {self.repository} {self.file_name} --local-dir weights' (open to all), or point "
            "$SAM2_WEIGHTS (a file, or a folder of all sizes) or model.encoder.weights=PATH at it"
        )


class SAM2Hiera(nn.Module):
    """images [B, 3, H, W] -> four maps [B, C << i, H / (4 << i), W / (4 << i)], the outputs of the four stages."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.trunk = HieraDet(num_classes=0, drop_path_rate=config.drop_path, **SIZES[config.size])
        del self.trunk.head  # timm's classifier
        self.trunk.set_grad_checkpointing(config.checkpointing is True)
        self.channels = tuple(self.trunk.blocks[i].dim_out for i in self.trunk.stage_ends)
        self.block_dims = tuple(block.dim for block in self.trunk.blocks)
        self.prefix_tokens = 0
        self.recomputes_itself = True

    @property
    def blocks(self) -> nn.Sequential:
        return self.trunk.blocks

    def stem_parameters(self) -> Iterator[nn.Parameter]:
        yield self.trunk.pos_embed
        yield self.trunk.pos_embed_window
        yield from self.trunk.patch_embed.parameters()

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.trunk.forward_intermediates(images, intermediates_only=True))

    @property
    def cuts(self) -> range:
        return range(len(self.trunk.blocks) + 1)

    def run_to(self, images: Tensor, block: int) -> tuple[Tensor, ...]:
        return self._run((self.trunk._pos_embed(self.trunk.patch_embed(images)),), 0, block)

    def run_from(self, hidden: tuple[Tensor, ...], block: int) -> tuple[Tensor, ...]:
        return self._run(hidden, block, len(self.trunk.blocks))

    def _run(self, hidden: tuple[Tensor, ...], start: int, stop: int) -> tuple[Tensor, ...]:
        """Runs the loop of timm's ``forward_intermediates`` from one block to another. Returns the current map
        [B, h, w, C], if there is a later block, and the stages' maps so far."""
        if start == len(self.trunk.blocks):
            return hidden
        x, *maps = hidden
        for i in range(start, stop):
            block = self.trunk.blocks[i]
            x = checkpoint(block, x) if self.trunk.grad_checkpointing else block(x)
            if i in self.trunk.stage_ends:
                maps.append(x.permute(0, 3, 1, 2))
        return tuple(maps) if stop == len(self.trunk.blocks) else (x, *maps)

    def load_pretrained(self) -> int:
        """Loads the checkpoint that the config names; returns the number of tensors (0 for random weights)."""
        path = self.config.checkpoint()
        return 0 if path is None else weights.load(self.trunk, path, CHECKPOINT_PREFIXES, convert=to_timm)


def to_timm(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Converts Meta's names of the trunk's tensors to timm's; timm's names stay as they are."""
    for theirs, ours in TIMM_NAMES:
        state = {name.replace(theirs, ours): value for name, value in state.items()}
    return state


def build(config: Config, image_size: int | tuple[int, int]) -> SAM2Hiera:
    """Raises ``InvalidModel`` if the tiles of the position embedding do not fill the image."""
    encoder = SAM2Hiera(config)
    tile = STRIDE * encoder.trunk.window_spec[0]
    nearest = misfit(image_size, tile)
    if nearest is not None:
        raise InvalidModel(
            f"encoder: transform.size {in_words(image_size)} is no multiple of {tile}, the side of a tile of its "
            f"position embedding. Nearest: {nearest}"
        )
    return encoder
