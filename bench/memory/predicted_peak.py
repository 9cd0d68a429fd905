"""Predicted peak memory of a trial's training step on a GPU. Fake tensors need no GPU, no weights and no memory."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.nn import functional as F

from bench.config.trial import TrialConfig
from bench.memory.card_generations import DEFAULT, Generation
from bench.memory.cuda.autocast import cuda_autocast
from bench.memory.step_memory import StepMemory, Tracker, follow_step
from bench.training.optimiser import make_optimiser
from models.core.registry import InvalidModel
from models.core.size import height_width
from models.core.skeleton import skeleton

FLASH_HEAD_DIM = 256
PARTS_OF_A_BATCH = ("gradients", "activations", "temporaries")
"""Parts of the peak that a step takes anew."""


@dataclass(frozen=True)
class PredictedPeak:
    """Predicted peak of a training step, in bytes; never a measurement."""

    step: StepMemory
    generation: Generation = DEFAULT
    """Generation of the card."""
    recorded: bool = False
    """Whether the step is recorded (``train.compile: step``): a CUDA graph keeps its memory, and the last, smaller batch
    of an epoch runs beside it. That batch is taken to be as large as the others, so the figure is an upper bound."""

    @property
    def allocated(self) -> int:
        """Prediction of ``torch.cuda.max_memory_allocated``."""
        return self.step.allocated

    @property
    def parts(self) -> dict[str, int]:
        """The parts of ``allocated``; cuBLAS's workspaces are temporaries."""
        return self.step.parts

    @property
    def reserved(self) -> int:
        """Prediction of ``torch.cuda.max_memory_reserved`` in a training."""
        beside = sum(self.parts[part] for part in PARTS_OF_A_BATCH) if self.recorded else 0
        return self.step.reserved + beside

    @property
    def device(self) -> int:
        """Prediction of the use that nvidia-smi shows for a card without other processes."""
        return self.reserved + self.generation.outside(self.step.handles)


def prediction_key(config: TrialConfig) -> str:
    """Returns a key that is equal for trials with equal predictions."""
    model, transform, train = (part.model_dump(mode="json") for part in (config.model, config.transform, config.train))
    return json.dumps([model, transform, {**train, "compile": config.train.compile == "step"}])


class Unpredictable(Exception):
    """A model whose step fake tensors cannot execute, e.g. because it depends on a value."""


def predict_peak(config: TrialConfig, generation: Generation = DEFAULT) -> PredictedPeak:
    """Predicts the peak of a training step on a card of this generation. Compilation is not counted.

    Raises ``InvalidModel`` for a model that cannot be built, and ``Unpredictable`` for one that trains nothing or that
    fake tensors cannot execute.
    """
    step = _predicted(config, cuda=True, workspace_bytes=generation.workspace_bytes)
    return PredictedPeak(step, generation, config.train.compile == "step")


def predict_tensors(config: TrialConfig) -> int:
    """Predicts the bytes of living tensors at the peak of a training step on a CPU. Raises as ``predict_peak``."""
    return _predicted(config, cuda=False).allocated


def _predicted(config: TrialConfig, *, cuda: bool, workspace_bytes: int = 0) -> StepMemory:
    try:
        return fake_step_memory(config, cuda=cuda, workspace_bytes=workspace_bytes)
    except InvalidModel:
        raise
    except (RuntimeError, ValueError) as error:  # the reasons of fake tensors; a batch norm with a single value
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise Unpredictable(f"its step cannot be executed on fake tensors ({reason})") from error


def fake_step_memory(config: TrialConfig, *, cuda: bool, workspace_bytes: int = 0) -> StepMemory:
    """Tracks one step of the trial on fake tensors.

    cuda: with CUDA's kernels and rounding, else with the CPU's; workspace_bytes: of a cuBLAS handle. Raises
    ``InvalidModel``, and ``Unpredictable`` for a model that trains nothing.
    """
    shape = skeleton(config.model, config.transform.size)
    if not any(parameter.requires_grad for parameter in shape.parameters()):
        raise Unpredictable("nothing in it trains, so it has no training step")
    height, width = height_width(config.transform.size)
    batch = config.train.batch_size
    tracker = Tracker(cuda=cuda, workspace_bytes=workspace_bytes)
    with FakeTensorMode(), tracker, _cuda_kernels() if cuda else nullcontext():
        model = _materialise(shape).train()
        images = torch.empty(batch, height, width, 3, dtype=torch.uint8)
        masks = torch.empty(batch, height, width, dtype=torch.uint8)
        optimiser = make_optimiser(model, config.train, fused=cuda)
        return follow_step(tracker, model, optimiser, images, masks, config)


def _materialise(model: nn.Module) -> nn.Module:
    """Replaces every tensor of a model on the meta device by one on the (fake) CPU; shared tensors stay shared."""
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
    """Makes CPU tensors use the kernels of CUDA, where the two differ in the memory that they allocate.

    The functions are replaced in ``torch.nn.functional``, because a ``TorchFunctionMode`` is not active when a
    checkpointed block runs again within the backward pass.
    """
    originals = {name: getattr(F, name) for name in ("scaled_dot_product_attention", "dropout")}
    F.scaled_dot_product_attention = partial(_attention, originals["scaled_dot_product_attention"])
    F.dropout = _dropout
    try:
        with cuda_autocast():
            yield
    finally:
        for name, function in originals.items():
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
    """Uses flash attention in half precision without a mask, else memory-efficient attention: no N x N scores."""
    if torch.is_autocast_enabled("cpu"):
        query, key, value = (t.to(torch.get_autocast_dtype("cpu")) for t in (query, key, value))
    supported = query.dim() == 4 and query.shape[-1] <= FLASH_HEAD_DIM and not enable_gqa
    if not supported:
        return other(query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa)
    if query.dtype in (torch.bfloat16, torch.float16) and attn_mask is None:
        flash = torch.ops.aten._scaled_dot_product_flash_attention
        return flash(query, key, value, dropout_p, is_causal, scale=scale)[0]
    mask = None if attn_mask is None else attn_mask.expand(*query.shape[:3], key.shape[2])
    needs_grad = any(t.requires_grad for t in (query, key, value))
    efficient = torch.ops.aten._scaled_dot_product_efficient_attention
    return efficient(query, key, value, mask, needs_grad, dropout_p, is_causal, scale=scale)[0]


def _dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Keeps a mask of one byte for each element, as CUDA does."""
    return torch.native_dropout(input, p, True)[0] if training and p > 0 else input
