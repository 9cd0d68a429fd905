"""Peak memory of a trial's training step on a GPU, predicted on fake tensors: no GPU, no weights, no memory needed."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.nn import functional as F

from bench.config.trial import TrialConfig
from bench.memory.card_generations import DEFAULT, Generation
from bench.memory.step_memory import Footprint, Tracker, follow_step
from bench.training.loop import make_optimiser
from models.core.size import height_width
from models.core.skeleton import skeleton

FLASH_HEAD_DIM = 256


@dataclass(frozen=True)
class Prediction:
    """A training step's peak, in bytes, as predicted; never a measurement."""

    footprint: Footprint
    generation: Generation = DEFAULT
    """Of the card that it is for."""

    @property
    def allocated(self) -> int:
        """What ``torch.cuda.max_memory_allocated`` is predicted to say."""
        return self.footprint.allocated

    @property
    def parts(self) -> dict[str, int]:
        """The parts of ``allocated``; cuBLAS's workspaces are temporaries."""
        return self.footprint.parts

    @property
    def reserved(self) -> int:
        """What ``torch.cuda.max_memory_reserved`` is predicted to say."""
        return self.footprint.reserved

    @property
    def device(self) -> int:
        """What nvidia-smi is predicted to show for a card that does nothing else."""
        return self.reserved + self.generation.outside(self.footprint.handles)


def prediction_key(config: TrialConfig) -> str:
    """Equal for trials whose predictions are equal."""
    return json.dumps([part.model_dump(mode="json") for part in (config.model, config.transform, config.train)])


class Unpredictable(Exception):
    """A model that does what fake tensors cannot follow, such as a step that depends on a value."""


def predict(config: TrialConfig, generation: Generation = DEFAULT) -> Prediction:
    """A step on a card of this generation.

    Raises ``InvalidModel`` for what cannot be built, ``Unpredictable`` for what trains nothing or cannot be followed.
    """
    try:
        return Prediction(fake_footprint(config, cuda=True, workspace_bytes=generation.workspace_bytes), generation)
    except RuntimeError as error:  # what torch's fake tensors raise, whatever the reason
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise Unpredictable(f"cannot be followed on fake tensors ({reason})") from error




def fake_footprint(config: TrialConfig, *, cuda: bool, workspace_bytes: int = 0) -> Footprint:
    """One step of the trial on fake tensors. ``cuda``: with CUDA's kernels and rounding, else with the CPU's;
    workspace_bytes: of a cuBLAS handle.

    Raises ``InvalidModel``, and ``Unpredictable`` for what trains nothing.
    """
    shape = skeleton(config.model, config.transform.size)
    if not any(parameter.requires_grad for parameter in shape.parameters()):
        raise Unpredictable("nothing in it trains, so it has no training step")
    height, width = height_width(config.transform.size)
    batch = config.train.batch_size
    followed = Tracker(cuda=cuda, workspace_bytes=workspace_bytes)
    with FakeTensorMode(), followed as tracker, _cuda_kernels() if cuda else nullcontext():
        model = _materialise(shape).train()
        images = torch.empty(batch, height, width, 3, dtype=torch.uint8)
        masks = torch.empty(batch, height, width, dtype=torch.uint8)
        optimiser = make_optimiser(model, config.train, foreach=cuda)
        return follow_step(tracker, model, optimiser, images, masks, config)


def _materialise(model: nn.Module) -> nn.Module:
    """Replaces every tensor of a model on the meta device by one on the (fake) CPU; shared ones stay shared."""
    made: dict[int, Tensor] = {}

    def real(tensor: Tensor) -> Tensor:
        if id(tensor) not in made:
            empty = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype)
            is_parameter = isinstance(tensor, nn.Parameter)
            made[id(tensor)] = nn.Parameter(empty, tensor.requires_grad) if is_parameter else empty
        return made[id(tensor)]

    for module in model.modules():
        for tensors in (module._parameters, module._buffers, module.__dict__):
            for name, value in list(tensors.items()):
                if isinstance(value, Tensor):
                    tensors[name] = real(value)
    return model


@contextmanager
def _cuda_kernels() -> Iterator[None]:
    """Chooses, on CPU tensors, what CUDA would choose where the two differ in what they allocate.

    The functions are replaced where modules look them up: a ``TorchFunctionMode`` is not active when a checkpointed
    block runs again within the backward pass.
    """
    kept = {name: getattr(F, name) for name in ("scaled_dot_product_attention", "dropout", "layer_norm")}
    F.scaled_dot_product_attention = partial(_attention, kept["scaled_dot_product_attention"])
    F.layer_norm = partial(_layer_norm, kept["layer_norm"])
    F.dropout = _dropout
    try:
        yield
    finally:
        for name, function in kept.items():
            setattr(F, name, function)


def _attention(
    other: Callable[..., Tensor],
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Flash attention in half precision without a mask, else the memory-efficient one: neither makes N x N scores."""
    if torch.is_autocast_enabled("cpu"):
        query, key, value = (t.to(torch.get_autocast_dtype("cpu")) for t in (query, key, value))
    fits = query.dim() == 4 and query.shape[-1] <= FLASH_HEAD_DIM and not enable_gqa
    if not fits:
        return other(query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa)
    if query.dtype in (torch.bfloat16, torch.float16) and attn_mask is None:
        flash = torch.ops.aten._scaled_dot_product_flash_attention
        return flash(query, key, value, dropout_p, is_causal, scale=scale)[0]
    mask = None if attn_mask is None else attn_mask.expand(*query.shape[:3], key.shape[2])
    needs_grad = any(t.requires_grad for t in (query, key, value))
    efficient = torch.ops.aten._scaled_dot_product_efficient_attention
    return efficient(query, key, value, mask, needs_grad, dropout_p, is_causal, scale=scale)[0]


def _dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """CUDA keeps a mask of one byte an element."""
    return torch.native_dropout(input, p, True)[0] if training and p > 0 else input


def _layer_norm(plain: Callable[..., Tensor], input: Tensor, *others: Any, **more: Any) -> Tensor:
    """CUDA's autocast takes it in float32, the CPU's in what it is given."""
    return plain(input.float() if torch.is_autocast_enabled("cpu") else input, *others, **more)
