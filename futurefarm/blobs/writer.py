"""Appending pieces to a file."""

from __future__ import annotations

import os
import secrets
import threading
from pathlib import Path
from pickle import PickleBuffer
from typing import Any
from zlib import crc32

from ..smallfile import check_plain, make
from .trailer import MAGIC, MARK, Reference

__all__ = ["HEAD", "LARGE", "Writer"]

LARGE = 128 << 10
"""Bytes from which on a piece is worth a place of its own, which costs each commit a second sync.

Measured against values in SQLite, microseconds to write one, committed alone / by sixteens, and to read it:
64 kB: 720 to 590 / 210 to 280, 106 to 122. 128 kB: 870 to 850 / 310 to 540, 173 to 236. 1 MB: 1750 to 2410 /
1390 to 1420, 470 to 1010. The log that SQLite folds into its file later is not counted.
"""

HEAD = 64
_ALIGNED = 64

_PIECE = 1 << 20
"""Bytes whose checksum is computed before they are written: they are in the processor's cache then."""

_STRIDE = 4 << 20
"""Bytes after which, within a buffer, the disk is told to begin; at its end, after a piece or more.

The sync then finds most of it done. Two workers store arrays of 1 / 10 / 100 MB at 1,650 / 1,750 / 2,000
MB/s, and at 1,100 / 1,300 / 1,100 without; one session alone is as fast as `os.write` with fdatasync, though
it computes checksums. Strides of 1 MB make 100 MB a third slower.
"""

_FLAGS = getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)


class Writer:
    """Appends to the file at ``path``, which is made if it is missing; safe for several threads.

    Of several processes, one at a time may be in `append`, from its beginning to its end.

    Raises:
        OSError: it cannot be opened or made, or is a link or no file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        made = False
        try:
            fd = os.open(path, os.O_RDWR | _FLAGS)
        except FileNotFoundError:
            fd, made = make(path), True
        try:
            status = os.fstat(fd)
            check_plain(status, path)
            self._file = status.st_dev, status.st_ino
            if status.st_size < HEAD:  # new, or its writer was killed before anything could refer to it
                os.write(fd, (MAGIC + secrets.token_bytes(MARK)).ljust(HEAD, b"\0"))
            os.lseek(fd, len(MAGIC), os.SEEK_SET)
            self.mark = os.read(fd, MARK)
        except BaseException:
            os.close(fd)
            raise
        self._fd = fd
        self._reserved = 0
        self._begun = status.st_size  # up to here the disk was told to write
        self._unnamed = made
        self._unsynced = made
        self._closed = False
        self.end = 0
        """Where the last piece ends that this writer has finished."""

    def append(self, buffer: Any) -> Reference:
        """Write one buffer, contiguous and of any type, without a copy. It is not on disk before `sync`.

        Raises:
            OSError: it could not be written; nothing is left of it but a gap, or not even that.
        """
        with memoryview(PickleBuffer(buffer).raw()) as view:
            fd = self._open_again()  # which no other thread moves about in, or closes
            try:
                offset = self._reserve(fd, len(view))
                try:
                    crc = self._write(fd, view, offset)
                except BaseException:
                    self._give_back(fd, offset, len(view))
                    raise
            finally:
                os.close(fd)
            with self._lock:
                self._unsynced = True
                self.end = max(self.end, offset + len(view))
            return Reference(offset, len(view), crc)

    def sync(self) -> None:
        """Make all that was appended durable, the name of the file included; at once if nothing was.

        Raises:
            OSError: it is not on disk, and the file must not be written again: a second sync may succeed
                though the first one has lost something.
        """
        with self._lock:  # not held during the sync: what comes in between counts as not synced
            unsynced, self._unsynced = self._unsynced, False
            self._begun = max(self._begun, self.end)
            unnamed, self._unnamed = self._unnamed, False
        if unsynced:
            self._check_that_it_stands()
            _sync(self._fd)
        if unnamed and os.name == "posix":
            folder = os.open(self.path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    def close(self) -> None:
        """Let go of the file; twice is harmless. What was not synced may not be on disk."""
        with self._lock:
            if not self._closed:
                self._closed = True
                os.close(self._fd)

    def _open_again(self) -> int:
        with self._lock:
            if self._closed:
                raise ValueError(f"{self.path} is closed")
            fd = os.open(self.path, os.O_RDWR | _FLAGS)
        status = os.fstat(fd)
        if (status.st_dev, status.st_ino) != self._file:
            os.close(fd)
            raise self._replaced()
        return fd

    def _reserve(self, fd: int, size: int) -> int:
        with self._lock:
            # The file may have grown by the hand of another process.
            end = max(self._reserved, os.fstat(fd).st_size, HEAD)
            offset = -(-end // _ALIGNED) * _ALIGNED
            self._reserved = offset + size
        return offset

    def _write(self, fd: int, view: memoryview, offset: int) -> int:
        """Write at a place and return the CRC-32."""
        os.lseek(fd, offset, os.SEEK_SET)
        crc = done = 0
        while done < len(view):
            piece = view[done : done + _PIECE]
            crc = crc32(piece, crc)
            while piece:
                written = os.write(fd, piece)
                piece = piece[written:]
                done += written
            self._begin_to_sync(fd, offset + done, _STRIDE)
        self._begin_to_sync(fd, offset + done, _PIECE)
        return crc

    def _begin_to_sync(self, fd: int, end: int, least: int) -> None:
        """Let the disk begin to write, without waiting for it, where ``least`` bytes lie before ``end``.

        Linux does so when it is told that the pages are not needed any more; those that are not on disk yet
        stay in memory. (The call made for this, sync_file_range, is not to be had from Python.)
        """
        with self._lock:
            begin = self._begun
            if end - begin < least:
                return
            self._begun = end
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(fd, begin, end - begin, os.POSIX_FADV_DONTNEED)

    def _give_back(self, fd: int, offset: int, size: int) -> None:
        """Cut off what was begun: on a full disk it would keep space from others."""
        with self._lock:
            if self._reserved == offset + size:
                os.ftruncate(fd, offset)
                self._reserved = offset

    def _check_that_it_stands(self) -> None:
        try:
            status = os.stat(self.path, follow_symlinks=False)
        except FileNotFoundError:
            raise self._replaced() from None
        if (status.st_dev, status.st_ino) != self._file or status.st_size < self.end:
            raise self._replaced()

    def _replaced(self) -> OSError:
        return FileExistsError(f"another file was put in the place of {self.path} while it was being written")


_sync = getattr(os, "fdatasync", os.fsync)
