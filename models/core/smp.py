"""Whole networks of ``segmentation_models_pytorch`` (smp, github.com/qubvel-org/segmentation_models.pytorch), all of
whose weights are trained: what somebody without SAM would use."""

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from huggingface_hub import try_to_load_from_cache
from pydantic import PositiveInt, field_validator
from pydantic_core import PydanticCustomError
from segmentation_models_pytorch.base import SegmentationModel
from segmentation_models_pytorch.encoders import encoders
from torch import Tensor, nn

from models.core import weights
from models.core.paths import expanded
from models.core.registry import InvalidModel, Missing, did_you_mean
from models.core.registry import Config as Base

FILE = "model.safetensors"


class Config(Base):
    """What these networks have in common."""

    shapeless: ClassVar[frozenset[str]] = frozenset({"weights"})

    backbone: str
    """smp's name of the encoder."""
    weights: str = "imagenet"
    """Of the backbone. ``imagenet``: the file that smp has put into the Hugging Face cache; ``random``; or a path."""
    num_classes: PositiveInt = 1

    @field_validator("backbone")
    @classmethod
    def _known_to_smp(cls, name: str) -> str:
        if name not in encoders:
            hint = did_you_mean(name, list(encoders)).rstrip(".")
            text = "segmentation_models_pytorch has no such encoder{hint}"
            raise PydanticCustomError("smp_encoder", text, {"hint": hint})
        return name

    def checkpoint(self) -> Path | None:
        """The checkpoint to load: ``None`` for random weights, and for ImageNet's where they are not in the cache."""
        if self.weights not in ("imagenet", "random"):
            return expanded(self.weights)
        source = self._source()
        if self.weights == "random" or source is None:
            return None
        cached = try_to_load_from_cache(source["repo_id"], FILE, revision=source["revision"])
        return Path(cached) if isinstance(cached, str) else None

    def missing(self) -> Iterator[Missing]:
        path, source = self.checkpoint(), self._source()
        by_path = "model.weights=PATH or model.weights=random"
        if path is not None and not path.is_file():
            yield Missing("weights", "weights", f"{path} does not exist", f"give {by_path}")
        elif path is None and self.weights == "imagenet" and source is None:
            yield Missing("weights", "weights", f"smp has no ImageNet weights of {self.backbone}", f"give {by_path}")
        elif path is None and self.weights == "imagenet":
            download = f"hf download {source['repo_id']} {FILE} --revision {source['revision']}"
            what = f"{source['repo_id']} is not in the Hugging Face cache"
            yield Missing("weights", "weights", what, f"run '{download}', or give {by_path}")

    def weight_files(self) -> Iterator[Path]:
        path = self.checkpoint()
        if path is not None:
            yield path

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
    """The network, with its backbone's weights if ``pretrained``.

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
