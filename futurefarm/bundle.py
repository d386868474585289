"""Arguments that all tasks of a sweep have in common: written once, and mapped by every worker.

They lie in a file below ``.farm/`` while the sweep runs. Memory that processes share was rejected: workers
may be on other hosts, which see the directory all the same. The file begins with a mark by which it is told
from all others; behind it lie the pieces, each at a multiple of 64. It has neither checksums nor a sync, as
what outlives the sweep it serves means nothing: that takes half the time.
"""

from __future__ import annotations

import errno
import mmap
import os
import pickle
import re
import secrets
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from .errors import DirectoryError, StorageFullError, UsageTypeError
from .smallfile import make, make_folder, open_plain
from .status import process_start, this_process
from .task import dumps_shared

__all__ = ["Bundle", "NotSeenError", "unpack"]

LARGE = 256 << 10
"""Bytes from which on memory is worth a place of its own."""

_ALIGNED = 64
_MARK = 16
_NAME = re.compile(r"[^.]+\.(?P<pid>\d{1,10})\.(?P<started>\d{1,20})\.(?P<host>.*)")


class NotSeenError(Exception):
    """The file is not to be seen from here."""


class Bundle:
    """What the tasks of a sweep share, on its way to the workers.

    Args:
        values: by the names of the arguments.
        path: of the file, which `write` makes; its name tells whose it is, see `directory.Directory.bundle`.
    """

    def __init__(self, values: Mapping[str, Any], path: Path) -> None:
        self._values = dict(values)
        self._path = path

    def write(self) -> bytes:
        """Write the file; return what `unpack` needs beside it. The memory of arrays is not copied.

        Raises:
            UsageTypeError: a value cannot be pickled.
            StorageFullError, DirectoryError: it cannot be written; nothing is left of it.
        """
        stream, buffers = self._apart(LARGE)
        pieces = [buffer.raw() for buffer in buffers]
        if len(stream) >= LARGE:
            pieces.append(memoryview(stream))
            stream = b""
        try:
            return pickle.dumps((stream, *self._write(pieces)))
        except OSError as error:
            with suppress(OSError):
                self.remove()
            kind = StorageFullError if error.errno in (errno.ENOSPC, errno.EDQUOT) else DirectoryError
            raise kind(
                f"what tasks share cannot be written to {self._path} ({error.strerror}). Nothing was run.",
                path=str(self._path),
                errno=error.errno,
            ) from error

    def _write(self, pieces: list[memoryview]) -> tuple[bytes, list[tuple[int, int]]]:
        """Return the mark of the file, and where the pieces lie in it."""
        mark, places, end = secrets.token_bytes(_MARK), [], _MARK
        if pieces:
            make_folder(self._path.parent)
            _clear_old(self._path.parent)
            with os.fdopen(make(self._path), "wb", buffering=0) as file:
                _write(file.fileno(), memoryview(mark), 0)
                for piece in pieces:
                    begin = -(-end // _ALIGNED) * _ALIGNED
                    end = begin + piece.nbytes
                    _write(file.fileno(), piece, begin)
                    places.append((begin, end))
        return mark, places

    def whole(self) -> bytes:
        """Return all in one piece, for a worker that does not see the file; this is a copy."""
        return self._apart(sys.maxsize)[0]

    def _apart(self, least: int) -> tuple[bytes, list[pickle.PickleBuffer]]:
        try:
            return dumps_shared(self._values, least)
        except Exception as error:
            raise UsageTypeError(
                f"what is in shared cannot be sent to workers ({type(error).__name__}: {error}). Pass plain "
                f"values and arrays, and open files, locks and connections inside the function."
            ) from error

    def remove(self) -> None:
        """Remove the file; a worker that has mapped it may use it to its end."""
        self._path.unlink(missing_ok=True)


def unpack(data: bytes, path: Path) -> dict[str, Any]:
    """Return the values of a bundle; large arrays are mapped from its file, and cannot be written to.

    Raises:
        NotSeenError: the file is not to be seen from here, or not whole.
    """
    stream, mark, places = pickle.loads(data)
    mapped = _mapped(path, mark, places[-1][1]) if places else memoryview(b"")
    pieces = [mapped[begin:end] for begin, end in places]
    values: dict[str, Any] = pickle.loads(stream or pieces.pop(), buffers=pieces)
    return values


def _mapped(path: Path, mark: bytes, end: int) -> memoryview:
    try:
        fd = open_plain(path)
        try:
            mapped = memoryview(mmap.mmap(fd, end, access=mmap.ACCESS_READ))
        finally:
            os.close(fd)
    except (OSError, ValueError) as error:  # missing, or shorter
        raise NotSeenError(str(error)) from error
    if mapped[:_MARK] != mark:
        raise NotSeenError(f"{path} is of another sweep")
    return mapped


def _write(fd: int, piece: memoryview, offset: int) -> None:
    os.lseek(fd, offset, os.SEEK_SET)
    while piece:
        piece = piece[os.write(fd, piece) :]


def _clear_old(folder: Path) -> None:
    """Remove the files of programs of this host that were killed."""
    host = this_process()[0]
    for path in folder.iterdir():
        found = _NAME.fullmatch(path.name)
        if found and found["host"] == host and process_start(int(found["pid"])) != int(found["started"]):
            path.unlink(missing_ok=True)
