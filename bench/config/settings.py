"""How predictions become numbers: the choices that change published digits, as fields of a trial's configuration.

Two protocols. ``sod`` (salient and camouflaged objects, polyps, marine animals) is WZH0120/SAM3-UNet fdb21da, eval.py;
``mirror`` is Catherine-R-He/HetNet 21d9541, eval.py and misc.py. Both score what SAM3-UNet's test.py saves.
"""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from models.core.registry import Config, Registry
from models.core.size import Size

LOSSES = Registry("bench.training.losses", "loss")
PROTOCOLS = Registry("bench.scoring.protocols", "protocol")


class ProtocolConfig(Config):
    """Defaults: upstream's test.py and eval.py."""

    name: PROTOCOLS.name_field() = "sod"
    minmax: bool = True
    """Stretch every map to 0..1 over its own range: when it is made, as test.py does, and again when it is scored, as
    py_sod_metrics and HetNet do. A quirk: a confident all-background answer becomes full-contrast noise."""
    quantise: Literal["truncate", "round", "none"] = "truncate"
    """How a map gets its 8 bits. Upstream cuts off; ``none`` scores the map as floating point numbers."""
    resize: Literal["bilinear", "bicubic", "nearest"] = "bilinear"
    """How logits are brought to the mask's size, before the sigmoid. A prediction from a file is never resized."""


Probability = Annotated[float, Field(ge=0, le=1)]


class TransformConfig(Config):
    size: Size = 336
    """What images are resized to, in pixels: the side of a square, or [height, width]; 336 in the paper."""
    normalisation: Literal["imagenet", "sam3"] = "imagenet"
    """Upstream feeds ImageNet's mean and deviation to an encoder that was trained with 0.5 and 0.5."""
    mask_resize: Literal["bicubic", "nearest"] = "bicubic"
    """Upstream resizes training masks bicubically and keeps the soft values; classes need ``nearest``."""
    hflip: Probability = 0.5
    vflip: Probability = 0.5


class TrainConfig(Config):
    """Defaults: WZH0120/SAM3-UNet fdb21da, train.py and train.sh."""

    epochs: PositiveInt = 20
    batch_size: PositiveInt = 12
    lr: PositiveFloat = 2e-4
    min_lr: NonNegativeFloat = 1e-7
    """Where the cosine schedule, stepped once per epoch, would arrive after the last epoch."""
    weight_decay: NonNegativeFloat = 5e-4
    encoder_lr_scale: PositiveFloat = 1.0
    """Learning rate of the encoder's own weights, where some are tuned, as a share of ``lr``."""
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Factor of that rate from each block to the next nearer to the image: the last of L blocks learns at
    ``lr * encoder_lr_scale * layer_decay``, the first at its L-th power, the stem at the next (BEiT, arXiv 2106.08254;
    ViTDet, arXiv 2203.16527)."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """``bfloat16``: training's forward pass runs under torch.autocast; trained weights, the loss and evaluation stay in
    float32."""
    tf32: bool = True
    """Whether float32 matrix products may use TF32, on cards from compute capability 8 (Ampere) on, in training and in
    evaluation. Upstream's import of sam3 allows it (``bench.system.device.float32_products``), so it is the default. With
    ``false`` torch's own defaults hold: convolutions use TF32, matrix products do not. It has no effect on a CPU and on
    older cards."""
    loss: LOSSES.name_field() = "structure_loss"
    """``structure_loss`` is upstream's, in which the weights of the cross-entropy cancel; ``weighted_`` mends that.
    ``cross_entropy`` is for classes, the others for object against background."""
    validate_every: NonNegativeInt = 1
    """Epochs between two looks at the validation split, if there is one; 0 for never. Nothing is chosen by it."""


class MemoryConfig(Config):
    """What memory a trial may use, and what to do when it is not alone on its card."""

    foreign_process: Literal["fail", "wait", "note"] = "fail"
    """``wait``: until the card is free, before the trial; one that comes later spoils the trial, as under ``fail``."""
    wait_minutes: PositiveFloat = 60.0
    budget_gib: PositiveFloat | None = None
    """What torch may allocate, in GiB. Predicted far above it, a trial is not run; else the allocator enforces it."""
