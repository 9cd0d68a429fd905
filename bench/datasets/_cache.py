"""Resized pairs on disk, mapped into memory: made once, by whoever comes first, and shared by all trials.

A cache appears under its final name only when it is complete, so several processes may start at once and a killed one
leaves nothing half-made behind.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from bench.datasets import DataError, Progress, silent
from models._size import height_width

FORMAT = 1
Pair = tuple[np.ndarray, np.ndarray]  # image uint8 [H, W, 3] and mask uint8 [H, W], of the wanted size


def root() -> Path:
    """$SAM3_BENCH_CACHE, or sam3-bench in the user's cache directory."""
    if "SAM3_BENCH_CACHE" in os.environ:
        return Path(os.environ["SAM3_BENCH_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "sam3-bench"


def digest(value: Any) -> str:
    """32 hex digits over the canonical JSON of ``value``."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def resized_pairs(
    key: Any, count: int, size: int | tuple[int, int], read: Callable[[int], Pair], progress: Progress = silent
) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 [count, H, W, 3] and masks uint8 [count, H, W], read-only and mapped from disk.

    key: everything that decides the content, as JSON; read: makes pair ``i`` and is called only if there is no cache.
    Raises ``DataError`` with all the lines of all the pairs that ``read`` raised it for, and if the disk refuses.
    """
    folder = root() / digest({"format": FORMAT, "count": count, "size": size, "key": key})
    try:
        if not folder.is_dir():
            root().mkdir(parents=True, exist_ok=True)
            _make(folder, count, height_width(size), read, progress)
        return np.load(folder / "images.npy", mmap_mode="r"), np.load(folder / "masks.npy", mmap_mode="r")
    except OSError as error:
        raise _unusable(error) from None


def remembered(key: Any, compute: Callable[[], Any]) -> Any:
    """The JSON value of ``compute()``, stored under ``key`` so that it is computed once on this machine."""
    path = root() / f"{digest({'format': FORMAT, 'key': key})}.json"
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        value = compute()
    try:
        root().mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=root(), delete=False) as file:
            json.dump(value, file)
        os.replace(file.name, path)
    except OSError as error:
        raise _unusable(error) from None
    return value


def _unusable(error: OSError) -> DataError:
    remedy = "set SAM3_BENCH_CACHE to a folder with room"
    return DataError([f"the cache of resized images at {root()} cannot be used: {error}; {remedy}"])


def _make(
    folder: Path, count: int, size: tuple[int, int], read: Callable[[int], Pair], progress: Progress
) -> None:
    temporary = Path(tempfile.mkdtemp(prefix=".making-", dir=folder.parent))
    try:
        images = np.lib.format.open_memmap(temporary / "images.npy", "w+", np.uint8, (count, *size, 3))
        masks = np.lib.format.open_memmap(temporary / "masks.npy", "w+", np.uint8, (count, *size))

        def fill(i: int) -> list[str]:
            try:
                images[i], masks[i] = read(i)
            except DataError as error:
                return error.errors
            return []

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            errors = [line for lines in progress(pool.map(fill, range(count)), count) for line in lines]
        if errors:
            raise DataError(errors)
        images.flush()
        masks.flush()
        try:
            temporary.rename(folder)
        except OSError:
            if not folder.is_dir():  # otherwise somebody else was faster, with the same content
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
