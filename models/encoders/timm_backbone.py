"""Any backbone of timm that supports adapters, by timm's name: DINOv2, DINOv3, SAM's and other ViTs, ConvNeXt, Swin.

Plain ViTs give one map, that of the last block: after the final norm for ViTs and DINOv3, as their authors use it,
and without SAM's neck. ConvNeXt and Swin give the maps of their four stages. Position embeddings are resampled to the
image's size by timm when the weights are loaded.

Each backbone was trained on images normalised in its own way (``timm.get_pretrained_cfg(NAME).mean``): ImageNet's
statistics for DINOv2, DINOv3, SAM's ViT, ConvNeXt and Swin, 0.5 and 0.5 (``transform.normalisation=sam3``) for the
AugReg and SigLIP ViTs. The transform belongs to the trial and is not changed here.
"""

import inspect
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import timm
import torch
from huggingface_hub import try_to_load_from_cache
from pydantic import field_validator
from pydantic_core import PydanticCustomError
from torch import Tensor, nn

from models.core import weights
from models.core.activation_checkpointing import Checkpointing
from models.core.pretrained import Pretrained
from models.core.registry import InvalidModel, did_you_mean

CHECKPOINT_NAMES = ("model.safetensors", "pytorch_model.bin")


class Family(NamedTuple):
    """Properties of a class of timm that the encoder's contract depends on."""

    layout: Literal["tokens", "channels_last", "channels_first"]  # of the tensors between blocks
    stages: str  # the attribute that holds the stages, each with ``blocks``; empty: the trunk has ``blocks`` itself
    final_norm: bool  # the last map is taken after the trunk's final norm
    context: bool  # blocks get more arguments than their input, such as rotary positions


FAMILIES = {
    "VisionTransformer": Family("tokens", "", final_norm=True, context=False),
    "Eva": Family("tokens", "", final_norm=True, context=True),  # DINOv3 and EVA-02
    "VisionTransformerSAM": Family("channels_last", "", final_norm=False, context=False),
    "ConvNeXt": Family("channels_first", "stages", final_norm=False, context=False),
    "SwinTransformer": Family("channels_last", "layers", final_norm=False, context=False),
}


class Config(Pretrained):
    shapeless: ClassVar[frozenset[str]] = frozenset({"weights", "checkpointing"})
    by_path: ClassVar[str] = "give model.encoder.weights=PATH or model.encoder.weights=random"

    name: Literal["timm_backbone"] = "timm_backbone"
    model: str = "vit_base_patch14_dinov2.lvd142m"
    """timm's name, with or without the tag of its weights."""
    weights: str = "pretrained"
    """``pretrained``: the file that timm has put into the Hugging Face cache; ``random``; or a path."""
    checkpointing: Checkpointing = True
    """Recompute activations in the backward pass, as SAM3's encoder does by default, or those of the first N blocks."""

    @field_validator("model")
    @classmethod
    def _known_to_timm(cls, name: str) -> str:
        architecture = name.split(".")[0]
        if not timm.is_model(architecture):
            hint = did_you_mean(architecture, timm.list_models())
            raise PydanticCustomError("timm_model", "timm has no such model{hint}", {"hint": hint.rstrip(".")})
        try:
            timm.get_pretrained_cfg(name)
        except RuntimeError as error:
            raise PydanticCustomError("timm_tag", "{reason}", {"reason": str(error).rstrip(".")}) from None
        return name

    def published_checkpoint(self) -> Path | None:
        """Returns timm's file in the Hugging Face cache; ``None`` if it is not there."""
        repository = self._repository()
        if repository is None:
            return None
        cached = (try_to_load_from_cache(repository, name) for name in CHECKPOINT_NAMES)
        return next((Path(path) for path in cached if isinstance(path, str)), None)

    def not_found(self) -> str:
        repository = self._repository()
        if repository is None:
            return f"timm has no weights of {self.model}"
        return f"{repository} is not in the Hugging Face cache"

    def how_to_get(self) -> str:
        repository = self._repository()
        return (
            f"run 'hf download {repository} {CHECKPOINT_NAMES[0]}', or {self.by_path}" if repository else self.by_path
        )

    def _repository(self) -> str | None:
        described = timm.get_pretrained_cfg(self.model)
        return described.hf_hub_id if described else None


