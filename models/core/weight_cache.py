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

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from models.core.paths import NoCacheFolder, cache_folder

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
    source: Path, shapes: dict[str, tuple[int, ...]], make: Callable[[], tuple[dict[str, Tensor], str]]
) -> tuple[dict[str, Tensor], str]:
    """Tensors of these names and shapes, mapped from disk, and the note about them; writing to a tensor changes this
    process's copy only.

    source: the checkpoint they come from; make: reads it, and is called only if there is no usable file yet; its note
    is kept with the tensors. Raises ``WeightsError`` if the disk refuses, and whatever ``make`` raises.
    """
    path = root() / f"{_key(source, shapes)}.safetensors"
    if path.exists():
        found = _read(path, shapes)
        if found is not None:
            return found
        _set_aside(path)
    state, note = make()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(path, state, note)
        return load_file(path), note
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


def _read(path: Path, shapes: dict[str, tuple[int, ...]]) -> tuple[dict[str, Tensor], str] | None:
    """The cached tensors and their note; ``None`` if the file is damaged."""
    try:
        state = load_file(path)
        with safe_open(path, "pt") as file:
            note = (file.metadata() or {}).get("note", "")
    except (OSError, SafetensorError):
        return None
    return (state, note) if {name: tuple(value.shape) for name, value in state.items()} == shapes else None


def _set_aside(path: Path) -> None:
    """Keeps a damaged file for whoever wants to know why, out of the way. Somebody else may have been faster."""
    try:
        path.rename(path.with_suffix(".damaged"))
    except FileNotFoundError:
        pass


def _write(path: Path, state: dict[str, Tensor], note: str) -> None:
    with tempfile.TemporaryDirectory(prefix=".making-", dir=path.parent) as folder:
        temporary = Path(folder) / path.name
        save_file({name: value.contiguous() for name, value in state.items()}, temporary, {"note": note})
        os.replace(temporary, path)
