"""Counting the items of a sealed session at a glance.

That is without SQLite, which needs longer to open a file than we need to read three pages of it. Whatever
is unusual is left to it, and to those who can say what is wrong. So nothing is counted here that they would
refuse: the schema must be ours, the two counters must agree, no other program may have written a value, and
the file must be sealed, in one piece, and at rest. That nobody wrote meanwhile is told by its first hundred
bytes, which each commit to a sealed file changes, and by the rollback journal, which is there while pages
change: the one is looked at first and last, the other after the first and before the last.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from functools import lru_cache
from pathlib import Path
from typing import Any

from .cells import LEAF_INDEX, LEAF_TABLE, adds_up, cell_at, pointers, values
from .format import FORMAT, SCHEMA, Header
from .grip import Grip
from .log import PAGE
from .tail import Tail

__all__ = ["count_sealed"]

_HEAD = 100
# In every header of ours: pages of 4096 bytes, no log; format of the schema, no automatic vacuum, UTF-8.
_ORDINARY = (
    (16, bytes.fromhex("1000 0101 0040 2020")),
    (44, bytes.fromhex("00000004 00000000 00000000 00000001")),
    (64, bytes(4)),
    (72, bytes(20)),
)
_NOTES = ["again", "attempts", "base", "count", "folding", "generation", "log"]


def count_sealed(path: Path) -> int | None:
    """Return the number of items in a session, or None where that takes a closer look."""
    try:
        with Grip(path) as grip:
            head = grip.read(_HEAD)
            if grip.lost or not _is_ordinary(head) or _has_journal(path):
                return None
            number = _count(grip)
            whole = Tail.read(path) == Tail(Header.of(head).generation)
            return number if whole and not _has_journal(path) and grip.read(_HEAD) == head else None
    except (OSError, ValueError, TypeError, LookupError):
        return None


def _is_ordinary(head: bytes) -> bool:
    header = Header.of(head)
    ours = header.ours and header.version == FORMAT and not header.writing
    return ours and all(head.startswith(part, at) for at, part in _ORDINARY)


def _has_journal(path: Path) -> bool:
    return os.path.lexists(f"{path}-journal")


def _count(grip: Grip) -> int | None:
    roots = _roots(_page(grip, 1)[_HEAD:])
    if roots is None:
        return None
    unchecked, meta = (_page(grip, root) for root in roots)
    if unchecked[0] != LEAF_INDEX or pointers(unchecked) or meta[0] != LEAF_INDEX or not adds_up(meta):
        return None
    noted = dict(_columns(meta, at, LEAF_INDEX) for at in pointers(meta))
    noted.pop("foreign", None)
    number = noted["count"]
    # In their order, or SQLite would not find them. Of large values, which are noted too, it has to be asked.
    right = list(noted) == _NOTES and type(number) is int and number == noted["again"] and number >= 0
    return number if right else None


def _page(grip: Grip, number: int) -> bytes:
    page = grip.read(PAGE, (number - 1) * PAGE)
    if len(page) != PAGE:
        raise ValueError(number)
    return page


@lru_cache(maxsize=16)
def _roots(first: bytes) -> tuple[int, int] | None:
    """Return where the index Unchecked and the table Meta begin, if the schema is ours.

    It stands in the first page behind the head of the file, and is the same in nearly all sessions.
    """
    page = bytes(_HEAD) + first
    if page[_HEAD] != LEAF_TABLE:
        return None
    if [tuple(_columns(page, at, LEAF_TABLE)) for at in pointers(page, _HEAD)] != _schema():
        return None
    roots = {name: root for _, name, _, root, _ in _schema()}
    return roots["Unchecked"], roots["Meta"]


@lru_cache
def _schema() -> list[tuple[Any, ...]]:
    """Return the rows of the table of tables in a session that was made here."""
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(SCHEMA)
        return connection.execute("SELECT type, name, tbl_name, rootpage, sql FROM sqlite_master").fetchall()


def _columns(page: bytes, at: int, kind: int) -> list[Any]:
    cell = cell_at(page, at, kind)
    if cell is None or cell.overflow:
        raise ValueError(at)
    return values(page[cell.start : cell.start + cell.size], cell)
