"""Whole networks of ``segmentation_models_pytorch`` (smp, github.com/qubvel-org/segmentation_models.pytorch).

All of their weights are trained. They are the baselines without SAM.
"""

from pathlib import Path
from typing import ClassVar

from huggingface_hub import try_to_load_from_cache
from pydantic import PositiveInt, field_validator
from pydantic_core import PydanticCustomError
from segmentation_models_pytorch.base import SegmentationModel
from segmentation_models_pytorch.encoders import encoders
from torch import Tensor, nn

from models.core import weights
from models.core.pretrained import Pretrained
from models.core.registry import InvalidModel, did_you_mean

FILE = "model.safetensors"


class Config(Pretrained):
    """Settings that these networks share."""

    shapeless: ClassVar[frozenset[str]] = frozenset({"weights"})
    published: ClassVar[str] = "imagenet"
    by_path: ClassVar[str] = "give model.weights=PATH or model.weights=random"

    backbone: str
    """Name of the encoder in smp."""
    weights: str = "imagenet"
    """Weights of the backbone: ``imagenet``, the file that smp has put into the Hugging Face cache; ``random``; or a
    path."""
    num_classes: PositiveInt = 1

    @field_validator("backbone")
    @classmethod
    def _known_to_smp(cls, name: str) -> str:
        if name not in encoders:
            hint = did_you_mean(name, list(encoders)).rstrip(".")
            text = "segmentation_models_pytorch has no such encoder{hint}"
            raise PydanticCustomError("smp_encoder", text, {"hint": hint})
        return name

    def published_checkpoint(self) -> Path | None:
        """Returns smp's file in the Hugging Face cache; ``None`` if it is not there."""
        source = self._source()
        if source is None:
            return None
        cached = try_to_load_from_cache(source["repo_id"], FILE, revision=source["revision"])
        return Path(cached) if isinstance(cached, str) else None

    def not_found(self) -> str:
        source = self._source()
        if source is None:
            return f"smp has no ImageNet weights of {self.backbone}"
        return f"{source['repo_id']} is not in the Hugging Face cache"

    def how_to_get(self) -> str:
        source = self._source()
        if source is None:
            return self.by_path
        return f"run 'hf download {source['repo_id']} {FILE} --revision {source['revision']}', or {self.by_path}"

    def _source(self) -> dict[str, str] | None:
        return encoders[self.backbone]["pretrained_settings"].get("imagenet")


class SmpNetwork(nn.Module):
    """images [B, 3, H, W] -> (logits [B, num_classes, H, W],)."""

    def __init__(self, network: SegmentationModel) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor]:
        return (self.network(images),)


def assemble(
    network: SegmentationModel, config: Config, image_size: int, multiple: int, pretrained: bool
) -> SmpNetwork:
    """Wraps the network, and loads its backbone's weights if ``pretrained``.

    Raises ``InvalidModel`` for a size that is no multiple of ``multiple``, ``WeightsError`` for a wrong checkpoint.
    """
    if image_size % multiple:
        low = image_size // multiple * multiple
        near = ", ".join(str(n) for n in (low, low + multiple) if n)
        raise InvalidModel(f"{config.name}: transform.size {image_size} is no multiple of {multiple}. Nearest: {near}")
    if pretrained and config.weights != "random":
        path = config.checkpoint()
        if path is None:
            raise weights.WeightsError("; ".join(f"{m.what}: {m.remedy}" for m in config.missing()))
        state = weights.only(path)
        try:
            network.encoder.load_state_dict(state)
        except (RuntimeError, KeyError) as error:
            reason = " ".join(str(error).split())[:500]
            raise weights.WeightsError(f"{path}: these are not the weights of {config.backbone}: {reason}") from None
    return SmpNetwork(network)
