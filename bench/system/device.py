"""The device of this process, and float32 matrix products on it: with TF32, as in upstream, or without."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch

TF32_FROM = 8
"""Lowest major compute capability with TF32 (Ampere)."""


def device_of(kind: str) -> torch.device:
    """Returns ``cpu``, or for ``cuda`` the current GPU with its index, which some of torch's functions need.

    Raises torch's ``RuntimeError`` or ``AssertionError`` if there is no GPU.
    """
    return torch.device("cuda", torch.cuda.current_device()) if kind == "cuda" else torch.device(kind)


@contextmanager
def float32_products(device: torch.device, tf32: bool) -> Iterator[None]:
    """Allows TF32 on a GPU for the body, or forbids it in matrix products, and restores torch's flags afterwards.

    ``tf32`` sets the two flags that ``_setup_tf32`` of sam3 sets when the package is imported (sam3 0.1.4,
    model_builder.py; the same in WZH0120/SAM3-UNet fdb21da), from the same compute capability on. Without it the flags
    have torch's defaults: convolutions may use TF32, matrix products may not. Both are set in either case, so that
    neither the environment nor an import decides. A CPU has no TF32, and nothing is set for it.
    """
    if device.type != "cuda":
        yield
        return
    allowed = tf32 and torch.cuda.get_device_capability(device)[0] >= TF32_FROM
    before = tf32_flags()
    _set_flags(allowed, True)
    try:
        yield
    finally:
        _set_flags(*before)


def tf32_flags() -> tuple[bool, bool]:
    """Returns whether matrix products and whether convolutions may use TF32."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch 2.9 recommends new names for the flags, which torch 2.5 does not have
        return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32


def _set_flags(products: bool, convolutions: bool) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.backends.cuda.matmul.allow_tf32 = products
        torch.backends.cudnn.allow_tf32 = convolutions


def is_out_of_memory(error: Exception) -> bool:
    """Recognises the errors of CUDA, of Python, and of torch's CPU allocator, which raises a ``RuntimeError``."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "DefaultCPUAllocator" in str(error)
