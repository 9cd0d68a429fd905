"""SAM3 itself with a text prompt (Carion et al., "SAM 3: Segment Anything with Concepts", 2025), without training.

It has no trainable parameters, so a trial only scores it: no training loop, no training memory, no training time. The
image goes through ``Sam3Processor`` of the sam3 package (sam3/model/sam3_image_processor.py, 0.1.4); every pixel gets
the highest mask probability of the instances found for the prompt, 0 where there is none.

The trial passes images of ``transform.size``, which the processor enlarges to SAM3's 1008 pixels. In a sweep at 336
pixels it therefore gets less detail than in its training; ``transform.size=1008`` gives the full resolution.

NOT RUN SO FAR: with the real sam3.pt, and on a GPU. Tested on a CPU with random weights: the package's own builder
builds the whole network, and the package's own processor runs a network with a shortened image encoder.
"""

import gzip
import importlib.util
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from timm.data.constants import (
    IMAGENET_DEFAULT_MEAN,
    IMAGENET_DEFAULT_STD,
    IMAGENET_INCEPTION_MEAN,
    IMAGENET_INCEPTION_STD,
)
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from models.core import weights
from models.core.paths import expanded
from models.core.registry import InvalidModel, Missing
from models.core.registry import Config as Base
from models.encoders import sam3_vit

PACKAGES = ("sam3", "triton", "pycocotools", "psutil", "einops", "iopath", "ftfy", "regex", "torchvision")
PREFIX = "detector."  # of the detector's tensors in sam3.pt, which also holds the tracker for videos
NORMALISATIONS = {
    "imagenet": (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD),
    "sam3": (IMAGENET_INCEPTION_MEAN, IMAGENET_INCEPTION_STD),
}


class Config(Base):
    name: Literal["sam3_zero_shot"] = "sam3_zero_shot"
    prompt: Annotated[str, Field(min_length=1)] = "salient object"
    confidence: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """Threshold of an instance's confidence; 0.5 in the package."""
    weights: str = "pretrained"
    """``pretrained``: the whole sam3.pt, in the places of the encoder ``sam3_vit``; or a path."""
    vocabulary: str = "weights/bpe_simple_vocab_16e6.txt.gz"
    """Vocabulary of the text encoder, which the package's wheel does not contain."""
    input_normalisation: Literal["imagenet", "sam3"] = "imagenet"
    """Normalisation of the trial's transform. It is undone, and SAM3's own is applied."""
    num_classes: Literal[1] = 1

    def checkpoint(self) -> Path:
        if self.weights == "pretrained":
            return sam3_vit.Config().published_checkpoint()
        return expanded(self.weights)

    def missing(self) -> Iterator[Missing]:
        lacking = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
        if lacking:
            remedy = f"pip install {' '.join(lacking)} (triton exists for Linux only)"
            yield Missing("package", "name", f"not installed: {', '.join(lacking)}", remedy)
        if not torch.cuda.is_available():
            what = "sam3 0.1.4 pins memory while it encodes the prompt, which takes an NVIDIA GPU"
            yield Missing("device", "name", what, "run where there is one")
        if not self.checkpoint().is_file():
            remedy = sam3_vit.Config().how_to_get().replace("model.encoder.weights", "model.weights")
            yield Missing("weights", "weights", f"{self.checkpoint()} does not exist", remedy)
        if not expanded(self.vocabulary).is_file():
            source = "https://github.com/facebookresearch/sam3 (bpe_simple_vocab_16e6.txt.gz, also in openai/CLIP)"
            remedy = f"get it from {source} and put it there, or give model.vocabulary=PATH"
            yield Missing("weights", "vocabulary", f"{expanded(self.vocabulary)} does not exist", remedy)

    def weight_files(self) -> Iterator[Path]:
        yield self.checkpoint()
        yield expanded(self.vocabulary)


