"""Checkpoints reduced to the tensors of one module: made once, then mapped from disk by all trials of a machine.

A mapped gigabyte costs no time until it is used, and trials on one machine share its pages. A file that cannot be read
is set aside and made again (``models.cache.made_once``). A checkpoint that changes (size or time of modification) gets
a new file.
"""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from models.cache.made_once import made_once
from models.core.paths import NoCacheFolder, cache_folder

FORMAT = 1


class WeightsError(Exception):
    """A checkpoint that cannot be read, or whose tensors are not those of the module."""


def root() -> Path:
    """Returns ``weights`` in the folder of caches. Raises ``WeightsError`` where there is none."""
    try:
        return cache_folder() / "weights"
    except NoCacheFolder as error:
        raise WeightsError(str(error)) from None


def mapped(
    source: Path, shapes: dict[str, tuple[int, ...]], make: Callable[[], tuple[dict[str, Tensor], str]]
) -> tuple[dict[str, Tensor], str]:
    """Returns tensors of these names and shapes, mapped from disk, and the note about them.

    Writing to such a tensor changes the copy of this process only.

    source: the checkpoint that holds them. make: reads the checkpoint; it is called only if there is no usable file,
    and its note is kept with the tensors. Raises ``WeightsError`` if the disk refuses, and all that ``make`` raises.
    """
    path = root() / f"{_key(source, shapes)}.safetensors"

    def write(temporary: Path) -> None:
        state, note = make()
        save_file({name: value.contiguous() for name, value in state.items()}, temporary, {"note": note})

    def damage(path: Path) -> str | None:
        try:
            state, _ = _read(path)
        except (OSError, SafetensorError) as error:
            return str(error)
        found = {name: tuple(value.shape) for name, value in state.items()}
        return None if found == shapes else "it holds other tensors"

    try:
        made_once(path, write, damage)
        return _read(path)
    except (OSError, SafetensorError) as error:
        remedy = "set SAM3_BENCH_CACHE to a folder with room"
        raise WeightsError(f"the cache of weights at {path.parent} cannot be used: {error}; {remedy}") from None


def _key(source: Path, shapes: dict[str, tuple[int, ...]]) -> str:
    """Returns 32 hex digits over the checkpoint's path, size and time, and over the names and shapes."""
    try:
        status = source.stat()
    except OSError as error:
        raise WeightsError(f"{source}: {(error.strerror or str(error)).lower()}") from None
    identity = [FORMAT, str(source.resolve()), status.st_size, status.st_mtime_ns, sorted(shapes.items())]
    return hashlib.blake2b(json.dumps(identity).encode(), digest_size=16).hexdigest()


def _read(path: Path) -> tuple[dict[str, Tensor], str]:
    """Returns the cached tensors and their note. Raises ``OSError`` or ``SafetensorError`` for a damaged file."""
    state = load_file(path)
    with safe_open(path, "pt") as file:
        return state, (file.metadata() or {}).get("note", "")
