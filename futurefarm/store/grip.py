"""Reading the first bytes of a session file without freeing the locks that SQLite has on it.

POSIX takes *all* locks that a process has on a file when the process closes *any* descriptor of it. To open
and close a session for its header would therefore free the locks of a connection of ours, and another
process could seal the file and remove its log while we write. So a file is opened once per process, before
SQLite opens it, and closed when the last connection to it is closed.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path

__all__ = ["Grip"]

_lock = threading.Lock()
_held: dict[tuple[int, int], list[int]] = {}
"""Device and inode of a file: its descriptor, and how many grips there are."""


class Grip:
    """Keeps a file open for `read`, from before SQLite opens it until after SQLite has closed it."""

    def __init__(self, path: Path) -> None:
        with _lock:
            status = os.stat(path)
            file = status.st_dev, status.st_ino
            if file not in _held:
                _held[file] = [os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0)), 0]
            _held[file][1] += 1
        self._file: tuple[int, int] | None = file

    def read(self, size: int, offset: int = 0) -> bytes:
        """Return bytes of the file, by default the first."""
        with _lock:
            fd, _ = _held[self._file]  # type: ignore[index]
            os.lseek(fd, offset, os.SEEK_SET)
            return os.read(fd, size)

    def release(self) -> None:
        """Let go of the file; twice is harmless."""
        with _lock:
            file, self._file = self._file, None
            if file is None:
                return
            _held[file][1] -= 1
            if not _held[file][1]:
                os.close(_held.pop(file)[0])

    def __enter__(self) -> Grip:
        return self

    def __exit__(self, *error: object) -> None:
        self.release()


def _after_fork() -> None:
    # Another thread may have held the lock. The descriptors stay: the child has no locks to lose by them.
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
