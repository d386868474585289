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

__all__ = ["Bundle", "NotSeenError", "StoredArray", "forget", "restored", "unpack", "unpack_whole"]

LARGE = 256 << 10
"""Bytes from which on memory is worth a place of its own."""

_ALIGNED = 64
_MARK = 16
_PIECE = 4 << 20
"""Bytes that are written at a time: 100 MB take 25 ms so, and from 20 to 220 in one go."""
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
        self._mark = secrets.token_bytes(_MARK)
        self._end = 0
        self._added: list[StoredArray] = []
        self._seen = _Seen(path)

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
            return pickle.dumps((stream, self._mark, [self._append(piece) for piece in pieces]))
        except OSError as error:
            with suppress(OSError):
                self.remove()
            kind = StorageFullError if error.errno in (errno.ENOSPC, errno.EDQUOT) else DirectoryError
            raise kind(
                f"what tasks share cannot be written to {self._path} ({error.strerror}). Nothing was run.",
                path=str(self._path),
                errno=error.errno,
            ) from error

    def add(self, array: Any, spelling: bytes) -> StoredArray:
        """Write an array of numpy, contiguous and without objects; return what stands for it in an item.

        Args:
            array: is not copied.
            spelling: what `identity.spell` makes of it.

        Raises:
            OSError: it cannot be written.
        """
        place = self._append(memoryview(array.reshape(-1).view("u1")))
        stored = StoredArray(self._mark, place, array.dtype.str, array.shape, spelling)
        self._added.append(stored)
        return stored

    def get(self, stored: StoredArray) -> Any:
        """Return an array that was added, mapped."""
        return self._seen.get(stored)

    def _append(self, piece: memoryview) -> tuple[int, int]:
        """Write a piece, and before the first one the file; return where it lies."""
        if not self._end:
            make_folder(self._path.parent)
            _clear_old(self._path.parent)
            os.close(make(self._path))
            self._end = self._write(memoryview(self._mark), 0)
        begin = -(-self._end // _ALIGNED) * _ALIGNED
        self._end = self._write(piece, begin)
        return begin, self._end

    def _write(self, piece: memoryview, begin: int) -> int:
        with self._path.open("r+b", buffering=0) as file:
            file.seek(begin)
            while piece:
                piece = piece[file.write(piece[:_PIECE]) :]
            return file.tell()

    def whole(self) -> bytes:
        """Return all in one piece, for a worker that does not see the file; this is a copy."""
        added = {stored.place: self.get(stored) for stored in self._added}
        return self._pickled((self._mark, self._values, added), sys.maxsize)[0]

    def _apart(self, least: int) -> tuple[bytes, list[pickle.PickleBuffer]]:
        return self._pickled(self._values, least)

    def _pickled(self, values: Any, least: int) -> tuple[bytes, list[pickle.PickleBuffer]]:
        try:
            return dumps_shared(values, least)
        except Exception as error:
            raise UsageTypeError(
                f"what is in shared cannot be sent to workers ({type(error).__name__}: {error}). Pass plain "
                f"values and arrays, and open files, locks and connections inside the function."
            ) from error

    def remove(self) -> None:
        """Remove the file; a worker that has mapped it may use it to its end."""
        self._path.unlink(missing_ok=True)


class StoredArray:
    """Stands for an array that many items have in common, in an item on its way and in the ledger.

    A worker of the sweep that it belongs to unpickles the array itself, mapped; anybody else this, which
    tells what it was: the array is not kept.
    """

    __slots__ = ("dtype", "mark", "place", "shape", "spelling")

    def __init__(
        self, mark: bytes, place: tuple[int, int], dtype: str, shape: tuple[int, ...], spelling: bytes
    ) -> None:
        self.mark = mark
        self.place = place
        self.dtype = dtype
        self.shape = shape
        self.spelling = spelling

    def __reduce__(self) -> tuple[Any, ...]:
        return restored, (self.mark, self.place, self.dtype, self.shape, self.spelling)

    def __futurefarm_spelling__(self) -> bytes:
        return self.spelling

    def __repr__(self) -> str:
        return f"<an array of shape {self.shape} and dtype {self.dtype}, which many tasks shared>"


def restored(*what: Any) -> Any:
    """Return the array in a worker of its sweep, and what stands for it elsewhere."""
    stored = StoredArray(*what)
    source = _sources.get(stored.mark)
    return stored if source is None else source.get(stored)


class _Seen:
    """Arrays in a file that is seen from here."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._map = memoryview(b"")

    def get(self, stored: StoredArray) -> Any:
        import numpy

        begin, end = stored.place
        if end > len(self._map):
            self._map = _mapped(self._path, stored.mark, end)
        return numpy.frombuffer(self._map[begin:end], stored.dtype).reshape(stored.shape)


class _Sent:
    """Arrays that were sent."""

    def __init__(self, arrays: dict[tuple[int, int], Any]) -> None:
        self._arrays = arrays

    def get(self, stored: StoredArray) -> Any:
        array = self._arrays[stored.place]
        array.flags.writeable = False
        return array


_sources: dict[bytes, _Seen | _Sent] = {}


def unpack_whole(data: bytes) -> dict[str, Any]:
    """Return the values of a bundle that was sent in one piece."""
    mark, values, arrays = pickle.loads(data)
    _sources[mark] = _Sent(arrays)
    return values  # type: ignore[no-any-return]


def forget(data: bytes) -> None:
    """Let go of the file of a bundle, or of what was sent of it."""
    if data:
        _sources.pop(pickle.loads(data)[1], None)


def unpack(data: bytes, path: Path | None) -> dict[str, Any]:
    """Return the values of a bundle; large arrays are mapped from its file, and cannot be written to.

    From now on, in this process, arrays that were added to it are unpickled as what they are.

    Raises:
        NotSeenError: the file is not to be seen from here, or not whole.
    """
    stream, mark, places = pickle.loads(data)
    _sources[mark] = _Seen(path)
    mapped = _mapped(path, mark, places[-1][1]) if places else memoryview(b"")
    pieces = [mapped[begin:end] for begin, end in places]
    values: dict[str, Any] = pickle.loads(stream or pieces.pop(), buffers=pieces)
    return values


def _mapped(path: Path | None, mark: bytes, end: int) -> memoryview:
    if path is None:
        raise NotSeenError("the directory is not seen from here")
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


def _clear_old(folder: Path) -> None:
    """Remove the files of programs of this host that were killed."""
    host = this_process()[0]
    for path in folder.iterdir():
        found = _NAME.fullmatch(path.name)
        if found and found["host"] == host and process_start(int(found["pid"])) != int(found["started"]):
            path.unlink(missing_ok=True)
