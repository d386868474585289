"""The output of a worker process: a file beside its status page, which outlives it."""

from __future__ import annotations

import ctypes
import faulthandler
import io
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

from ..status import read
from .capture import TAIL, Capture, cut, path_of_output

__all__ = ["OutputFile", "output_of"]

LIMIT = 1 << 20
"""Bytes that the file may take on disk; what is older than the tail goes first."""

BLOCK = 4096

_Streams = tuple[TextIO, TextIO, TextIO]
_PUNCH_HOLE_KEEP_SIZE = 3


class OutputFile(Capture):
    """Redirects the descriptors of a process that is all ours, so that C and child processes are heard, too.

    Redirected are the descriptors themselves: a stream that a logger took long ago writes to them as well. A
    pipe to the parent was rejected: somebody has to read it, or the task stands still. When the worker dies,
    the file tells what its task had printed (see `output_of`) and, after a segmentation fault, where it was.

    Args:
        page: the status page of the worker, beside which the file will lie; None for one without a name.
    """

    def __init__(self, page: Path | None) -> None:
        self._path = None if page is None else path_of_output(page)
        self._file = _above_streams(self._opened())
        self._null = _above_streams(os.open(os.devnull, os.O_RDWR))
        self._theirs = [_above_streams(_copy_of(fd, self._null)) for fd in range(3)]
        self._ours: _Streams | None = None
        self._end = 0
        faulthandler.enable(2, all_threads=False)  # loky would show our own threads, too

    def _opened(self) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        if self._path is not None:
            with suppress(OSError):  # a full disk: the task is to run all the same
                return os.open(self._path, flags, 0o600)
        import tempfile  # late: hardly a worker comes here, and none must wait for it

        with tempfile.TemporaryFile("a+b") as file:  # has no name, and vanishes with the last who has it open
            return os.dup(file.fileno())

    def take_over(self) -> None:
        self._their_streams = sys.stdin, sys.stdout, sys.stderr
        _flush(sys.stdout, sys.stderr)
        self._redirect()

    def give_back(self) -> None:
        _flush(sys.stdout, sys.stderr)
        for fd, theirs in enumerate(self._theirs):
            with suppress(OSError):  # the task closed all descriptors
                os.dup2(theirs, fd)
        sys.stdin, sys.stdout, sys.stderr = self._their_streams

    def _redirect(self) -> None:
        """Let the three descriptors be what they should be, whatever a task has made of them.

        One that is closed would be the next to be opened, for a session's file maybe.
        """
        try:
            os.dup2(self._null, 0)
            os.dup2(self._file, 1)
            os.dup2(self._file, 2)
        except OSError:
            self._resign()
        if self._ours is None:
            self._ours = open(0, closefd=False), _stream(1), _stream(2)  # noqa: SIM115 - as long as we live
        sys.stdin, sys.stdout, sys.stderr = self._ours

    def _resign(self) -> None:
        """End this process: a task has closed its descriptors, those of the session among them.

        To go on would mean to write to whatever has been opened since under the same numbers.
        """
        with suppress(OSError):
            if self._path is not None:
                with self._path.open("ab") as file:
                    file.write(b"[the task closed the descriptors of its worker, which ends for that]\n")
        os._exit(1)

    def begin(self) -> int:
        return self._end

    def end(self, begun: int) -> str | None:
        if self._ours is not None and not _flush(self._ours[1], self._ours[2]):
            self._ours = None  # they are made anew
        self._redirect()
        self._end = os.lseek(self._file, 0, os.SEEK_END)
        if self._end == begun:
            return None
        output = _tail(self._file, begun)
        if self._end > LIMIT:
            os.ftruncate(self._file, 0)
            self._end = 0
        return output

    def tidy(self) -> None:
        """Give the disk back what a task that prints for hours has printed long ago.

        The file keeps its length, so all that is known of where output begins stays true.
        """
        with suppress(OSError):
            status = os.fstat(self._file)
            if status.st_blocks * 512 > LIMIT:
                old = (status.st_size - 2 * TAIL) // BLOCK * BLOCK
                if not _punch(self._file, old):
                    os.ftruncate(self._file, 0)

    def close(self) -> None:
        if self._path is not None:
            self._path.unlink(missing_ok=True)
        for fd in (self._file, self._null, *self._theirs):
            with suppress(OSError):
                os.close(fd)


def output_of(pages: Path, number: int) -> str | None:
    """Return the tail of what a worker's running task has printed, or of all before its first; of a dead one.

    Args:
        pages: the folder of the status pages.
        number: of the worker.
    """
    for worker in read(pages):
        if worker.number == number and (worker.task is not None or not worker.began):
            with suppress(OSError):
                fd = os.open(path_of_output(pages / str(number)), os.O_RDONLY | os.O_NOFOLLOW)
                try:
                    return _tail(fd, worker.output)
                finally:
                    os.close(fd)
    return None


def _tail(fd: int, begun: int) -> str | None:
    size = os.fstat(fd).st_size
    cut_off = begun > size  # the file was begun anew, as it had grown long
    begun = 0 if cut_off else begun
    first = max(begun, size - TAIL)
    if first == size and not cut_off:
        return None
    return cut(os.pread(fd, size - first, first), first - begun + cut_off)


def _above_streams(fd: int) -> int:
    """Move a descriptor above 2: in a process without streams it would get one of their numbers."""
    if fd > 2:
        return fd
    higher = _above_streams(os.dup(fd))
    os.close(fd)
    return higher


def _copy_of(fd: int, otherwise: int) -> int:
    try:
        return os.dup(fd)
    except OSError:  # closed, as in a daemon
        return os.dup(otherwise)


class _Sink(io.FileIO):
    """A descriptor on which writing never fails: a full disk must not fail a task that prints."""

    def write(self, data: Any) -> int:
        with suppress(OSError):
            return super().write(data)
        return len(memoryview(data).cast("B"))


def _stream(fd: int) -> TextIO:
    # By lines, or what a task printed would be lost when its worker is killed.
    buffer = io.BufferedWriter(_Sink(fd, "wb", closefd=False))
    return io.TextIOWrapper(buffer, "utf-8", errors="backslashreplace", line_buffering=True)


def _flush(*streams: TextIO | None) -> bool:
    """Return whether all could be flushed."""
    flushed = True
    for stream in streams:
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError):  # its reader is gone, or a task has closed it
            flushed = False
    if _c_stdout is not None:
        _libc.fflush(_c_stdout)
    return flushed


def _c_stream() -> ctypes.c_void_p | None:
    """Return C's standard output. Its other streams must not be flushed: some thread may be reading one."""
    for name in ("stdout", "__stdoutp"):  # the second on macOS
        with suppress(ValueError, TypeError):
            return ctypes.c_void_p.in_dll(_libc, name)
    return None


_libc: Any = ctypes.CDLL(None) if os.name == "posix" else None  # where this room is not used
_c_stdout = _c_stream()


def _punch(fd: int, size: int) -> bool:
    """Give back the disk space of the first bytes of a file; only some systems can."""
    fallocate = getattr(_libc, "fallocate64", None)
    if fallocate is None:
        return False
    return bool(fallocate(fd, _PUNCH_HOLE_KEEP_SIZE, ctypes.c_int64(0), ctypes.c_int64(size)) == 0)
