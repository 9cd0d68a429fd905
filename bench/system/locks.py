"""Which process has something to do that others must not do, too: which driver runs a trial, so that two on one
results folder share the work. It is a lock of the operating system.

The lock is what counts, not the file: the kernel drops it when its process dies, however that happens, and no clock has
a say. It also works between machines where the folder's file system has locks, as NFS does.
"""

import fcntl
import os
import socket
from contextlib import suppress
from pathlib import Path

ATTEMPTS = 100


class Claim:
    """Something that is this process's to do, until ``release``."""

    def __init__(self, path: Path, descriptor: int, own_folder: bool) -> None:
        self.path, self._descriptor, self.own_folder = path, descriptor, own_folder

    @classmethod
    def take(cls, path: Path, own_folder: bool = True) -> "Claim | None":
        """``None`` if somebody else has it. own_folder: the folder is there for locks, and goes when it is empty.

        Raises ``OSError`` where there can be no lock.
        """
        for _ in range(ATTEMPTS):
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            except (FileNotFoundError, FileExistsError):  # whoever released the last claim removed the folder meanwhile
                continue
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _is_at(descriptor, path):
                    os.truncate(descriptor, 0)
                    os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode())
                    return cls(path, descriptor, own_folder)
            except BlockingIOError:
                os.close(descriptor)
                return None
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)  # it was released, and its file removed, after we had opened it
        return None  # so many come and go here that it is surely somebody's

    def release(self) -> None:
        """Removes the file while the lock is still held, so that nobody locks one that is about to go; and its folder,
        if that was made for locks and holds nothing else."""
        with suppress(OSError):
            self.path.unlink()
        os.close(self._descriptor)
        if self.own_folder:
            with suppress(OSError):  # not empty
                self.path.parent.rmdir()


def owner(path: Path) -> str:
    """Who holds a claim, as far as its file says."""
    try:
        return path.read_text() or "another process"
    except (OSError, UnicodeDecodeError):
        return "another process"


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False
