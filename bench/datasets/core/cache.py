"""Resized pairs on disk, mapped into memory: made once, by whoever comes first, and shared by all trials.

A cache is made under a lock and appears under its final name only when it is complete, so several processes may start
at once and a killed one leaves nothing half-made behind. Checksums beside the arrays are compared whenever a cache is
opened: one that does not hold what was written is set aside and made again.
"""

import hashlib
import json
import os
import shutil
import tempfile
import time
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from bench.datasets import DataError
from bench.system.machine import cores
from bench.system.progress import Progress
from models.core.paths import NoCacheFolder, cache_folder
from models.core.size import height_width

FORMAT = 3
ARRAYS = ("images.npy", "masks.npy")
FACTS = "facts.json"
FILES = (*ARRAYS, FACTS)
BLOCK = 1 << 26  # bytes that are summed at a time
Pair = tuple[np.ndarray, np.ndarray, Any]  # image uint8 [H, W, 3], mask [H, W], and what else to keep of it, as JSON


def root() -> Path:
    """The folder of caches. Raises ``DataError`` where there is none."""
    try:
        return cache_folder()
    except NoCacheFolder as error:
        raise DataError([str(error)]) from None


def digest(value: Any) -> str:
    """32 hex digits over the canonical JSON of ``value``."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def resized_pairs(
    key: Any,
    count: int,
    size: int | tuple[int, int],
    read: Callable[[int], Pair],
    progress: Progress,
    notes: list[str],
    mask_type: type[np.integer] = np.uint8,
) -> tuple[np.ndarray, np.ndarray, list[Any]]:
    """Images uint8 [count, H, W, 3] and masks [count, H, W], read-only and mapped from disk, and the facts of each pair.

    key: everything that decides the content, as JSON; read: makes pair ``i`` and is called only if there is no cache;
    notes: gets a line if a damaged cache was set aside; mask_type: of the masks' values. Raises ``DataError`` with all
    the lines of all the pairs that ``read`` raised it for, and if the disk refuses.
    """
    folder = root() / digest({"format": FORMAT, "count": count, "size": size, "key": key})
    try:
        root().mkdir(parents=True, exist_ok=True)
        if _damage(folder):
            with FileLock(root() / f"{folder.name}.lock"):
                damage = _damage(folder)  # somebody else may have made it meanwhile
                if damage and folder.exists():
                    aside = folder.with_name(f"{folder.name}.damaged-{time.time_ns()}")
                    folder.rename(aside)
                    notes.append(f"the cache {folder} was damaged ({damage}); it is set aside as {aside.name}, remade")
                if damage:
                    _make(folder, count, height_width(size), read, progress, mask_type)
        images, masks = (np.load(folder / name, mmap_mode="r") for name in ARRAYS)
        facts = json.loads((folder / FACTS).read_text())
    except OSError as error:
        raise _unusable(error) from None
    return images, masks, facts


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


def _damage(folder: Path) -> str | None:
    """Why a cache cannot be used; ``None`` if it holds what was written. Summing runs at the speed of memory."""
    if not folder.is_dir():
        return "there is none"
    try:
        sums = json.loads((folder / "sums.json").read_text())
    except (OSError, ValueError):
        return "sums.json cannot be read"
    for name in FILES:
        path = folder / name
        if not path.is_file():
            return f"{name} is gone"
        if sums.get(name) != checksum(path):
            return f"{name} does not hold what was written"
    return None


def checksum(path: Path) -> list[int]:
    """Size of a file and the CRC-32 of its bytes."""
    checksum = 0
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            checksum = zlib.crc32(block, checksum)
        return [file.tell(), checksum]


def _make(
    folder: Path,
    count: int,
    size: tuple[int, int],
    read: Callable[[int], Pair],
    progress: Progress,
    mask_type: type[np.integer],
) -> None:
    """Makes a cache; the caller holds its lock, so what lies under the temporary name was left by a killed process."""
    temporary = folder.with_name(f".making-{folder.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    bytes_per_pixel = 3 + np.dtype(mask_type).itemsize
    needed, free = count * size[0] * size[1] * bytes_per_pixel, shutil.disk_usage(folder.parent).free
    if needed > free:  # writing to a mapped file on a full disk would kill the process
        raise OSError(f"{needed / 2**30:.1f} GiB are needed and {free / 2**30:.1f} GiB are free")
    try:
        temporary.mkdir()
        images = np.lib.format.open_memmap(temporary / "images.npy", "w+", np.uint8, (count, *size, 3))
        masks = np.lib.format.open_memmap(temporary / "masks.npy", "w+", mask_type, (count, *size))
        facts: list[Any] = [None] * count

        def fill(i: int) -> list[str]:
            try:
                images[i], masks[i], facts[i] = read(i)
            except DataError as error:
                return error.errors
            return []

        with ThreadPoolExecutor(cores()) as pool:
            errors = [line for lines in progress(pool.map(fill, range(count)), count) for line in lines]
        if errors:
            raise DataError(errors)
        images.flush()
        masks.flush()
        (temporary / FACTS).write_text(json.dumps(facts))
        (temporary / "sums.json").write_text(json.dumps({name: checksum(temporary / name) for name in FILES}))
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
