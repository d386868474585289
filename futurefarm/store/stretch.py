"""Stretches: a thousand neighbouring values, vouched for by one pair of checksums.

Whoever reads all values of a session has to check each, and in Python that takes as long as to read them. So
a writer sums up the rows that it adds, and notes the sum of each thousand. Rows that it fits are what was
written: all of them, and in order. Where it does not fit, because a value was replaced or deleted, another
program wrote, or bits flipped, and where there is none, each row is judged by its own checksum. So a stretch
needs no care: it may become useless, but never wrong.

``Stretch.keys`` is the CRC-32 of the keys in the rows ``first`` to ``last``, joined, ``Stretch.crc`` that of
their values, and ``size`` the bytes in both.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple
from zlib import crc32

__all__ = ["Stretch", "Sum", "Whole"]

ROWS = 1000
"""Rows after which a stretch ends, and the next one begins."""

LEAST = 50
"""Rows of the shortest stretch that is worth its place."""

BYTES = 4 << 20
"""Bytes of the largest one; what is read in one piece has to fit into the memory several times."""

_ADD = "INSERT OR REPLACE INTO Stretch (first, last, size, keys, crc) VALUES (?, ?, ?, ?, ?)"
_BEHIND = "SELECT first, last, size, keys, crc FROM Stretch WHERE first > ? ORDER BY first LIMIT 32"
_KEYS = "SELECT key FROM Dict NOT INDEXED WHERE rowid BETWEEN ? AND ? ORDER BY rowid LIMIT ?"
_ITEMS = "SELECT key, value FROM Dict NOT INDEXED WHERE rowid BETWEEN ? AND ? ORDER BY rowid LIMIT ?"


class Whole(NamedTuple):
    """What is known to be what was written; without ``values`` where only keys were asked for."""

    keys: Sequence[bytes]
    values: Sequence[bytes] = ()


class Stretch(NamedTuple):
    """The rows of Dict from ``first`` to ``last``, and what they sum up to."""

    first: int
    last: int
    size: int
    keys: int
    crc: int

    @classmethod
    def behind(cls, connection: sqlite3.Connection, row: int) -> list[Stretch]:
        """Return the next stretches that begin behind a row, the nearest last."""
        found = connection.execute(_BEHIND, (row,)).fetchall()
        stretches = [cls(*columns) for columns in reversed(found) if set(map(type, columns)) == {int}]
        return [one for one in stretches if one.first <= one.last and one.size >= 0]

    def read(self, connection: sqlite3.Connection, *, values: bool) -> Whole | None:
        """Return the rows if they are what was written; None says that each has to be looked at."""
        number = self.last - self.first + 1
        if number > 2 * ROWS or self.size > BYTES:
            return None
        width = 2 if values else 1
        try:
            # One more than there may be: then it is known that there are too many.
            rows = connection.execute(_ITEMS if values else _KEYS, (self.first, self.last, number + 1))
            flat = list(chain.from_iterable(rows))  # no row of it lives long enough for the garbage collector
            columns = [flat[column::width] for column in range(width)]
            fits = all(crc32(b"".join(column)) == crc for column, crc in zip(columns, self[3:]))
        except (sqlite3.DatabaseError, TypeError):  # a flipped bit made a number of bytes
            return None  # whoever looks at each row is told what is wrong with which
        return Whole(*columns) if fits and len(flat) == number * width else None


class Sum:
    """Sums up the rows that a writer adds, and notes a stretch whenever there are enough."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Forget rows that are not noted: they were undone."""
        self._first = self._next = self._size = self._keys = self._crc = 0

    def add(
        self, connection: sqlite3.Connection, last: int, rows: Sequence[tuple[bytes, bytes, int]]
    ) -> None:
        """Add rows, (key, value, checksum), the last of which has this number; within their transaction."""
        first = last - len(rows) + 1
        for at in range(0, len(rows), ROWS):
            keys, values, _ = zip(*rows[at : at + ROWS])
            self._add(connection, first + at, keys, values)

    def _add(
        self, connection: sqlite3.Connection, first: int, keys: Sequence[bytes], values: Sequence[bytes]
    ) -> None:
        if first != self._next:  # another process that shares the session wrote in between
            self.note(connection)
            self._first = first
        key, value = b"".join(keys), b"".join(values)
        self._keys, self._crc = crc32(key, self._keys), crc32(value, self._crc)
        self._size += len(key) + len(value)
        self._next = first + len(keys)
        if self._next - self._first >= ROWS or self._size > BYTES // 4:
            self.note(connection)

    def note(self, connection: sqlite3.Connection) -> None:
        """Note what was added as a stretch, if it is worth it; within a transaction."""
        if self._next - self._first >= LEAST and self._size <= BYTES:
            connection.execute(_ADD, (self._first, self._next - 1, self._size, self._keys, self._crc))
        self.forget()