class TimmBackbone(nn.Module):
    """images [B, 3, H, W] -> one map [B, C, H/patch, W/patch], or four maps from fine to coarse."""

    def __init__(self, config: Config, family: Family, options: dict[str, Any]) -> None:
        super().__init__()
        self.config = config
        self.family = family
        self.options = options
        self._adopt(timm.create_model(config.model, **options))

    def _adopt(self, trunk: nn.Module) -> None:
        trunk.set_grad_checkpointing(self.config.checkpointing is True)
        info = trunk.feature_info
        self.trunk = trunk
        self.recomputes_itself = True
        self.prefix_tokens = getattr(trunk, "num_prefix_tokens", 0) if self.family.layout == "tokens" else 0
        if self.family.stages:
            groups = [stage.blocks for stage in getattr(trunk, self.family.stages)]
            widths = [stage["num_chs"] for stage in info]
            self.channels = tuple(widths)[-4:]
        else:
            groups, widths = [trunk.blocks], [info[-1]["num_chs"]]
            self.channels = (widths[0],)
        self.block_dims = tuple(width for group, width in zip(groups, widths) for _ in group)
        self.blocks = _Blocks(self._places(groups))

    def _places(self, groups: list[nn.Module]) -> Iterator[tuple[nn.Module, str]]:
        """Yields the place of each block: a module and its child's name. Blocks that no adapter can call get a slot."""
        gridless = self.family.layout == "tokens" and not self.prefix_tokens
        for group in groups:
            for name, block in list(group.named_children()):
                if not (gridless or self.family.context or self.family.layout == "channels_first"):
                    yield group, name
                    continue
                side = self.trunk.patch_embed.grid_size[0] if gridless else 0
                slot = _Slot(block, self.family.layout == "channels_first", side)
                setattr(group, name, slot)
                yield slot, "inner"

    def stem_parameters(self) -> Iterator[nn.Parameter]:
        """Yields the parameters before, between and after the blocks that are used."""
        stem = ("patch_embed", "pos_embed", "cls_token", "reg_token", "stem") + ("norm_pre", "norm") * (
            not self.family.stages
        )
        for name, parameter in self.trunk.named_parameters():
            if name.split(".")[0] in stem or ".downsample." in name:
                yield parameter

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        norm = self.family.final_norm
        return tuple(self.trunk.forward_intermediates(images, len(self.channels), norm=norm, intermediates_only=True))

    @property
    def cuts(self) -> tuple[int]:
        """Only the place after the last block: the tensors between blocks differ between timm's families."""
        return (len(self.blocks),)

    def run_to(self, images: Tensor, block: int) -> tuple[Tensor, ...]:
        assert block in self.cuts
        return self(images)

    def run_from(self, hidden: tuple[Tensor, ...], block: int) -> tuple[Tensor, ...]:
        assert block in self.cuts
        return hidden

    def load_pretrained(self) -> int:
        """Loads the checkpoint through timm's own filter; returns the number of tensors.

        timm itself only logs tensors that a checkpoint lacks and leaves them at random. Here that raises
        ``WeightsError``, and so does a ``pretrained`` file that is not in the cache: a trial never downloads.
        """
        if self.config.weights == "random":
            return 0
        path = self.config.checkpoint()
        if path is None:
            raise weights.WeightsError("; ".join(f"{m.what}: {m.remedy}" for m in self.config.missing()))
        trunk = timm.create_model(self.config.model, **self.options)  # without slots, under timm's names
        wanted = trunk.state_dict().keys()
        classifier = trunk.pretrained_cfg["classifier"] or ()
        heads = tuple(f"{c}." for c in ((classifier,) if isinstance(classifier, str) else classifier))
        try:
            with torch.device("cpu"):  # where the checkpoint is, also while the trunk is a skeleton
                found = inspect.getmodule(type(trunk)).checkpoint_filter_fn(weights.only(path), trunk)
            found = {name: value for name, value in found.items() if name in wanted or not name.startswith(heads)}
            trunk.load_state_dict(found)
        except (RuntimeError, KeyError, ValueError, AttributeError) as error:
            reason = " ".join(str(error).split())[:500]
            raise weights.WeightsError(f"{path}: these are not the weights of {self.config.model}: {reason}") from None
        self._adopt(trunk)
        return len(found)


class _Blocks(Sequence):
    """The blocks of all stages as one list. Setting an item replaces the block in the trunk."""

    def __init__(self, places: Iterator[tuple[nn.Module, str]]) -> None:
        self.places = list(places)

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, i: int) -> nn.Module:
        return getattr(*self.places[i])

    def __setitem__(self, i: int, block: nn.Module) -> None:
        setattr(*self.places[i], block)


class _Slot(nn.Module):
    """A place in the trunk for a block. An adapter may replace ``inner``, which gets the contract's input: [B, H, W, C]
    or tokens, and nothing else. timm's block, called with it, gets its own layout and arguments."""

    def __init__(self, block: nn.Module, channels_first: bool, side: int) -> None:
        super().__init__()
        self.channels_first = channels_first
        self.side = side
        self.context: dict[str, Any] = {}
        self.inner = block
        self.original = (block,)  # in a tuple, so that it is no second child
        block.forward = self._original_forward  # not a wrapper: adapters find layers inside blocks by name

    def forward(self, x: Tensor, **context: Any) -> Tensor:
        self.context = context
        return self._leave(self.inner(self._enter(x)))

    def _original_forward(self, x: Tensor) -> Tensor:
        (block,) = self.original
        return self._enter(type(block).forward(block, self._leave(x), **self.context))

    def _enter(self, x: Tensor) -> Tensor:
        """Converts the trunk's layout to the contract's."""
        if self.channels_first:
            return x.permute(0, 2, 3, 1)
        return x.unflatten(1, (self.side, -1)) if self.side else x

    def _leave(self, x: Tensor) -> Tensor:
        if self.channels_first:
            return x.permute(0, 3, 1, 2)
        return x.flatten(1, 2) if self.side else x


def build(config: Config, image_size: int) -> TimmBackbone:
    """Raises ``InvalidModel`` for a backbone of another family and when the patches do not fill the image."""
    with torch.device("meta"):
        shape = timm.create_model(config.model, num_classes=0)
    kind = type(shape).__name__
    if kind not in FAMILIES:
        known = ", ".join(FAMILIES)
        raise InvalidModel(f"encoder: {config.model} is a {kind} of timm, and adapters support {known}")
    family = FAMILIES[kind]
    patch = shape.feature_info[0]["reduction"]
    smallest = shape.feature_info[-1]["reduction"]
    if image_size % patch or image_size < smallest:
        low = max(image_size // patch * patch, smallest)
        near = ", ".join(str(n) for n in (low, low + patch))
        fault = f"transform.size {image_size} is no multiple of its patch size {patch}"
        if image_size % patch == 0:
            fault = f"transform.size {image_size} is below the {smallest} px of its coarsest map"
        raise InvalidModel(f"encoder: {fault}. Nearest: {near}")
    options: dict[str, Any] = {"num_classes": 0}
    if "img_size" in inspect.signature(type(shape).__init__).parameters:
        options["img_size"] = image_size
    return TimmBackbone(config, family, options)
