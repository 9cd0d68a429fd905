"""Locks between processes: only one of them does a thing at a time, such as running a trial of a shared results folder.

The lock of the operating system counts, not the lock file. The kernel releases it when its process dies, however that
happens, and no clock is involved. It also works between machines whose shared file system has locks, as NFS does.
"""

import fcntl
import os
import socket
from contextlib import suppress
from pathlib import Path

ATTEMPTS = 100


class ProcessLock:
    """A lock that this process holds until ``release``."""

    def __init__(self, path: Path, descriptor: int, own_folder: bool) -> None:
        self.path, self._descriptor, self.own_folder = path, descriptor, own_folder

    @classmethod
    def acquire(cls, path: Path, own_folder: bool = True) -> "ProcessLock | None":
        """Locks a file, which is made for it; returns ``None`` if another process holds the lock.

        own_folder: the folder holds nothing but locks, and is removed when it is empty.
        Raises ``OSError`` where the file system has no locks.
        """
        for _ in range(ATTEMPTS):
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            except (FileNotFoundError, FileExistsError):  # a process that released its lock has removed the folder
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
            os.close(descriptor)  # its holder has released it, and removed its file, after we had opened it
        return None  # other processes lock and release it all the time; one of them surely holds it

    def release(self) -> None:
        """Removes the file while the lock is still held, so that no process locks a file that is about to be removed.

        Removes the folder, too, if it was made for locks and is empty.
        """
        with suppress(OSError):
            self.path.unlink()
        os.close(self._descriptor)
        if self.own_folder:
            with suppress(OSError):  # not empty
                self.path.parent.rmdir()


def owner_of(path: Path) -> str:
    """Names the process that holds a lock, as far as the lock file says it."""
    try:
        return path.read_text() or "another process"
    except (OSError, UnicodeDecodeError):
        return "another process"


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether the open file is still the one at this path."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False
