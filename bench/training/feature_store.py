"""Tensors on disk, mapped into memory: the first trial of a machine makes them, all trials share them.

An entry is a folder that gets its final name only when it is complete. A damaged entry is made again. All entries
together stay below a bound: the least recently used ones are removed first.
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
"""Types of the arrays on disk. numpy has no bfloat16: its bits are stored as integers."""


class StoreFull(OSError):
    """The entries exceed the bound, or the free space of the disk."""


class Entry(NamedTuple):
    """A folder of the store, and the function that computes its content."""

    name: str  # digest of everything on which the content depends
    count: int  # number of rows
    make: Callable[[], Iterable[tuple[Tensor, ...]]]  # yields the tensors of consecutive rows


class Stored:
    """An opened entry: tensors with ``count`` rows each."""

    def __init__(self, folder: Path) -> None:
        """Raises ``OSError`` or ``ValueError`` for a damaged folder."""
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
        """Reads the tensors [B, ...] of these rows, with the strides of the computed ones: convolutions choose their
        arithmetic by strides."""
        tensors = []
        for array, dtype, order in self.tensors:
            tensor = torch.from_numpy(array[rows]).view(dtype)
            tensors.append(tensor.permute(*np.argsort(order).tolist()))
        return tuple(tensors)


class FeatureStore:
    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self.folder, self.limit_bytes = folder, limit_bytes
        self.damaged: list[str] = []
        """Damaged entries, each with the error."""

    def obtain(self, entries: list[Entry], measure_row: Callable[[], int]) -> dict[str, Stored]:
        """Opens the entries by name and makes the missing ones, sharing the work with other processes.

        measure_row: returns the bytes of one row of all tensors; it is called only if entries are missing. Raises
        ``StoreFull`` before any work, and ``OSError`` if the disk refuses.
        """
        opened: dict[str, Stored] = {}
        waiting = [entry for entry in entries if not self._open(entry, opened)]
        if not waiting:
            return opened
        row_bytes = measure_row()
        needed = row_bytes * sum(entry.count for entry in entries)
        if needed > self.limit_bytes:
            have = f"{self.limit_bytes / 2**30:.3g} GiB"
            raise StoreFull(f"{needed / 2**30:.3g} GiB of features are more than --feature-cache-gib allows, {have}")
        self.folder.mkdir(parents=True, exist_ok=True)
        while waiting:
            before = len(waiting)
            waiting = [e for e in waiting if not self._make(e, opened, row_bytes, needed, entries, wait=False)]
            if len(waiting) == before:  # other processes are making all of them
                self._make(waiting.pop(0), opened, row_bytes, needed, entries, wait=True)
        return opened

    def _open(self, entry: Entry, opened: dict[str, Stored]) -> bool:
        """Opens an entry if it exists and is not damaged; returns whether it did."""
        folder = self.folder / entry.name
        try:
            opened[entry.name] = Stored(folder)
            os.utime(folder)  # the time of its last use
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            damage = f"{entry.name}: {error}"
            if folder.exists() and damage not in self.damaged:
                self.damaged.append(damage)
            return False
        return True

    def _make(
        self, entry: Entry, opened: dict[str, Stored], row_bytes: int, needed: int, own: list[Entry], wait: bool
    ) -> bool:
        """Makes an entry; returns whether it exists. Without ``wait`` it skips one that another process is making."""
        lock = FileLock(self.folder / f"{entry.name}.lock")
        try:
            lock.acquire(timeout=-1 if wait else 0)
        except Timeout:
            return False
        try:
            if self._open(entry, opened):
                return True
            folder = self.folder / entry.name
            shutil.rmtree(folder, ignore_errors=True)  # damaged: all of it can be computed again
            self._make_room(row_bytes * entry.count, needed, {each.name for each in own})
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

    def _make_room(self, size: int, needed: int, own: set[str]) -> None:
        """Removes least recently used entries until all entries, with this trial's, are below the bound.

        A process that has mapped a removed entry keeps it: the system removes a file after its last use.
        """
        others = []
        for folder in self.folder.iterdir():
            with suppress(OSError):  # another process may have removed it
                if folder.is_dir() and folder.name not in own and not folder.name.startswith("."):
                    others.append((folder.stat().st_mtime, folder, sum(f.stat().st_size for f in folder.iterdir())))
        total = needed + sum(bytes for _, _, bytes in others)
        for _, folder, bytes in sorted(others):
            if total <= self.limit_bytes:
                break
            aside = folder.with_name(f".removing-{folder.name}-{time.time_ns()}")
            with suppress(OSError):
                folder.rename(aside)  # in one step, so that no process opens half of it
                shutil.rmtree(aside, ignore_errors=True)
                folder.with_name(f"{folder.name}.lock").unlink(missing_ok=True)
            total -= bytes
        free = shutil.disk_usage(self.folder).free
        if size > free:
            raise StoreFull(f"{size / 2**30:.3g} GiB are needed in {self.folder} and {free / 2**30:.3g} GiB are free")


def bytes_of(tensors: Iterable[Tensor]) -> int:
    """Sums the bytes of tensors."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _write(folder: Path, entry: Entry) -> None:
    """Writes files instead of mapping them: a full disk is then an error and does not kill the process."""
    descriptions: list[dict] = []
    files = []
    try:
        for tensors in entry.make():
            if not files:
                files = [(folder / str(i)).open("wb") for i in range(len(tensors))]
                descriptions = [{"dtype": str(t.dtype).removeprefix("torch."), "sum": [0, 0]} for t in tensors]
            for tensor, file, description in zip(tensors, files, descriptions):
                tensor = tensor.detach().cpu()
                order = _memory_order(tensor)
                plain = tensor.permute(*order).contiguous()
                content = plain.view(torch.uint8).numpy().tobytes()
                file.write(content)
                size, checksum = description["sum"]
                description["order"], description["shape"] = order, [entry.count, *plain.shape[1:]]
                description["sum"] = [size + len(content), zlib.crc32(content, checksum)]
        for file in files:
            file.flush()
            os.fsync(file.fileno())
    finally:
        for file in files:
            file.close()
    incomplete = [each for each in descriptions if each["sum"][0] % max(1, math.prod(each["shape"]))]
    assert descriptions and not incomplete, f"{entry.name}: rows are missing"
    (folder / DESCRIPTION).write_text(json.dumps(descriptions))


def _memory_order(tensor: Tensor) -> list[int]:
    """Returns the dimensions of a tensor [B, ...] by falling stride; rows come first, since a single row may have any
    stride."""
    return [0, *sorted(range(1, tensor.ndim), key=lambda dimension: -tensor.stride(dimension))]
