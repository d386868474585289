"""A worker's status page: what it runs, since when, and how far.

A page is a small file of fixed size, mapped into memory and rewritten in place, so that noting the start of
a task costs well under a microsecond and a page outlives the worker that it describes: after a kill it still
says which task was running. Pages also number the workers of a sweep: a worker takes the lowest free number.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import platform
import struct
import time
from collections.abc import Container, Iterable
from pathlib import Path
from typing import NamedTuple

from . import smallfile

__all__ = [
    "Page",
    "Worker",
    "bury",
    "clear",
    "descendants",
    "is_stopped",
    "process_start",
    "read",
    "this_process",
]

IDLE = -1

# number of the task, its start, fraction done (negative: never reported), where its output begins, process
# id, start of the process, its peak memory, leashed to its parent, results that wait for space, length of
# host and of text
_LAYOUT = struct.Struct("<qddqqqqBHHH")
_HEAD = 64
_HOST = 128
_SIZE = 512
_NUMBER = struct.Struct("<qddq")
_FRACTION = struct.Struct("<d")
_MEMORY = struct.Struct("<q")
_MEMORY_AT = 48
_WAITING = struct.Struct("<H")
_TEXT = struct.Struct("<H")
_TEXT_AT = _LAYOUT.size - _TEXT.size
_WAITING_AT = _LAYOUT.size - struct.calcsize("<HHH")


class Worker(NamedTuple):
    """What a page says.

    ``task`` is None between tasks, ``since`` seconds since 1970, ``fraction`` 0 to 1, ``output`` where in the
    file of the worker's output that of the task begins, ``memory`` the most that the process has used, in
    bytes, where that is known. ``waiting`` results cannot be stored yet, because the disk is full.
    """

    number: int
    task: int | None
    since: float
    fraction: float | None
    output: int
    text: str
    host: str
    pid: int
    started: int
    memory: int | None
    leashed: bool
    waiting: int = 0

    @property
    def began(self) -> bool:
        """Whether it has begun any task."""
        return self.since > 0

    @property
    def local(self) -> bool:
        return self.host == platform.node()

    @property
    def alive(self) -> bool:
        """False only when the worker certainly is gone: it ran on this host and its process ended."""
        return not self.local or process_start(self.pid) == self.started


class Page:
    """The page of the calling worker.

    Args:
        folder: where the pages of a sweep lie; it has to exist.
        leashed: the process ends with its parent, so the parent may end it.
    """

    def __init__(self, folder: Path, *, leashed: bool) -> None:
        host, pid, started = this_process()
        name = host.encode()[:_HOST]
        head = _LAYOUT.pack(IDLE, 0.0, -1.0, 0, pid, started, 0, leashed, 0, len(name), 0)
        blank = (head.ljust(_HEAD, b"\0") + name).ljust(_SIZE, b"\0")
        self.number, self.path = _claim(folder, blank)
        with self.path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), _SIZE)
        self._says = ""

    def begin(self, task: int, text: str, at: float, output: int = 0) -> None:
        """Note that a task starts, ``at`` seconds since 1970, and where its output begins."""
        if text != self._says:
            self.say(text)
        _NUMBER.pack_into(self._map, 0, task, at, -1.0, output)

    def done(self, fraction: float) -> None:
        """Note how far the running task is, from 0 to 1."""
        _FRACTION.pack_into(self._map, 16, fraction)

    def say(self, text: str) -> None:
        """Note a text beside the bar; about 300 bytes of it are kept."""
        self._says = text
        data = text.encode("utf-8", "replace")[: _SIZE - _HEAD - _HOST]
        at = _HEAD + _HOST
        self._map[at : at + len(data)] = data
        _TEXT.pack_into(self._map, _TEXT_AT, len(data))

    def memory(self, peak: int) -> None:
        """Note the most memory that the process has used, in bytes: nobody can ask it when it is dead."""
        _MEMORY.pack_into(self._map, _MEMORY_AT, peak)

    def wait(self, results: int) -> None:
        """Note how many results wait for space on a full disk."""
        _WAITING.pack_into(self._map, _WAITING_AT, min(results, 0xFFFF))

    def end(self) -> None:
        """Note that no task runs."""
        _NUMBER.pack_into(self._map, 0, IDLE, time.time(), -1.0, 0)

    def remove(self) -> None:
        self._map.close()
        self.path.unlink(missing_ok=True)


def _claim(folder: Path, blank: bytes) -> tuple[int, Path]:
    number = 0
    while True:
        path = folder / str(number)
        try:
            fd = smallfile.make(path)
        except FileExistsError:
            number += 1
            continue
        try:
            with os.fdopen(fd, "wb") as file:
                file.write(blank)  # all of it: to map what the disk has no room for would kill the worker
        except OSError:
            path.unlink(missing_ok=True)
            raise
        return number, path


def read(folder: Path) -> list[Worker]:
    """Read all pages of a folder, by their numbers; those half made or half gone are left out."""
    pages = []
    with contextlib.suppress(FileNotFoundError):
        for name in filter(str.isdecimal, os.listdir(folder)):  # beside them lies what the workers print
            with contextlib.suppress(OSError, ValueError, struct.error):
                pages.append(_read(folder / name))
    return sorted(pages)


def _read(path: Path) -> Worker:
    data = smallfile.read(path, _SIZE)
    if len(data) != _SIZE:
        raise ValueError(path)
    task, since, fraction, output, pid, started, memory, leashed, *rest = _LAYOUT.unpack_from(data)
    waiting, host_length, length = rest
    at = _HEAD + _HOST
    return Worker(
        int(path.name),
        None if task == IDLE else task,
        since,
        None if fraction < 0 else fraction,
        output,
        data[at : at + length].decode("utf-8", "replace"),
        data[_HEAD : _HEAD + host_length].decode("utf-8", "replace"),
        pid,
        started,
        memory or None,
        bool(leashed),
        waiting,
    )


def bury(folder: Path, workers: Iterable[Worker]) -> None:
    """Remove the pages of workers that are dead, and what lies beside them."""
    for worker in workers:
        for path in (folder / str(worker.number), *folder.glob(f"{worker.number}.*")):
            path.unlink(missing_ok=True)


def clear(folder: Path) -> None:
    """Remove all pages of a folder, and what lies beside them, after the workers that wrote them are gone."""
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir(folder):
            (folder / name).unlink(missing_ok=True)


def this_process() -> tuple[str, int, int]:
    """Return host, process id and start of the calling process: together they are unique."""
    pid = os.getpid()
    return platform.node(), pid, process_start(pid) or 0


def process_start(pid: int) -> int | None:
    """Return when a process of this host started (a number to compare), or None when it has ended.

    Where ``/proc`` is missing, 0 stands for "it is there": process ids may then be mistaken after reuse.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except FileNotFoundError:
        if os.path.exists("/proc/self/stat"):
            return None
    except ProcessLookupError:
        return None
    else:
        return None if fields[0] in (b"Z", b"X") else int(fields[19])
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        return 0
    return 0


def descendants(pid: int, thread: int | None = None, but: Container[int] = ()) -> list[int]:
    """Return the processes that a process of this host, or one thread of it, has started, and what they have.

    Children come behind their parents. Only Linux tells; elsewhere there are none.

    Args:
        pid: of the process.
        thread: the system's number of a thread (``Thread.native_id``).
        but: children that are left out, with what they have started.
    """
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task") if thread is None else [thread]:
            with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{task}/children") as children:
                found += [int(child) for child in children.read().split()]
    living = [child for child in found if child not in but and process_start(child) is not None]
    return living + [grandchild for child in living for grandchild in descendants(child)]


def is_stopped(pid: int) -> bool:
    """Whether a process of this host is stopped (Ctrl-Z, SIGSTOP, a debugger); False where nobody tells."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] in (b"T", b"t")
    except OSError:
        return False
