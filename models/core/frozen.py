"""Frozen linear layers: they save no weight for the backward pass, and may be stored in fewer bits than float32.

``float32``    unchanged
``bfloat16``   half the bytes
``int8``       a quarter: one scale for each output channel (torchao's ``Int8Tensor``)
``nf4``        0.13 of them: four bits, an 8-bit scale for each 64 weights (QLoRA, Dettmers et al., NeurIPS 2023;
               torchao's ``NF4Tensor``)

Autograd saves even a frozen weight with its layer's activations. This costs time and memory. Activation checkpointing
recomputes a block up to its last saved tensor, for a frozen block the whole MLP without any use
(``models.core.activation_checkpointing``). Under autocast each weight has a copy, in autocast's type, until the
backward pass.

torchao packs and unpacks. A weight is unpacked for each use and again in the backward pass; between them only the
packed weight exists. The multiplication is the suite's own: torchao's int8 layer (0.18) saves the unpacked weight for
the backward pass. The parts of torchao's tensors are held as plain parameters, which move between devices, have
digests and can be fake as any other.
"""

import logging
from collections.abc import Iterator
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from math import gcd
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.core.registry import Missing

for noisy in ("torchao", "torch.utils._pytree"):  # on import of torchao, also by peft: deprecations, unused kernels
    logging.getLogger(noisy).setLevel(logging.ERROR)

Storage = Literal["float32", "bfloat16", "int8", "nf4"]
PACKED = ("int8", "nf4")
NF4_BLOCK = 64
NF4_SCALES = 256
"""Largest number of scales that share a factor; torchao requires a divisor of the number of scales."""


class StoredLinear(nn.Module):
    """``nn.Linear`` with its frozen weight in another format: x [..., in] -> [..., out] in x's or autocast's type."""

    def __init__(self, linear: nn.Linear, storage: Storage) -> None:
        super().__init__()
        self.in_features, self.out_features, self.storage = linear.in_features, linear.out_features, storage
        weight = linear.weight.detach()
        if storage == "bfloat16":
            parts = {"codes": weight.bfloat16()}
        else:
            packed = _pack(weight, storage)
            names, self.layout = packed.__tensor_flatten__()
            # copied: a view keeps its strides and the memory of the whole
            parts = {name: getattr(packed, name).clone(memory_format=torch.contiguous_format) for name in names}
        self.part_names = tuple(parts)
        for name, part in parts.items():
            self.register_parameter(name, nn.Parameter(part, requires_grad=False))
        self.bias = linear.bias
        narrow = None if linear.bias is None else linear.bias.detach().bfloat16()
        self.register_buffer("bias_in_bfloat16", narrow, persistent=False)  # not cast again in every step

    @property
    def weight(self) -> Tensor:
        """The unpacked weight [out, in], float32."""
        return self.unpacked(torch.float32)

    def unpacked(self, dtype: torch.dtype) -> Tensor:
        """Returns the weight [out, in] in the type of the computation."""
        if self.storage == "bfloat16":
            return self.codes.to(dtype)
        parts = {name: getattr(self, name) for name in self.part_names}
        packed = getattr(_torchao(), self.storage).__tensor_unflatten__(parts, self.layout, None, None)
        return packed.dequantize(dtype) if self.storage == "int8" else packed.get_original_weight().to(dtype)

    def bias_as(self, dtype: torch.dtype) -> Tensor | None:
        """Returns the bias [out] in the type of the computation."""
        if dtype == torch.bfloat16 or self.bias is None:
            return self.bias_in_bfloat16
        return self.bias.to(dtype)

    def forward(self, x: Tensor) -> Tensor:
        if torch.compiler.is_compiling():  # as in FrozenLinear; recomputation, too, needs plain operators
            dtype = _type_of_products(x)
            return F.linear(x.to(dtype), self.unpacked(dtype), self.bias_as(dtype))
        return _multiply(x, self)


class FrozenLinear(nn.Linear):
    """A frozen ``nn.Linear``: the same numbers to the bit, and nothing is saved for the backward pass."""

    def unpacked(self, dtype: torch.dtype) -> Tensor:
        return self.weight.to(dtype)

    def bias_as(self, dtype: torch.dtype) -> Tensor | None:
        return None if self.bias is None else self.bias.to(dtype)

    def forward(self, x: Tensor) -> Tensor:
        trains = self.weight.requires_grad or (self.bias is not None and self.bias.requires_grad)
        # a compiler itself finds tensors that need not be saved
        if trains or not (self.training and torch.is_grad_enabled()) or torch.compiler.is_compiling():
            return super().forward(x)
        return _multiply(x, self)


def _multiply(x: Tensor, layer: StoredLinear | FrozenLinear) -> Tensor:
    return _Multiply.apply(x.to(_type_of_products(x)), layer)


def _type_of_products(x: Tensor) -> torch.dtype:
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


class _Multiply(torch.autograd.Function):
    """Saves the layer, which exists anyway, instead of its unpacked weight."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: StoredLinear | FrozenLinear) -> Tensor:
        ctx.layer = layer
        return F.linear(x, layer.unpacked(x.dtype), layer.bias_as(x.dtype))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient @ ctx.layer.unpacked(gradient.dtype), None


def store_frozen(module: nn.Module, storage: Storage) -> None:
    """Replaces every plain, frozen ``nn.Linear`` in ``module``. With ``nf4`` those whose size is no multiple of 64 stay
    in float32, since torchao refuses them."""
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is not nn.Linear or any(p.requires_grad for p in child.parameters()):
                continue
            if storage == "float32" or (storage == "nf4" and child.weight.numel() % NF4_BLOCK):
                child.__class__ = FrozenLinear  # as torch's parametrizations do: names and hooks stay
            else:
                setattr(parent, name, StoredLinear(child, storage))


# --- torchao ----------------------------------------------------------------------------------------------------------


class _Formats(NamedTuple):
    """torchao's classes, whose modules differ between releases."""

    int8: Any
    nf4: Any
    row: Any  # one scale for each output channel


def prepare(storage: Storage) -> None:
    """Imports torchao if it is needed and installed. Call it before a model is built or measured: torchao makes tensors
    on the current default device, and takes memory that is not the model's."""
    if storage in PACKED:
        list(missing(storage))


def missing(storage: Storage) -> Iterator[Missing]:
    """Yields torchao if this storage needs it and it cannot be imported here."""
    if storage not in PACKED:
        return
    try:
        _torchao()
    except (ImportError, AttributeError) as error:  # AttributeError: a torch that is older than it expects
        try:
            what = f"torchao {version('torchao')} cannot be imported with torch {torch.__version__} ({error})"
        except PackageNotFoundError:
            what = "the package torchao is not installed"
        remedy = "pip install -U torchao (its releases go with torch's), or set model.frozen_weights=bfloat16"
        yield Missing("package", "frozen_weights", what, remedy)


@cache
def _torchao() -> _Formats:
    from torchao.quantization import Int8Tensor
    from torchao.quantization.granularity import PerRow

    try:
        from torchao.quantization import NF4Tensor
    except ImportError:  # until 0.17
        from torchao.dtypes import NF4Tensor
    return _Formats(Int8Tensor, NF4Tensor, PerRow)


def _pack(weight: Tensor, storage: Storage) -> Tensor:
    formats = _torchao()
    if storage == "int8":
        return formats.int8.from_hp(weight, granularity=formats.row())
    return formats.nf4.from_tensor(weight, NF4_BLOCK, gcd(weight.numel() // NF4_BLOCK, NF4_SCALES))
