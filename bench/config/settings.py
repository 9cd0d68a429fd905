"""Parts of a trial's configuration: protocol of scoring, transform, training and memory.

Protocols are the entries of ``bench.scoring.protocols``, losses those of ``bench.training.losses``.
"""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from models.core.registry import Config, Registry
from models.core.size import Size

LOSSES = Registry("bench.training.losses", "loss")
PROTOCOLS = Registry("bench.scoring.protocols", "protocol")


class ProtocolConfig(Config):
    """How predictions become scores. The defaults are those of upstream's test.py and eval.py."""

    name: PROTOCOLS.name_field() = "sod"
    minmax: bool = True
    """Stretch every map to 0..1 over its own range: when it is made, as test.py does, and again when it is scored, as
    py_sod_metrics and HetNet do. A quirk: a confident all-background answer becomes full-contrast noise."""
    quantise: Literal["truncate", "round", "none"] = "truncate"
    """Conversion of a map to 8 bits. Upstream truncates; ``none`` scores floating point numbers."""
    resize: Literal["bilinear", "bicubic", "nearest"] = "bilinear"
    """Interpolation of logits to the size of the mask, before the sigmoid. Maps from files are not resized."""


ALL_IMAGES = "all"
"""Value of ``dataset.train_images`` in a sweep file for all training images."""
Probability = Annotated[float, Field(ge=0, le=1)]


class TransformConfig(Config):
    """Preprocessing of images and masks. The defaults are those of upstream's dataset.py."""

    size: Size = 336
    """Size of resized images in pixels: the side of a square, or [height, width]. The paper uses 336."""
    normalisation: Literal["imagenet", "sam3"] = "imagenet"
    """Mean and deviation. Upstream uses those of ImageNet, but SAM3's encoder was pretrained with 0.5 and 0.5."""
    mask_resize: Literal["bicubic", "nearest"] = "bicubic"
    """Upstream resizes training masks bicubically and keeps the soft values; classes need ``nearest``."""
    hflip: Probability = 0.5
    vflip: Probability = 0.5


class TrainConfig(Config):
    """Training recipe. The defaults are those of WZH0120/SAM3-UNet fdb21da, train.py and train.sh."""

    epochs: PositiveInt = 20
    batch_size: PositiveInt = 12
    """Number of images of one training step, over all GPUs and micro-batches."""
    accumulate: PositiveInt = 1
    """Number of micro-batches into which the images of a step are split, one after the other. Their gradients add up to
    those of the whole batch, and only one micro-batch's activations exist at a time. At most ``batch_size``."""
    lr: PositiveFloat = 2e-4
    min_lr: NonNegativeFloat = 1e-7
    """Learning rate that the cosine schedule, with one step for each epoch, reaches after the last epoch."""
    weight_decay: NonNegativeFloat = 5e-4
    encoder_lr_scale: PositiveFloat = 1.0
    """Learning rate of the encoder's own weights, if some are tuned, as a share of ``lr``."""
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Factor of the encoder's learning rate from each block to the next one towards the image.

    The last of L blocks has the rate ``lr * encoder_lr_scale * layer_decay``, the first block the L-th power of the
    factor, and the stem the power L + 1 (BEiT, arXiv 2106.08254; ViTDet, arXiv 2203.16527)."""
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """``bfloat16`` and ``float16`` run the forward pass of training under torch.autocast. Trained weights, the loss and
    evaluation stay in float32. ``float16`` scales the loss (``torch.amp.GradScaler``) and is for cards without tensor
    cores for bfloat16, that is with compute capability 7.0 or 7.5."""
    tf32: bool = True
    """Whether float32 matrix products may use TF32, in training and evaluation, on cards with compute capability 8
    (Ampere) or higher.

    The default is true because upstream's import of sam3 allows TF32 (``bench.system.device.float32_products``). With
    ``false`` torch's defaults hold: convolutions use TF32 and matrix products do not. The setting has no effect on a
    CPU and on older cards."""
    loss: LOSSES.name_field() = "structure_loss"
    """``structure_loss`` is upstream's loss, in which the weights of the cross-entropy cancel out;
    ``weighted_structure_loss`` corrects that. ``cross_entropy`` is for classes, the others for one object."""
    compile: Literal[False, "blocks", "step"] = False
    """``blocks`` compiles the encoder's blocks and the decoder with torch.compile, for training steps with whole batches
    only (``bench.training.compiled``). ``step`` also records forward and backward pass as a CUDA graph, which runs
    without Python; it needs a GPU. Evaluation is not compiled."""
    validate_every: NonNegativeInt = 1
    """Number of epochs between two validations; 0 turns validation off. Validation selects nothing."""

    @model_validator(mode="after")
    def _has_an_image_for_each_micro_batch(self) -> "TrainConfig":
        if self.accumulate > self.batch_size:
            images = f"a step has batch_size={self.batch_size} images"
            remedy = f"At most {self.batch_size}"
            raise ValueError(f"accumulate: {self.accumulate} micro-batches are too many, since {images}. {remedy}")
        return self


class MemoryConfig(Config):
    """Memory budget of a trial, and the reaction to other processes on its card."""

    foreign_process: Literal["fail", "wait", "note"] = "fail"
    """``wait`` waits until the card is free before the trial starts. A process that starts later makes the trial fail,
    as under ``fail``. ``note`` only records other processes."""
    wait_minutes: PositiveFloat = 60.0
    budget_gib: PositiveFloat | None = None
    """Maximum memory that torch may allocate, in GiB. A trial with a much higher prediction does not run; the allocator
    enforces the budget of any other trial."""
