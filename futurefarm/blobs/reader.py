"""Reading pieces of a file, as copies or mapped."""

from __future__ import annotations

import mmap
import os
import pickle
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zlib import crc32

from ..smallfile import open_plain
from .trailer import MAGIC, MARK, Parts, Reference, detach, has_trailer

__all__ = ["MissingBlobError", "Reader", "SpoiltBlobError", "loads"]

_PIECE = 1 << 20


class SpoiltBlobError(ValueError):
    """What lies in a file is not what was written there."""


class MissingBlobError(SpoiltBlobError):
    """The file is missing, or shorter than it was: it was not copied, or before it was whole."""


class Reader:
    """Reads what a `Writer` has written to the file at ``path``, also while it writes.

    Use it as a context manager, or close it. Threads take turns.

    Args:
        path: of the file.
        mapped: whether `get` maps the file instead of copying from it.

    Raises:
        MissingBlobError: there is no such file.
        OSError: it cannot be read, or is a link or no file.
    """

    def __init__(self, path: Path, *, mapped: bool = False) -> None:
        self.path = path
        self.mapped = mapped
        self._lock = threading.Lock()
        try:
            self._file = os.fdopen(open_plain(path), "rb", buffering=0)
        except FileNotFoundError:
            raise MissingBlobError(f"{path.name} is missing") from None

    def get(self, parts: Parts) -> tuple[bytes, list[Any]]:
        """Return the pickle of a value and its buffers, each as `read` or `view` gives it.

        Raises:
            SpoiltBlobError: as they do; or the pieces together are more than the file, by a hostile hand.
        """
        if sum(reference.size for reference in parts.references) > self._size():
            raise self._too_short()
        # Only the checksum tells whether a piece is the right one where the file does not bear the mark.
        use = self.view if self.mapped and self._has(parts.mark) else self.read
        if parts.whole:
            *buffers, stream = parts.references
            return bytes(self.read(stream)), list(map(use, buffers))
        return parts.stream, list(map(use, parts.references))

    def read(self, reference: Reference) -> bytearray:
        """Return a copy of a piece, checked.

        Raises:
            SpoiltBlobError: it is not what was written.
        """
        self._check(reference)
        data = bytearray(reference.size)
        with memoryview(data) as view:
            self._fill(reference, (view[at : at + _PIECE] for at in range(0, len(view), _PIECE)))
        return data

    def verify(self, parts: Parts) -> None:
        """Check all pieces of a value, in little memory.

        Raises:
            SpoiltBlobError: one is not what was written.
        """
        space = memoryview(bytearray(_PIECE))
        for reference in parts.references:
            self._check(reference)
            self._fill(reference, (space[: reference.size - at] for at in range(0, reference.size, _PIECE)))

    def _fill(self, reference: Reference, pieces: Iterator[memoryview]) -> None:
        """Read a piece, and check each part of it while it is in the processor's cache."""
        crc = 0
        with self._lock:
            self._file.seek(reference.offset)
            for piece in pieces:
                while piece:
                    number = self._file.readinto(piece)
                    if not number:
                        raise self._too_short()
                    crc = crc32(piece[:number], crc)
                    piece = piece[number:]
        if crc != reference.crc:
            raise SpoiltBlobError(f"{reference.size} bytes in {self.path.name} are not what was written")

    def view(self, reference: Reference) -> memoryview:
        """Return a piece as read-only memory, mapped and not checked; it outlives the reader.

        Raises:
            MissingBlobError: the file does not reach so far.
        """
        self._check(reference)
        end = reference.offset + reference.size
        if not end:
            return memoryview(b"")
        return memoryview(_map_of(self._file.fileno(), end))[reference.offset : end]

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _size(self) -> int:
        return os.fstat(self._file.fileno()).st_size

    def _has(self, mark: bytes) -> bool:
        with self._lock:
            self._file.seek(0)
            return self._file.read(len(MAGIC) + MARK) == MAGIC + mark

    def _check(self, reference: Reference) -> None:
        if reference.offset + reference.size > self._size():  # before memory is asked for
            raise self._too_short()

    def _too_short(self) -> MissingBlobError:
        return MissingBlobError(f"{self.path.name} is too short")


_maps: weakref.WeakValueDictionary[tuple[int, int], mmap.mmap] = weakref.WeakValueDictionary()
"""One map for each file, by device and inode, for as long as something uses it: a system lets a process have
some ten thousands, and there may be more values."""

_maps_lock = threading.Lock()


def _map_of(fd: int, end: int) -> mmap.mmap:
    """Return a map of a file that reaches up to ``end`` at least."""
    status = os.fstat(fd)
    file = status.st_dev, status.st_ino
    with _maps_lock:
        found = _maps.get(file)
        if found is None or len(found) < end:
            found = _maps[file] = mmap.mmap(fd, 0, access=mmap.ACCESS_READ)
        return found


def loads(data: bytes, reader: Reader | None) -> Any:
    """Unpickle a stored value, trusting it; ``reader`` is not needed where there is no trailer.

    Raises:
        SpoiltBlobError: a piece is not what was written.
        ValueError: the trailer does not fit.
    """
    if reader is None or not has_trailer(data):
        return pickle.loads(data)
    stream, buffers = reader.get(detach(data))
    return pickle.loads(stream, buffers=buffers)
