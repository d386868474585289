"""Reading a session, in short steps."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import DamagedSessionError
from .format import (
    GET,
    HAS,
    Header,
    at_home,
    attempt_checksum,
    checked,
    count,
    incomplete,
    log_size,
    named_errors,
    step,
    verified,
)

__all__ = ["Attempt", "Reader", "open_reader"]

_ATTEMPTS = (
    "SELECT a.id, s.name, s.record, a.number, a.identity, a.replicate, a.attempt, a.status, a.key, a.item, a.error,"
    " a.traceback, a.host, a.pid, a.started, a.seconds, a.crc FROM Attempt a JOIN Sweep s ON s.id = a.sweep"
    " WHERE a.id > ? ORDER BY a.id"
)


class Attempt(NamedTuple):
    """A row of the ledger, as it is stored."""

    row: int
    sweep: str
    record: str
    number: int
    identity: bytes
    replicate: int
    attempt: int
    status: str
    key: bytes | None
    item: bytes
    error: str | None
    traceback: str | None
    host: str
    pid: int
    started: float
    seconds: float


class Reader:
    """A session file, open for reading; never repairs, deletes or runs anything. See `open_reader`."""

    def __init__(self, path: Path, connection: sqlite3.Connection, header: Header) -> None:
        self.path = path
        self._connection = connection
        self._header = header

    @property
    def live(self) -> bool:
        """Whether somebody may be writing: then a connection must not be kept open between steps."""
        return self._header.writing or Header.read(self.path) != self._header

    def __len__(self) -> int:
        with named_errors(self.path):
            return count(self._connection)

    def __contains__(self, key: bytes) -> bool:
        with named_errors(self.path):
            return self._connection.execute(HAS, (key,)).fetchone() is not None

    def get(self, key: bytes) -> bytes | None:
        """Return the value of a key, or None. Raises DamagedSessionError if it is not what was written."""
        with named_errors(self.path):
            row = self._connection.execute(GET, (key,)).fetchone()
        return None if row is None else verified(self.path, key, *row)

    def keys(self, after: int) -> tuple[list[tuple[Any, ...]], int | None]:
        """Return a step of (row, key) behind row ``after``, and the row to go on from, or None at the end."""
        return self._step("SELECT rowid, key FROM Dict WHERE rowid > ? ORDER BY rowid", after)

    def items(self, after: int) -> tuple[list[tuple[Any, ...]], int | None]:
        """Return a step of (row, key, value, crc)."""
        return self._step("SELECT rowid, key, value, crc FROM Dict WHERE rowid > ? ORDER BY rowid", after)

    def attempts(self, after: int) -> tuple[list[Attempt], int | None]:
        """Return a step of the ledger."""
        rows, after_ = self._step(_ATTEMPTS, after)
        for row in rows:
            if row[-1] != attempt_checksum(row[4], row[9], row[10]):
                raise DamagedSessionError(
                    f"the session {self.path.name} is damaged: row {row[0]} of its ledger is not what was "
                    f"written. Restore {self.path} from a copy.",
                    path=str(self.path),
                )
        return [Attempt(*row[:-1]) for row in rows], after_

    def finished(self, after: int) -> tuple[list[tuple[Any, ...]], int | None]:
        """Return a step of (row, identity, replicate, status)."""
        return self._step(
            "SELECT id, identity, replicate, status FROM Attempt WHERE id > ? ORDER BY id", after
        )

    def numbers(self, sweep: str, after: int) -> tuple[list[tuple[Any, ...]], int | None]:
        """Return a step of (row, number, attempt, status, seconds) of one sweep."""
        return self._step(
            "SELECT a.id, a.number, a.attempt, a.status, a.seconds FROM Attempt a JOIN Sweep s ON s.id = a.sweep"
            " WHERE a.id > ? AND s.name = ? ORDER BY a.id",
            after,
            sweep,
        )

    def backup(self, target: sqlite3.Connection) -> None:
        """Copy the whole session, in one consistent state."""
        self._connection.backup(target)

    def _step(self, query: str, after: int) -> tuple[list[tuple[Any, ...]], int | None]:
        with named_errors(self.path):
            return step(self._connection, query, after)


@contextmanager
def open_reader(path: Path, *, home: int | None = None) -> Iterator[Reader | None]:
    """Open a session for a short step of reading; gives None for a file that is no session of ours.

    Readers hold no lock between steps: a slow one must not hold a writer up, nor keep it from sealing.

    Raises:
        SessionError: the session is damaged, newer, or an incomplete copy.
    """
    try:
        header = Header.read(path)
    except FileNotFoundError:
        header = Header(False, 0, False, 0, False)
    if not header.ours:
        yield None
        return
    checked(path, home, header)
    uri = f"{path.absolute().as_uri()}?mode=ro"
    if not header.writing and not header.wal and log_size(path):
        uri += "&immutable=1"  # sealed; the log beside it is of an older copy and must not be applied
    connection = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=10.0, check_same_thread=False)
    try:
        reader = Reader(path, connection, header)
        if header.writing and not at_home(path, home):
            _check_generation(reader, header)
        yield reader
    finally:
        connection.close()


def _check_generation(reader: Reader, header: Header) -> None:
    with named_errors(reader.path):
        (noted,) = reader._connection.execute("SELECT value FROM Meta WHERE name = 'generation'").fetchone()
    if noted != header.generation:
        raise incomplete(reader.path)
