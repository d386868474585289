"""Small files of a directory: made for the user alone, never through a link, never read without a bound.

Somebody else who may write to the directory could have put a link in the place of a file, so that we write to
what it points to; or a pipe, which is never read to its end; or a file of any size.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

__all__ = ["LIMIT", "check_plain", "make", "make_folder", "open_plain", "read", "read_end", "touch", "write"]

LIMIT = 1 << 20
"""Bytes of the largest file that is read whole."""

_SAFE = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


def make(path: Path) -> int:
    """Make a file, which only its owner may read and write whatever the umask; return its descriptor.

    Raises:
        FileExistsError: something is there already, maybe a link that points nowhere.
    """
    fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | _SAFE, 0o600)
    if os.name == "posix":
        os.fchmod(fd, 0o600)
    return fd


def make_folder(path: Path) -> None:
    """Make a folder, which only its owner may use whatever the umask, unless it is there.

    Raises:
        NotADirectoryError: something else is there, maybe a link.
    """
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        if not stat.S_ISDIR(os.lstat(path).st_mode):
            raise NotADirectoryError(errno.ENOTDIR, "it is a file or a link", str(path)) from None
    else:
        path.chmod(0o700)


def write(path: Path, text: str) -> None:
    """Make a file with this text, on disk on return."""
    with os.fdopen(make(path), "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def open_plain(path: Path) -> int:
    """Return a descriptor to read a file of any length.

    Raises:
        OSError: it is not there, or is a link or no file.
    """
    fd = os.open(path, os.O_RDONLY | _SAFE)
    try:
        check_plain(os.fstat(fd), path)
    except OSError:
        os.close(fd)
        raise
    return fd


def read(path: Path, limit: int = LIMIT) -> bytes:
    """Return what is in a file.

    Raises:
        OSError: it is not there, is a link or no file, or has more than ``limit`` bytes.
    """
    fd = open_plain(path)
    try:
        data = os.read(fd, limit + 1)
    finally:
        os.close(fd)
    if len(data) > limit:
        raise OSError(errno.EFBIG, "it is too large", str(path))
    return data


def read_end(path: Path, size: int) -> bytes:
    """Return the last bytes of a file of any length.

    Raises:
        OSError: it is not there, or is a link or no file.
    """
    fd = open_plain(path)
    try:
        os.lseek(fd, max(0, os.fstat(fd).st_size - size), os.SEEK_SET)
        return os.read(fd, size)
    finally:
        os.close(fd)


def touch(path: Path) -> None:
    """Make an empty file, or set the time of the one that is there to now.

    Raises:
        OSError: a link or no file is there.
    """
    try:
        fd = make(path)
    except FileExistsError:
        fd = os.open(path, os.O_WRONLY | _SAFE)
    try:
        check_plain(os.fstat(fd), path)
        os.utime(fd if os.utime in os.supports_fd else path)
    finally:
        os.close(fd)


def check_plain(status: os.stat_result, path: Path) -> None:
    """Raise OSError for what is a link, a pipe, a folder or a device."""
    if stat.S_ISLNK(status.st_mode):
        raise OSError(errno.ELOOP, "it is a link, which is not followed", str(path))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "it is no plain file", str(path))
