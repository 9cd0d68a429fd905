"""Files that are written whole or not at all, checks of a command's targets, and folders that end with their process.

``write_whole`` replaces an existing file; an entry of a cache, which is made only if it is absent, is made by
``models.cache.made_once``. The imports of this module are fast.
"""

import fcntl
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

UNFINISHED = re.compile(r"\..+\.(csv|html|json|md|onnx|parquet|pdf|png|safetensors|svg|tex|zip)\.[a-z0-9_]{8}")
"""Name of a file that ``write_whole`` has not finished."""
PREFIX = "sam3-bench-"
"""Start of the names of all folders that the suite makes in the machine's temporary folder."""
LOCK = "lock"
"""File in such a folder that its process keeps locked."""
KINDS = {
    stat.S_ISDIR: "a folder",
    stat.S_ISFIFO: "a pipe",
    stat.S_ISSOCK: "a socket",
    stat.S_ISCHR: "a device",
    stat.S_ISBLK: "a device",
}


class TargetError(ValueError):
    """A target that a command must not or cannot write; the text is one line."""


def check_targets(targets: Iterable[Path], inputs: Iterable[Path] = ()) -> None:
    """Raises ``TargetError`` unless every target is a new file or replaces a regular file that is no input.

    A target is refused if it exists and is no regular file, if it is one of the inputs, or if its folder cannot be
    written to. Links are followed. Nothing is written.

    inputs: files that the command reads; they are compared only if a target exists.
    """
    there: dict[tuple[int, int], Path] = {}
    for path in targets:
        try:
            found = path.stat()
        except FileNotFoundError:
            _check_folder(path)
            continue
        except OSError as error:
            raise TargetError(f"{path}: cannot be written ({error.strerror})") from None
        for is_kind, kind in KINDS.items():
            if is_kind(found.st_mode):
                raise TargetError(f"{path}: is {kind}, which no file may replace. Give the name of a file")
        _check_folder(path)
        there[found.st_dev, found.st_ino] = path
    if not there:
        return
    for given in inputs:
        with suppress(OSError):
            found = given.stat()
            if (found.st_dev, found.st_ino) in there:
                target = there[found.st_dev, found.st_ino]
                what = "is" if given == target else f"is the same file as {given},"
                raise TargetError(f"{target}: {what} an input, which would be lost. Give another place to write to")


def _check_folder(path: Path) -> None:
    """Raises ``TargetError`` unless the nearest existing folder above a path can be written to."""
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if not folder.is_dir():
        raise TargetError(f"{path}: cannot be written: {folder} is no folder")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise TargetError(f"{path}: cannot be written: {folder} takes no files from this user")


def write_whole(path: Path, fill: Callable[[IO[bytes]], Any]) -> None:
    """Writes a file whole or not at all. A link at ``path`` is replaced; the file that it points to does not change."""
    with _unfinished(path) as file:
        try:
            fill(file)
            file.flush()
            os.fsync(file.fileno())
            os.fchmod(file.fileno(), 0o644)
            os.replace(file.name, path)
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(file.name)
            raise


def _unfinished(path: Path) -> IO[bytes]:
    """Opens a temporary file next to ``path``. Its lock, held while it is open, protects it from removal."""
    while True:
        file = tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False)
        with suppress(OSError):  # a file system without locks, on which remove_unfinished removes nothing
            fcntl.flock(file, fcntl.LOCK_EX)
        if os.fstat(file.fileno()).st_nlink:
            return file
        file.close()  # another process removed it before it was locked


def remove_unfinished(folder: Path) -> None:
    """Removes the files below a results folder that ``write_whole`` had not finished when its process was killed.

    Files that a living process writes are locked and stay.
    """
    for path in [*folder.glob(".*"), *folder.glob("*/.*"), *folder.glob("*/*/.*")]:
        if UNFINISHED.fullmatch(path.name) and path.is_file() and not path.is_symlink():
            with suppress(OSError), path.open("r+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()


class OwnFolder:
    """A temporary folder that is removed at the end of the ``with``.

    If its processes are killed, the next ``OwnFolder`` removes it. A lock shows whether a process is alive: the kernel
    releases it with the last process that holds it. A child that inherits ``descriptor`` holds it, too.
    """

    def __init__(self, parent: str | None = None) -> None:
        """Makes the folder in ``parent``, by default in the machine's temporary folder."""
        place = Path(parent or tempfile.gettempdir())
        _remove_abandoned(place)
        hidden = Path(tempfile.mkdtemp(prefix=f".{PREFIX}", dir=place))  # hidden until it is locked
        self.descriptor = os.open(hidden / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        with suppress(OSError):
            fcntl.flock(self.descriptor, fcntl.LOCK_EX)
        self.path = hidden.rename(place / hidden.name[1:])

    def __enter__(self) -> Path:
        return self.path

    def __exit__(self, *problem: Any) -> None:
        self.remove()

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self.descriptor)


def _remove_abandoned(place: Path) -> None:
    """Removes the folders of this user whose processes are dead."""
    for folder in place.glob(f"{PREFIX}*"):
        with suppress(OSError):
            if folder.lstat().st_uid != os.getuid():
                continue
            descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_NOFOLLOW)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)  # it follows no links
            finally:
                os.close(descriptor)


def set_aside(path: Path, word: str = "corrupt") -> Path:
    """Renames an unusable file to the first free ``NAME.corrupt-N`` and returns that path."""
    number = 1
    while (aside := path.with_name(f"{path.name}.{word}-{number}")).exists():
        number += 1
    path.rename(aside)
    return aside


def read_regular(path: Path, most: int = -1) -> bytes:
    """Reads the first ``most`` bytes of a regular file, by default all.

    Raises ``OSError``, also for a pipe or a device, because reading one may never end.
    """
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))  # opening a pipe may block
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError("is no regular file")
    with open(descriptor, "rb") as file:
        return file.read(most)


def contents(folder: Path) -> dict[str, bytes]:
    """Reads the files in a folder, without its subfolders, by name."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}
