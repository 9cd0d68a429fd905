"""Entries of caches: files and folders that appear under their final name only when they are complete.

Several processes may ask for one entry at once. A lock lets one of them make it; the others wait and use it. A process
that is killed leaves only a temporary file or folder behind, which the next maker removes.
"""

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock


class SetAside(NamedTuple):
    """A damaged entry that was replaced."""

    damage: str
    """The reason why it could not be used."""
    path: Path
    """The place to which it was moved."""


def _no_damage(path: Path) -> None:
    """Accepts every entry."""


def made_once(
    path: Path,
    make: Callable[[Path], None],
    damage: Callable[[Path], str | None] = _no_damage,
    *,
    wait: bool = True,
    keep_damaged: bool = True,
) -> SetAside | None:
    """Makes the entry ``path`` unless it exists, and returns the damaged entry that it replaced, if there was one.

    make: writes the entry, a file or a folder, to the temporary path that it gets, which does not exist yet.
    damage: returns why the existing entry cannot be used, or ``None`` if it can be used.
    wait: whether to wait while another process makes the entry.
    keep_damaged: whether a damaged entry is renamed to ``NAME.damaged-TIME``; otherwise it is removed.

    Raises ``filelock.Timeout`` without ``wait`` if another process makes the entry, ``OSError`` if the file system
    refuses, and all that ``make`` raises. In these cases there is no entry.
    """
    if path.exists() and damage(path) is None:
        return None
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = path.with_name(f".{path.name}.lock")
    with FileLock(lock, timeout=-1 if wait else 0):
        try:
            return _make(path, make, damage, keep_damaged)
        finally:
            lock.unlink(missing_ok=True)  # filelock from 3.24 on takes no lock on a file that was removed meanwhile


def _make(
    path: Path, make: Callable[[Path], None], damage: Callable[[Path], str | None], keep_damaged: bool
) -> SetAside | None:
    """Makes the entry; the caller holds the lock, so a temporary path that exists was left by a killed process."""
    replaced = None
    if path.exists():
        reason = damage(path)  # another process may have made the entry since
        if reason is None:
            return None
        aside = path.with_name(f"{path.name}.damaged-{time.time_ns()}")
        path.rename(aside)
        replaced = SetAside(reason, aside)
        if not keep_damaged:
            _remove(aside)
    temporary = path.with_name(f".making-{path.name}")
    _remove(temporary)
    try:
        make(temporary)
        os.replace(temporary, path)
    finally:
        _remove(temporary)
    return replaced


def _remove(path: Path) -> None:
    """Removes a file or a folder, if there is one."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
