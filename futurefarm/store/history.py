"""The history of a session: which tasks ended, and how, in one packed row for each commit.

A sweep that resumes has to know of each task whether it is done, and nothing else. To read that from the
ledger takes 3.4 us a task, most of it for checksums; from here, where a commit of a thousand tasks has one
checksum, less than a tenth of that. What it says is also in the ledger, row by row, from which `repair` makes
it anew.

``History.rows`` holds 21 bytes for each row of Attempt, from the row ``History.id`` on: ``identity`` (16),
``replicate`` (4, little-endian, unsigned), and the place of ``status`` in `STATUSES` (1).
"""

from __future__ import annotations

import sqlite3
import struct
from itertools import groupby

from .checksum import history_checksum

__all__ = ["ROW", "add_history", "done", "fits", "rewrite_history", "unpacked"]

STATUSES = ("ok", "error", "timeout", "crashed", "stopped")

_ROW = struct.Struct("<16sIB")
ROW = _ROW.size
"""Bytes for each task."""

_CODES = {status: code for code, status in enumerate(STATUSES)}
_ADD = "INSERT INTO History (id, rows, crc) VALUES (?, ?, ?)"

MOST = 4096
"""Tasks in a row of a history that is made anew."""


def fits(identity: bytes, replicate: int, status: str) -> bool:
    """Whether a row of a ledger, maybe of another hand, is one that a history can tell of."""
    return len(identity) == 16 and 0 <= replicate < 1 << 32 and status in _CODES


def add_history(connection: sqlite3.Connection, first: int, ended: list[tuple[bytes, int, str]]) -> None:
    """Add (identity, replicate, status) of the attempts from row ``first`` of the ledger on."""
    pack, codes = _ROW.pack, _CODES
    rows = b"".join([pack(identity, replicate, codes[status]) for identity, replicate, status in ended])
    connection.execute(_ADD, (first, rows, history_checksum(first, rows)))


def unpacked(first: int, rows: bytes) -> list[tuple[int, bytes, int, str]]:
    """Return (row, identity, replicate, status) of each; raises struct.error or IndexError if it is none."""
    return [
        (row, identity, replicate, STATUSES[code])
        for row, (identity, replicate, code) in enumerate(_ROW.iter_unpack(rows), first)
    ]


def done(rows: bytes) -> list[bytes]:
    """Return identity and replicate, 20 bytes, of the tasks that ended well.

    Raises struct.error if the bytes are no history.
    """
    codes = rows[ROW - 1 :: ROW]
    if len(rows) % ROW or max(codes, default=0) >= len(STATUSES):
        raise struct.error(len(rows))
    claims = [rows[at : at + ROW - 1] for at in range(0, len(rows), ROW)]
    return [claim for claim, code in zip(claims, codes) if not code] if any(codes) else claims


def rewrite_history(connection: sqlite3.Connection) -> None:
    """Make the history anew, of what the ledger says."""
    connection.execute("DELETE FROM History")
    rows = connection.execute("SELECT id, identity, replicate, status FROM Attempt ORDER BY id").fetchall()
    # A row of the history is for rows without a gap: their numbers rise as their places do.
    for _, run in groupby(enumerate(rows), lambda place: place[1][0] - place[0]):
        unbroken = [row for _, row in run]
        for at in range(0, len(unbroken), MOST):
            part = unbroken[at : at + MOST]
            add_history(connection, part[0][0], [row[1:] for row in part])
