"""Hardware and compilers that a trial needs and this machine lacks."""

import os
import shutil
from collections.abc import Iterator
from importlib.util import find_spec

import torch

from models.core.registry import Missing

TENSOR_CORES = {"float16": (7, 0), "bfloat16": (8, 0)}
"""Lowest compute capability with tensor cores for a type. ``torch.cuda.is_bf16_supported`` also counts emulation."""


def tensor_cores(device: str, precision: str) -> Iterator[Missing]:
    """Yields the card if it has no tensor cores for the type of ``train.precision``; CPUs compute in all types."""
    if device == "cuda" and precision in TENSOR_CORES:
        what, remedy = without_tensor_cores(torch.cuda.get_device_capability(), precision)
        if what:
            yield Missing("device", "train.precision", f"{torch.cuda.get_device_name()} has {what}", remedy)


def without_tensor_cores(capability: tuple[int, int], precision: str) -> tuple[str, str]:
    """Returns why a card of this compute capability cannot train in a ``train.precision``, and the remedy; empty texts
    if it can."""
    needed = TENSOR_CORES.get(precision, (0, 0))
    if capability >= needed:
        return "", ""
    best = "float16" if capability >= TENSOR_CORES["float16"] else "float32"
    has = f"compute capability {capability[0]}.{capability[1]}"
    return f"{has}, and tensor cores for {precision} exist from {needed[0]}.0 on", f"set train.precision={best}"


def compiler(device: str) -> Iterator[Missing]:
    """Yields the compilers that torch.compile needs here: one for C++ on a CPU; on a GPU triton and one for C."""
    names = (os.environ.get("CXX"), "g++", "clang++") if device == "cpu" else (os.environ.get("CC"), "gcc", "clang")
    remedy = "or set train.compile=false"
    if not any(shutil.which(name) for name in names if name):
        language = "C++" if device == "cpu" else "C"
        what = f"torch.compile needs a {language} compiler, and {' and '.join(filter(None, names))} are not in $PATH"
        yield Missing("package", "train.compile", what, f"install one (for example the package g++), {remedy}")
    if device == "cuda" and find_spec("triton") is None:
        yield Missing(
            "package", "train.compile", "the package triton is not installed", f"pip install triton, {remedy}"
        )
