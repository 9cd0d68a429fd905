"""A small SAM3 encoder: the same ``ViT`` class with 8 blocks of width 64, pre-trained on procedural scenes.

With it the whole suite runs on a laptop without gated weights. Its weights ship with the repository. They were made by
``python -m bench.tools.pretrain_tiny`` (tasks: materials, depth order and outlines of procedural scenes; no salient
objects, no mirrors). The proportions follow the original: at 96 px the attention window is the whole image, as it is at
336 px in the paper's setting; above that every second block is global. It says nothing about SAM3's accuracy.
"""

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field, PositiveInt

from models.core.activation_checkpointing import Checkpointing
from models.encoders import sam3_vit
from models.encoders.sam3_vit import build  # noqa: F401

SHIPPED = Path(__file__).with_suffix(".safetensors")


class Config(sam3_vit.Config):
    embedded: ClassVar[bool] = True

    name: Literal["sam3_vit_tiny"] = "sam3_vit_tiny"
    weights: str = "pretrained"
    """``pretrained``: the file in this folder; ``random``; or a path."""
    checkpointing: Checkpointing = False
    patch: PositiveInt = 8
    dim: PositiveInt = 64
    depth: Annotated[int, Field(ge=1, le=1000)] = 8
    heads: PositiveInt = 2
    window: PositiveInt = 12
    global_blocks: Annotated[tuple[int, ...], Field(strict=False)] = (1, 3, 5, 7)
    pretrain_size: PositiveInt = 96

    def published_checkpoint(self) -> Path:
        return SHIPPED

    def how_to_get(self) -> str:
        made = "make it with 'python -m bench.tools.pretrain_tiny'"
        return f"it ships with the repository: 'git checkout models/encoders', or {made}"