class SAM3ZeroShot(nn.Module):
    def __init__(self, network: nn.Module, config: Config) -> None:
        super().__init__()
        self.network = network.requires_grad_(False)
        self.config = config
        mean, deviation = (torch.tensor(v).view(3, 1, 1) for v in NORMALISATIONS[config.input_normalisation])
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("deviation", deviation, persistent=False)

    def forward(self, images: Tensor) -> tuple[Tensor]:
        """images [B, 3, H, W], normalised as the config says -> (logits [B, 1, H, W],), one image after the other."""
        from sam3.model.sam3_image_processor import Sam3Processor  # needs packages that are optional

        processor = Sam3Processor(self.network, device=images.device.type, confidence_threshold=self.config.confidence)
        pixels = ((images * self.deviation + self.mean) * 255).round().clamp(0, 255).to(torch.uint8)
        with torch.autocast(images.device.type, torch.bfloat16, enabled=images.is_cuda):  # as Meta's examples do
            answers = [self._answer(processor, image) for image in pixels]
        return (torch.stack(answers).logit(eps=1e-6),)

    def _answer(self, processor: Any, image: Tensor) -> Tensor:
        """image uint8 [3, H, W] -> probabilities float32 [1, H, W], which the processor calls logits."""
        state = processor.set_text_prompt(self.config.prompt, processor.set_image(image))
        masks = state["masks_logits"].float()  # [instances, 1, H, W]
        return masks.amax(dim=0) if len(masks) else torch.zeros_like(image[:1], dtype=torch.float32)


def build(config: Config, image_size: int, pretrained: bool) -> SAM3ZeroShot:
    """Builds the network for any ``image_size``. Without ``pretrained`` weights are random, the vocabulary is empty.

    Raises ``WeightsError``, and ``InvalidModel`` where the package cannot be imported.
    """
    if pretrained:
        return SAM3ZeroShot(_load(_network(expanded(config.vocabulary)), config.checkpoint()), config)
    with tempfile.TemporaryDirectory() as folder:
        empty = Path(folder, "vocabulary.txt.gz")
        empty.write_bytes(gzip.compress(b""))
        return SAM3ZeroShot(_network(empty), config)


class _NotOnCuda(TorchFunctionMode):
    """Replaces the device ``cuda``, on which sam3 0.1.4 builds its tables, by that of the other tensors."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = {k: v for k, v in (kwargs or {}).items() if (k, str(v)) != ("device", "cuda")}
        return func(*args, **kwargs)


def _network(vocabulary: Path) -> nn.Module:
    """Builds the image model of ``build_sam3_image_model`` with random weights, on any device."""
    backends = torch.backends.cuda.matmul, torch.backends.cudnn
    tf32 = [backend.allow_tf32 for backend in backends]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # warnings about autocast of the video part, without a GPU
            from sam3.model_builder import build_sam3_image_model
    except ImportError as error:
        reason = f"needs the whole sam3 package, which cannot be imported: {error}"
        raise InvalidModel(f"name: sam3_zero_shot {reason}") from None
    finally:  # the import allows TF32 in the whole process, but it is a setting of the trial (train.tf32)
        for backend, allowed in zip(backends, tf32):
            backend.allow_tf32 = allowed
    with _NotOnCuda():
        network = build_sam3_image_model(bpe_path=str(vocabulary), device="cpu", load_from_HF=False)
    for module in network.modules():  # tables that do not move to another device; they are made again when needed
        if hasattr(module, "compilable_cord_cache"):
            module.compilable_cord_cache = module.compilable_stored_size = None
        if type(module).__name__ == "PositionEmbeddingSine":
            module.cache.clear()
    return network


def _load(network: nn.Module, path: Path) -> nn.Module:
    """Fills the network from sam3.pt. Further tensors in the file are no error. Missing ones are, unlike in sam3."""
    state = {k.removeprefix(PREFIX): v for k, v in weights.only(path).items() if k.startswith(PREFIX)}
    try:
        lacking = network.load_state_dict(state, strict=False).missing_keys
    except RuntimeError as error:
        raise weights.WeightsError(f"{path}: {' '.join(str(error).split())[:500]}") from None
    if lacking:
        some = ", ".join(sorted(lacking)[:5])
        raise weights.WeightsError(f"{path}: {len(lacking)} tensors of SAM3 are missing, such as {some}")
    return network
