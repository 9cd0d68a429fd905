"""Files that appear whole or not at all, for all who write some. Imports nothing that takes long."""

import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any


def write_whole(path: Path, fill: Callable[[IO[bytes]], Any]) -> None:
    """Writes a file whole or not at all."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        try:
            fill(file)
            file.flush()
            os.fsync(file.fileno())
        except BaseException:
            os.unlink(file.name)
            raise
    os.chmod(file.name, 0o644)
    os.replace(file.name, path)


def set_aside(path: Path, word: str = "corrupt") -> Path:
    """Renames a file that cannot be used to the first free ``<name>.corrupt-N``, and returns that path."""
    number = 1
    while (aside := path.with_name(f"{path.name}.{word}-{number}")).exists():
        number += 1
    path.rename(aside)
    return aside


def read_regular(path: Path, most: int = -1) -> bytes:
    """The first ``most`` bytes of a regular file, by default all. Raises ``OSError``, also for a pipe or a device:
    reading one may wait for ever."""
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))  # to open a pipe may wait, too
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError("is no regular file")
    with open(descriptor, "rb") as file:
        return file.read(most)


def contents(folder: Path) -> dict[str, bytes]:
    """The files right in a folder, by name."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}
