"""The configurations of ``compare_memory``, as changes of the paper's setting."""

from typing import Any

from bench.config.errors import ConfigError
from bench.tools.memory_record import Measured

SMALL = {
    "model": {
        "name": "sam3_unet",
        "encoder": {"name": "sam3_vit_tiny", "weights": "random", "depth": 2, "global_blocks": [1]},
        "decoder": {"width": 16},
        "adapter": {"rank": 4},
    },
    "dataset": "procedural",
    "transform": {"size": 64},
    "train": {"batch_size": 2},
    "device": "cpu",
}
NARROW = {"train.precision": "bfloat16", "model.frozen_weights": "bfloat16", "model.encoder.residual": "bfloat16"}
GRID: tuple[dict[str, Any], ...] = (
    {},
    *({"model.adapter.rank": rank} for rank in (4, 128)),
    *({"model.adapter.placement": place} for place in ("none", "last:8", "every:2")),
    *({"model.decoder.width": width} for width in (32, 256)),
    *({"train.batch_size": batch} for batch in (1, 4, 16)),
    *({"transform.size": size, "train.batch_size": 4} for size in (224, 672)),
    {"model.encoder.checkpointing": False, "train.batch_size": 4},
    {"model.encoder.checkpointing": False, "model.adapter.placement": "last:8"},
    {"model.tuned_blocks": "last:4"},
    {"model.tuned_blocks": "all", "model.tuned_stem": True, "train.batch_size": 4},
    {"train.precision": "bfloat16"},
    {"model.checkpoint_decoder": True},
    NARROW,
    {**NARROW, "model.checkpoint_decoder": True},
    {**NARROW, "model.frozen_weights": "int8", "model.checkpoint_decoder": True},
    {**NARROW, "model.frozen_weights": "nf4", "model.checkpoint_decoder": True},
    {"model": {"name": "unet"}, "train.batch_size": 4},
)
CPU_SCALE = {"last:8": "last:1", "last:4": "last:1", 224: 32, 672: 128, 256: 32, 16: 4, 12: 2}
"""Values of the grid, each with its replacement for the small models of ``--cpu``."""
FREE = {"model.encoder.checkpointing": False}
BLOCKS, STEP = {"train.compile": "blocks"}, {"train.compile": "step"}
SPEED: tuple[dict[str, Any], ...] = (
    {},
    STEP,
    *({**NARROW, **more} for more in ({}, BLOCKS, STEP, FREE, {**FREE, **STEP})),
    {"train.precision": "bfloat16"},
)
"""Settings whose speed the goals name, against upstream's code as it runs, with TF32 like it."""
QUICK: tuple[dict[str, Any], ...] = (
    *SPEED,
    {**NARROW, "model.checkpoint_decoder": True},
    {"model.encoder.checkpointing": False, "train.batch_size": 4},
    {"model.tuned_blocks": "last:4"},
    {"model.checkpoint_decoder": True},
    {"transform.size": 224, "train.batch_size": 4},
    {"model": {"name": "unet"}, "train.batch_size": 4},
)
"""The grid of ``--quick``: under five minutes on a card."""


def label(changes: dict[str, Any]) -> str:
    """Names a configuration by what differs from the paper's setting."""
    texts = []
    for path, value in changes.items():
        text = value["name"] if isinstance(value, dict) else value
        texts.append(f"{path.rsplit('.', 1)[-1]}={text}")
    return ", ".join(texts) or "paper's setting"


def planned(changes: dict[str, Any]) -> Measured:
    """Returns the row before it is measured, with an error if the configuration does not know the changes."""
    row = Measured(label=label(changes), changes=changes)
    try:
        row.config()
    except ConfigError as error:
        return row.model_copy(update={"error": f"this version does not know it ({str(error).splitlines()[0]})"})
    return row
