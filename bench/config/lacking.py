"""Hardware and compilers that a trial needs and this machine lacks."""

import os
import shlex
import shutil
import sys
from collections.abc import Iterator
from importlib.util import find_spec

import torch

from bench.config.errors import shortened
from bench.system.command import COMPILED
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
    """Yields what torch.compile needs here and cannot find: a compiler for C++ on a CPU; on a GPU triton and a compiler
    for C; and a folder for the compiled code that can be written."""
    variable, language = ("CXX", "C++") if device == "cpu" else ("CC", "C")
    names = ("clang++" if sys.platform == "darwin" else "g++",) if device == "cpu" else ("gcc", "clang")
    given = os.environ.get(variable)  # torch and triton then try no other
    remedy = "or set train.compile=false"
    if not any(map(_program, names if given is None else (given,))):
        where = f"{' and '.join(names)} {'is' if len(names) == 1 else 'are'} not in $PATH"
        get = f"install one (for example the package {names[0]})"
        if given is not None:
            where, get = f"${variable}={shortened(given)} names none", f"set ${variable} to one, unset it"
        what = f"torch.compile needs a {language} compiler, and {where}"
        yield Missing("package", "train.compile", what, f"{get}, {remedy}")
    if device == "cuda" and find_spec("triton") is None:
        yield Missing(
            "package", "train.compile", "the package triton is not installed", f"pip install triton, {remedy}"
        )
    folder = os.environ.get(COMPILED)
    if folder and not os.access(folder, os.W_OK):
        what = f"torch.compile cannot write to ${COMPILED}={folder}"
        yield Missing("folder", "train.compile", what, f"name a folder that can be written, {remedy}")


def _program(command: str) -> str | None:
    """Returns the path of the program that a command such as ``ccache g++`` starts; ``None`` if there is none."""
    try:
        words = shlex.split(command)
    except ValueError:  # a quotation mark is not closed
        return None
    return shutil.which(words[0]) if words else None
