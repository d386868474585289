"""Reading and writing a few bytes of a session file without freeing the locks that SQLite has on it.

POSIX takes *all* locks that a process has on a file when the process closes *any* descriptor of it. To open
and close a session for its header would therefore free the locks of a connection of ours, and another
process could seal the file and remove its log while we write. So a file is opened once per process, before
SQLite opens it, and closed when the last connection to it is closed.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..smallfile import check_plain

__all__ = ["Grip"]

_SAFE = getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0)

_lock = threading.Lock()
_held: dict[tuple[int, int], list[int]] = {}
"""Device and inode of a file: its descriptor, and how many grips there are."""

_lost: set[tuple[int, int]] = set()
"""Files of which this process has a connection open that can be neither used nor closed."""


class Grip:
    """Keeps a file open for `read` and `write`, from before SQLite opens it until after it has closed it."""

    def __init__(self, path: Path) -> None:
        with _lock:
            status = os.lstat(path)
            check_plain(status, path)  # SQLite would follow a link
            file = status.st_dev, status.st_ino
            if file not in _held:
                _held[file] = [_open(path), 0]
            _held[file][1] += 1
        self._file: tuple[int, int] | None = file

    def read(self, size: int, offset: int = 0) -> bytes:
        """Return ``size`` bytes of the file, or those that there are."""
        with self._at(offset) as fd:
            return os.read(fd, size)

    def write(self, data: bytes, offset: int) -> None:
        """Write a few bytes into the file, which has to be writable."""
        with self._at(offset) as fd:
            os.write(fd, data)

    def size(self) -> int:
        """Return the bytes in the file."""
        with self._at(0) as fd:
            return os.fstat(fd).st_size

    @contextmanager
    def _at(self, offset: int) -> Iterator[int]:
        with _lock:
            fd, _ = _held[self._file]  # type: ignore[index]
            os.lseek(fd, offset, os.SEEK_SET)
            yield fd

    def holds(self, path: Path) -> bool:
        """Whether the file is still the one that a path leads to."""
        try:
            status = os.stat(path)
        except FileNotFoundError:
            return False
        return self._file == (status.st_dev, status.st_ino)

    def lose(self) -> None:
        """Note that the file can no longer be used by this process; the grip is kept for good."""
        if self._file is not None:
            _lost.add(self._file)

    @property
    def lost(self) -> bool:
        return self._file in _lost

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


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | _SAFE)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        return os.open(path, os.O_RDONLY | _SAFE)  # somebody else's, or on a disk that is only to be read


def _after_fork() -> None:
    # Another thread may have held the lock. The descriptors stay: the child has no locks to lose by them.
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
