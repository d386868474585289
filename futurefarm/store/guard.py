"""What a file of another hand could make SQLite do, and what keeps it from that."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from functools import lru_cache
from pathlib import Path
from typing import Any

from ..smallfile import read_end
from .format import SCHEMA, damage, log_size

__all__ = ["budget_of", "harden"]

_JOURNAL_MAGIC = bytes.fromhex("d9d505f920a163d7")
_SHOW_SCHEMA = "SELECT type, name, tbl_name, sql FROM sqlite_master LIMIT 50"


def harden(path: Path, connection: sqlite3.Connection) -> None:
    """Prepare a connection to a file that anybody may have written, before anything is asked of it.

    Raises:
        DamagedSessionError: its schema is not ours: a view, a trigger or a generated column of another
            hand would be run by our own statements. Or its journal names a file for SQLite to delete.
    """
    if _journal_end(path) == _JOURNAL_MAGIC:
        raise damage(path, "its journal is not of our making")
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.execute("PRAGMA cell_size_check = ON")
    connection.execute("PRAGMA mmap_size = 0")  # or a file that is cut ends this process
    if set(connection.execute(_SHOW_SCHEMA)) != _schema():
        raise damage(path, "its tables are not those of a session")


def _journal_end(path: Path) -> bytes:
    """Return the end of a journal, where the name of a second one may stand: we never write to two files.

    When SQLite undoes a commit that was cut off, it deletes the file of that name.
    """
    try:
        return read_end(Path(f"{path}-journal"), len(_JOURNAL_MAGIC))
    except OSError:  # none, or one that SQLite refuses, too
        return b""


@lru_cache
def _schema() -> set[tuple[Any, ...]]:
    """Return what `_SHOW_SCHEMA` finds in a session, as SQLite writes it."""
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(SCHEMA)
        return set(connection.execute(_SHOW_SCHEMA))


def budget_of(path: Path) -> int:
    """Return how many bytes may be read of a file in one go: all of it, some of it several times."""
    return 4 * (os.stat(path).st_size + log_size(path)) + (1 << 20)
