"""Which process has something to do that others must not do, too: which driver runs a trial, so that two on one
results folder share the work. It is a lock of the operating system.

The lock is what counts, not the file: the kernel drops it when its process dies, however that happens, and no clock has
a say. It also works between machines where the folder's file system has locks, as NFS does.

filelock is not used: a claim names its owner, and is refused on a file system without locks, where a lock of filelock
would outlive a killed process.
"""

import fcntl
import os
import socket
from contextlib import suppress
from pathlib import Path

ATTEMPTS = 100


class Claim:
    """Something that is this process's to do, until ``release``."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path, self._descriptor = path, descriptor

    @classmethod
    def take(cls, path: Path) -> "Claim | None":
        """Takes the claim, or returns ``None`` if another process has it. The folder of ``path`` must be one for locks.

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
                    return cls(path, descriptor)
            except BlockingIOError:
                os.close(descriptor)
                return None
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)  # it was released, and its file removed, after we had opened it
        return None  # so many come and go here that it is surely somebody's

    def release(self) -> None:
        """Removes the file while the lock is still held, so that no process locks a file that is about to be removed;
        then the folder, if it is empty."""
        with suppress(OSError):
            self.path.unlink()
        os.close(self._descriptor)
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
