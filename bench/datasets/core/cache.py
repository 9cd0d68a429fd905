"""Resized pairs on disk: made once by one process, then mapped into memory and shared by all trials of a machine.

Checksums are stored with the arrays and compared whenever a cache is opened. A damaged cache is set aside and made
again (``models.cache.made_once``).
"""

import hashlib
import json
import shutil
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from bench.datasets import DataError
from bench.system.machine import cores
from bench.system.progress import Progress
from models.cache.made_once import made_once
from models.core.paths import NoCacheFolder, cache_folder
from models.core.size import height_width

FORMAT = 3
ARRAYS = ("images.npy", "masks.npy")
FACTS = "facts.json"
SUMS = "sums.json"
BLOCK = 1 << 26
"""Bytes of a file that are summed at a time."""
Pair = tuple[np.ndarray, np.ndarray, Any]
"""Image uint8 [H, W, 3], mask [H, W], and facts about the mask that can be written as JSON."""


def root() -> Path:
    """Returns the folder of caches. Raises ``DataError`` where there is none."""
    try:
        return cache_folder()
    except NoCacheFolder as error:
        raise DataError([str(error)]) from None


def digest(value: Any) -> str:
    """Returns 32 hex digits over the canonical JSON of ``value``."""
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
    """Returns images uint8 [count, H, W, 3] and masks [count, H, W], mapped read-only, and the facts of each pair.

    key: everything that decides the content, as JSON. read: makes pair ``i``; it is called only if there is no usable
    cache. notes: gets a line if a damaged cache was set aside. mask_type: type of the masks' values.

    Raises ``DataError`` with the lines of every ``DataError`` that ``read`` raised, and if the disk refuses.
    """
    folder = root() / digest({"format": FORMAT, "count": count, "size": size, "key": key})

    def make(temporary: Path) -> None:
        _make(temporary, count, height_width(size), read, progress, mask_type)

    try:
        replaced = made_once(folder, make, _damage)
        images, masks = (np.load(folder / name, mmap_mode="r") for name in ARRAYS)
        facts = json.loads((folder / FACTS).read_text())
    except OSError as error:
        raise _unusable(error) from None
    if replaced:
        what = f"the cache {folder} was damaged ({replaced.damage})"
        notes.append(f"{what}; it was set aside as {replaced.path.name} and made again")
    return images, masks, facts


def remembered(key: Any, compute: Callable[[], Any]) -> Any:
    """Returns the JSON value of ``compute()``, which is stored under ``key`` and computed once on this machine."""
    path = root() / f"{digest({'format': FORMAT, 'key': key})}.json"

    def damage(path: Path) -> str | None:
        try:
            json.loads(path.read_text())
        except (OSError, ValueError):
            return "it holds no JSON"
        return None

    try:
        made_once(path, lambda temporary: temporary.write_text(json.dumps(compute())), damage)
        return json.loads(path.read_text())
    except OSError as error:
        raise _unusable(error) from None


def _unusable(error: OSError) -> DataError:
    """Returns the error for a cache folder that the file system refuses."""
    remedy = "set SAM3_BENCH_CACHE to a folder with room"
    return DataError([f"the cache of resized images at {root()} cannot be used: {error}; {remedy}"])


def _damage(folder: Path) -> str | None:
    """Returns why a cache cannot be used, or ``None`` if it holds what was written. Summing runs at memory speed."""
    try:
        sums = json.loads((folder / SUMS).read_text())
    except (OSError, ValueError):
        return f"{SUMS} cannot be read"
    for name in (*ARRAYS, FACTS):
        path = folder / name
        if not path.is_file():
            return f"{name} is gone"
        if sums.get(name) != checksum(path):
            return f"{name} does not hold what was written"
    return None


def checksum(path: Path) -> list[int]:
    """Returns the size of a file and the CRC-32 of its bytes."""
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
    """Writes a cache of ``count`` pairs. Raises ``OSError`` before any work if the disk has too little room."""
    bytes_per_pixel = 3 + np.dtype(mask_type).itemsize
    needed, free = count * size[0] * size[1] * bytes_per_pixel, shutil.disk_usage(folder.parent).free
    if needed > free:  # writing to a mapped file on a full disk would kill the process
        raise OSError(f"{needed / 2**30:.1f} GiB are needed and {free / 2**30:.1f} GiB are free")
    folder.mkdir()
    images = np.lib.format.open_memmap(folder / ARRAYS[0], "w+", np.uint8, (count, *size, 3))
    masks = np.lib.format.open_memmap(folder / ARRAYS[1], "w+", mask_type, (count, *size))
    facts: list[Any] = [None] * count

    def fill(i: int) -> list[str]:
        try:
            images[i], masks[i], facts[i] = read(i)
        except DataError as error:
            return error.errors
        return []

    errors: list[str] = []
    with ThreadPoolExecutor(cores()) as pool:
        for lines in progress(pool.map(fill, range(count)), count):
            errors += lines
    if errors:
        raise DataError(errors)
    images.flush()
    masks.flush()
    (folder / FACTS).write_text(json.dumps(facts))
    sums = {name: checksum(folder / name) for name in (*ARRAYS, FACTS)}
    (folder / SUMS).write_text(json.dumps(sums))
