"""Reading what a damaged session still holds, without SQLite, which gives up at the first damaged page.

Every page of the file and of its log is looked at by itself, whether or not a b-tree still leads to it, and
every row in it is judged by its checksum. So damage costs the rows that lie on it, and no others.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import closing
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from .cells import Cell, adds_up, cell_at, leaf_cells, values
from .checksum import attempt_checksum, checksum, sweep_checksum
from .format import NOTES, Header
from .grip import Grip
from .log import PAGE, frames

__all__ = ["Found", "salvage"]

LEAF_INDEX, LEAF_TABLE = 0x0A, 0x0D


class Found(NamedTuple):
    """A row that was found: of which table, its number there and its columns, and whether its checksum fits.

    ``whole`` is None for a value of another program, which has none.
    """

    table: str
    row: int
    columns: tuple[Any, ...]
    whole: bool | None


def salvage(path: Path) -> Iterator[Found]:
    """Iterate over the rows in a session file and its log; the same row may come more than once.

    What comes first counts: the newest state of each page, and rows that their page leads to before those
    that were found by looking at every byte of a damaged page, where a value that was deleted or replaced
    may still lie. What an index knows of the names of sweeps comes as table ``"Name"``, and what is noted of
    the file itself as ``"Meta"``.

    Memory is bounded by the largest row, and the largest row by the size of the file.
    """
    with closing(_Pages(path)) as pages:
        for page in pages.broken():
            yield from _rows(pages, page, leaf_cells(page, LEAF_TABLE))
        doubtful = []
        for number in pages.numbers():
            page = pages.current(number)
            if not adds_up(page):
                doubtful.append(number)
            elif page[0] == LEAF_TABLE:
                yield from _rows(pages, page, leaf_cells(page, LEAF_TABLE))
            elif page[0] == LEAF_INDEX:
                yield from _names(page)
        for number in doubtful:
            if number not in pages.followed:
                yield from _anywhere(pages, pages.current(number))
        for page in (*pages.broken(), *pages.stray()):
            yield from _anywhere(pages, page)


def _anywhere(pages: _Pages, page: bytes) -> Iterator[Found]:
    """Iterate over the rows that begin at any byte of a page."""
    cells = leaf_cells(page, LEAF_TABLE)
    if not adds_up(page):
        everywhere = (cell_at(page, at) for at in range(8, PAGE - 3))
        cells = chain(cells, (cell for cell in everywhere if cell is not None))
    yield from _rows(pages, page, cells)


def _rows(pages: _Pages, page: bytes, cells: Iterator[Cell]) -> Iterator[Found]:
    for cell in cells:
        judge = _JUDGES.get(len(cell.kinds))
        if judge is None:
            continue
        payload = pages.payload(page, cell)
        if payload is None:
            continue
        try:
            found = judge(cell, values(payload, cell))
        except (TypeError, ValueError, AttributeError, ArithmeticError, struct.error):
            continue  # not a row, or one whose columns are of the wrong kinds
        if found is not None:
            yield found


def _item(cell: Cell, columns: list[Any]) -> Found | None:
    key, value, crc = columns
    if type(key) is not bytes or type(value) is not bytes or type(crc) not in (int, type(None)):
        return None
    return Found("Dict", cell.row, (key, value, crc), None if crc is None else crc == checksum(key, value))


def _sweep(cell: Cell, columns: list[Any]) -> Found | None:
    _, name, record, crc = columns
    if type(name) is not str or type(record) is not str:
        return None
    return Found("Sweep", cell.row, (name, record, crc), crc == sweep_checksum(cell.row, name, record))


def _attempt(cell: Cell, columns: list[Any]) -> Found | None:
    *head, status, key, host, pid, started, seconds, crc, item, error, traceback, output = columns[1:]
    started, seconds = float(started), float(seconds)  # SQLite stores 1.0 as 1
    in_order = (*head, item, status, key, error, traceback, host, pid, started, seconds, output)
    row = (*head, status, key, host, pid, started, seconds, crc, item, error, traceback, output)
    return Found("Attempt", cell.row, row, crc == attempt_checksum(*in_order))


_JUDGES = {3: _item, 4: _sweep, 17: _attempt}


def _names(page: bytes) -> Iterator[Found]:
    """Iterate over the names in a leaf of an index: of sweeps with their numbers, or those in Meta."""
    for cell in leaf_cells(page, LEAF_INDEX):
        if len(cell.kinds) != 2 or not cell.kinds[0] % 2 or cell.kinds[0] < 13 or cell.overflow:
            continue
        try:
            name, value = values(page[cell.start : cell.start + cell.size], cell)
        except UnicodeDecodeError:
            continue
        if name in NOTES:
            yield Found("Meta", 0, (name, value), None)
        elif type(value) is int:
            yield Found("Name", value, (name,), None)


class _Pages:
    """The pages of a session file, each in its newest whole state, be that in the file or in its log."""

    def __init__(self, path: Path) -> None:
        self._grip = Grip(path)
        self._log = open(f"{path}-wal", "rb") if os.path.exists(f"{path}-wal") else None  # noqa: SIM115
        self._number = os.stat(path).st_size // PAGE
        self._newest: dict[int, int] = {}  # page: offset in the log
        self._broken: dict[int, list[int]] = {}
        self._stray: list[int] = []
        self.followed: set[int] = set()
        """Pages that hold the rest of a row of which the beginning was read."""
        log = os.fstat(self._log.fileno()).st_size if self._log else 0
        self._budget = 4 * (os.stat(path).st_size + log)
        if Header.read(path).writing:
            self._read_frames(path)
        else:  # the log is of an older state, or the mark itself is damaged
            self._stray = [frame.offset for frame in frames(path)]

    def _read_frames(self, path: Path) -> None:
        pending: dict[int, int] = {}
        for frame in frames(path):
            if frame.good:
                pending[frame.page] = frame.offset
                self._broken.pop(frame.page, None)
            elif frame.ours:
                self._broken.setdefault(frame.page, []).append(frame.offset)
            if frame.commits:
                self._newest |= pending
                pending = {}

    def numbers(self) -> Iterator[int]:
        """Iterate over the pages that may hold rows: all but the first and those that are free."""
        free = self._free()
        yield from (n for n in range(2, self._number + 1) if n not in free)
        yield from sorted(n for n in self._newest if n > self._number and n not in free)

    def current(self, number: int) -> bytes:
        if number in self._newest:
            return self._read_log(self._newest[number])
        return self._grip.read(PAGE, (number - 1) * PAGE).ljust(PAGE, b"\0")

    def broken(self) -> Iterator[bytes]:
        """Iterate over what the log has of a page that is newer than its newest whole state, but damaged."""
        for offsets in self._broken.values():
            yield from map(self._read_log, reversed(offsets))

    def stray(self) -> Iterator[bytes]:
        """Iterate over the pages in a log that does not seem to belong to the file."""
        return map(self._read_log, self._stray)

    def payload(self, page: bytes, cell: Cell) -> bytes | None:
        """Return all bytes of a row, or None if pages of it are missing."""
        parts = [page[cell.start : cell.start + cell.local]]
        left = cell.size - cell.local
        number = cell.overflow
        self._budget -= left
        if self._budget < 0:  # an invented file: rows of a real one share no pages
            return None
        while left > 0:
            if number not in self._newest and not 1 < number <= self._number:
                return None
            self.followed.add(number)
            data = self.current(number)
            number = int.from_bytes(data[:4], "big")
            parts.append(data[4 : 4 + left])
            left -= PAGE - 4
        return b"".join(parts)

    def _read_log(self, offset: int) -> bytes:
        assert self._log is not None
        self._log.seek(offset)
        return self._log.read(PAGE).ljust(PAGE, b"\0")

    def _free(self) -> set[int]:
        """Return the free pages, where deleted rows lie; none if the list of them is damaged."""
        head = self.current(1)
        trunk, number = int.from_bytes(head[32:36], "big"), int.from_bytes(head[36:40], "big")
        free: set[int] = set()
        while trunk and trunk not in free and len(free) < number:
            free.add(trunk)
            page = self.current(trunk)
            leaves = min(int.from_bytes(page[4:8], "big"), PAGE // 4 - 2)
            free.update(int.from_bytes(page[8 + 4 * i : 12 + 4 * i], "big") for i in range(leaves))
            trunk = int.from_bytes(page[:4], "big")
        return free if len(free) == number and not trunk else set()

    def close(self) -> None:
        self._grip.release()
        if self._log is not None:
            self._log.close()
