"""Checkpoints reduced to the tensors that a module wants, on disk and mapped into memory: made once, by whoever comes
first, and shared by all trials of a machine.

A gigabyte that is mapped costs no time until it is used, and trials on one machine share its pages. A file appears
under its final name only when it is complete, so several processes may start at once; one that cannot be read is set
aside and made anew. A checkpoint that changes (size or time of modification) gets a new file.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from models._paths import NoCacheFolder, cache_folder

FORMAT = 1


class WeightsError(Exception):
    """A checkpoint that cannot be read, or whose tensors are not those of the module."""


def root() -> Path:
    """``weights`` in the folder of caches. Raises ``WeightsError`` where there is none."""
    try:
        return cache_folder() / "weights"
    except NoCacheFolder as error:
        raise WeightsError(str(error)) from None


def mapped(
    source: Path, shapes: dict[str, tuple[int, ...]], make: Callable[[], dict[str, Tensor]]
) -> dict[str, Tensor]:
    """Tensors of these names and shapes, mapped from disk; writing to one changes this process's copy only.

    source: the checkpoint they come from; make: reads it, and is called only if there is no usable file yet.
    Raises ``WeightsError`` if the disk refuses, and whatever ``make`` raises.
    """
    path = root() / f"{_key(source, shapes)}.safetensors"
    if path.exists():
        state = _read(path, shapes)
        if state is not None:
            return state
        _set_aside(path)
    state = make()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(path, state)
        return load_file(path)
    except (OSError, SafetensorError) as error:
        remedy = "set SAM3_BENCH_CACHE to a folder with room"
        raise WeightsError(f"the cache of weights at {path.parent} cannot be used: {error}; {remedy}") from None


def _key(source: Path, shapes: dict[str, tuple[int, ...]]) -> str:
    """32 hex digits over the checkpoint's place, size and time, and over what is wanted of it."""
    try:
        status = source.stat()
    except OSError as error:
        raise WeightsError(f"{source}: {(error.strerror or str(error)).lower()}") from None
    identity = [FORMAT, str(source.resolve()), status.st_size, status.st_mtime_ns, sorted(shapes.items())]
    return hashlib.blake2b(json.dumps(identity).encode(), digest_size=16).hexdigest()


def _read(path: Path, shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor] | None:
    """The cached tensors; ``None`` if the file is damaged."""
    try:
        state = load_file(path)
    except (OSError, SafetensorError):
        return None
    return state if {name: tuple(value.shape) for name, value in state.items()} == shapes else None


def _set_aside(path: Path) -> None:
    """Keeps a damaged file for whoever wants to know why, out of the way. Somebody else may have been faster."""
    try:
        path.rename(path.with_suffix(".damaged"))
    except FileNotFoundError:
        pass


def _write(path: Path, state: dict[str, Tensor]) -> None:
    with tempfile.TemporaryDirectory(prefix=".making-", dir=path.parent) as folder:
        temporary = Path(folder) / path.name
        save_file({name: value.contiguous() for name, value in state.items()}, temporary)
        os.replace(temporary, path)
