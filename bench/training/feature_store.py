"""Tensors on disk, mapped into memory: made once, by whoever comes first, and shared by all trials of a machine.

An entry is a folder that appears under its final name only when it is complete. Whatever does not hold what was written
is made again. All entries together stay below a bound: the ones that were not used for the longest time go first.
"""

import json
import math
import os
import shutil
import time
import zlib
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from filelock import FileLock, Timeout
from torch import Tensor

from bench.datasets.core import cache

DESCRIPTION = "entry.json"
STORED_AS = {torch.float32: np.float32, torch.bfloat16: np.int16, torch.float16: np.float16}
"""numpy has no bfloat16: its bits are kept as whole numbers."""


class StoreFull(OSError):
    """What is asked for does not fit the bound, or the disk."""


class Entry(NamedTuple):
    """What lies in a folder of the store, and who makes it."""

    name: str  # digest of all that decides the content
    count: int  # rows
    make: Callable[[], Iterable[tuple[Tensor, ...]]]  # the tensors of some rows after the others


class Stored:
    """An entry, opened: some tensors with ``count`` rows each."""

    def __init__(self, folder: Path) -> None:
        """Raises ``OSError`` or ``ValueError`` for a folder that does not hold what was written."""
        described = json.loads((folder / DESCRIPTION).read_text())
        self.bytes = 0
        self.tensors = []
        for i, one in enumerate(described):
            path = folder / str(i)
            if cache.checksum(path) != one["sum"]:
                raise ValueError(f"{path} does not hold what was written")
            dtype = getattr(torch, one["dtype"])
            rows = np.memmap(path, STORED_AS[dtype], "r", shape=tuple(one["shape"]))
            self.tensors.append((rows, dtype, one["order"]))
            self.bytes += path.stat().st_size

    def read(self, rows: np.ndarray) -> tuple[Tensor, ...]:
        """The tensors of these rows, [B, ...] each, with the strides that they were computed with: convolutions choose
        their arithmetic by them."""
        found = []
        for array, dtype, order in self.tensors:
            tensor = torch.from_numpy(array[rows])
            found.append((tensor.view(dtype) if tensor.dtype != dtype else tensor).permute(*np.argsort(order).tolist()))
        return tuple(found)


class FeatureStore:
    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self.folder, self.limit_bytes = folder, limit_bytes
        self.damaged: list[str] = []
        """Entries that did not hold what was written, and why."""

    def obtain(self, entries: list[Entry], look: Callable[[], int]) -> dict[str, Stored]:
        """The entries, opened; what is missing is made, in turns with whoever else makes it.

        look: says how many bytes a row of all tensors has, and is called before anything is made, only then. Raises
        ``StoreFull`` before any work, and ``OSError`` if the disk refuses.
        """
        opened: dict[str, Stored] = {}
        waiting = [entry for entry in entries if not self._open(entry, opened)]
        if not waiting:
            return opened
        row_bytes = look()
        needed = row_bytes * sum(entry.count for entry in entries)
        if needed > self.limit_bytes:
            have = f"{self.limit_bytes / 2**30:.3g} GiB"
            raise StoreFull(f"{needed / 2**30:.3g} GiB of features are more than --feature-cache-gib allows, {have}")
        self.folder.mkdir(parents=True, exist_ok=True)
        while waiting:
            before = len(waiting)
            waiting = [e for e in waiting if not self._make(e, opened, row_bytes, needed, entries, wait=False)]
            if len(waiting) == before:  # others are at work on all of them
                self._make(waiting.pop(0), opened, row_bytes, needed, entries, wait=True)
        return opened

    def _open(self, entry: Entry, opened: dict[str, Stored]) -> bool:
        folder = self.folder / entry.name
        try:
            opened[entry.name] = Stored(folder)
            os.utime(folder)  # when it was used last
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            damage = f"{entry.name}: {error}"
            if folder.exists() and damage not in self.damaged:
                self.damaged.append(damage)
            return False
        return True

    def _make(
        self, entry: Entry, opened: dict[str, Stored], row_bytes: int, needed: int, mine: list[Entry], wait: bool
    ) -> bool:
        """Whether the entry is there now; without ``wait`` it may be left to somebody else who is making it."""
        lock = FileLock(self.folder / f"{entry.name}.lock")
        try:
            lock.acquire(timeout=-1 if wait else 0)
        except Timeout:
            return False
        try:
            if self._open(entry, opened):
                return True
            folder = self.folder / entry.name
            shutil.rmtree(folder, ignore_errors=True)  # damaged: nothing in it can be trusted, or is unique
            self._make_room(row_bytes * entry.count, needed, {each.name for each in mine})
            temporary = self.folder / f".making-{entry.name}"
            shutil.rmtree(temporary, ignore_errors=True)  # left by a killed process
            try:
                temporary.mkdir()
                _write(temporary, entry)
                temporary.rename(folder)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
            opened[entry.name] = Stored(folder)
            return True
        finally:
            lock.release()

    def _make_room(self, size: int, needed: int, mine: set[str]) -> None:
        """Removes what was not used for the longest time until all entries, with this trial's, are below the bound.

        Who has an entry mapped keeps it: the system removes a file when nobody uses it any more.
        """
        others = []
        for folder in self.folder.iterdir():
            with suppress(OSError):  # somebody else may be faster
                if folder.is_dir() and folder.name not in mine and not folder.name.startswith("."):
                    others.append((folder.stat().st_mtime, folder, sum(f.stat().st_size for f in folder.iterdir())))
        total = needed + sum(bytes for _, _, bytes in others)
        for _, folder, bytes in sorted(others):
            if total <= self.limit_bytes:
                break
            aside = folder.with_name(f".removing-{folder.name}-{time.time_ns()}")
            with suppress(OSError):
                folder.rename(aside)  # at once, so that nobody opens half of it
                shutil.rmtree(aside, ignore_errors=True)
                folder.with_name(f"{folder.name}.lock").unlink(missing_ok=True)
            total -= bytes
        if size > (free := shutil.disk_usage(self.folder).free):
            raise StoreFull(f"{size / 2**30:.3g} GiB are needed in {self.folder} and {free / 2**30:.3g} GiB are free")


def bytes_of(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _write(folder: Path, entry: Entry) -> None:
    """Files are written, not mapped: on a full disk that is an error, and not the end of the process."""
    described: list[dict] = []
    files = []
    try:
        for tensors in entry.make():
            if not files:
                files = [(folder / str(i)).open("wb") for i in range(len(tensors))]
                described = [{"dtype": str(t.dtype).removeprefix("torch."), "sum": [0, 0]} for t in tensors]
            for tensor, file, one in zip(tensors, files, described):
                tensor = tensor.detach().cpu()
                one["order"] = sorted(range(tensor.ndim), key=lambda d: -tensor.stride(d)) if len(tensor) else []
                if one["order"][0] != 0:  # a single row may have any stride
                    one["order"] = [0, *(d for d in one["order"] if d)]
                plain = tensor.permute(*one["order"]).contiguous()
                one["shape"] = [entry.count, *plain.shape[1:]]
                content = plain.view(torch.uint8).numpy().tobytes() if plain.ndim else b""
                file.write(content)
                one["sum"] = [one["sum"][0] + len(content), zlib.crc32(content, one["sum"][1])]
        for file in files:
            file.flush()
            os.fsync(file.fileno())
    finally:
        for file in files:
            file.close()
    wrong = [one for one in described if one["sum"][0] % max(1, math.prod(one["shape"]))]
    assert described and not wrong, f"{entry.name}: rows are missing"
    (folder / DESCRIPTION).write_text(json.dumps(described))
