"""Reading a session, in short steps."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import SessionError
from .format import (
    GET,
    HAS,
    Header,
    at_home,
    attempt_checksum,
    checked,
    count,
    damage,
    incomplete,
    log_salt,
    log_size,
    named_errors,
    step,
    verified,
)
from .grip import Grip

__all__ = ["Attempt", "Reader", "open_reader"]

_ATTEMPTS = (
    "SELECT a.id, s.name, s.record, a.number, a.identity, a.replicate, a.attempt, a.status, a.key, a.item,"
    " a.error, a.traceback, a.host, a.pid, a.started, a.seconds, a.output, a.crc"
    " FROM Attempt a JOIN Sweep s ON s.id = a.sweep WHERE a.id > ?"
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
    output: str | None


class Reader:
    """A session file, open for reading; never repairs, deletes or runs anything. See `open_reader`."""

    def __init__(self, path: Path, connection: sqlite3.Connection, header: Header) -> None:
        self.path = path
        self._connection = connection
        self._header = header
        self._seen: int | None = None

    @property
    def live(self) -> bool:
        """Whether somebody may be writing: then a connection must not be kept open between steps."""
        return self._header.writing or Header.read(self.path) != self._header

    def __len__(self) -> int:
        return count(self.path, self._connection)

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
        return self._counted("SELECT rowid, key FROM Dict WHERE rowid > ? ORDER BY rowid", after)

    def items(self, after: int) -> tuple[list[tuple[Any, ...]], int | None]:
        """Return a step of (row, key, value, crc)."""
        return self._counted("SELECT rowid, key, value, crc FROM Dict WHERE rowid > ? ORDER BY rowid", after)

    def check_number(self) -> None:
        """Raise DamagedSessionError unless as many items were read as there are in a sealed session."""
        if self._seen is None:
            return
        number = len(self)
        # Asked last: a writer may have come and gone since the items were read.
        if self._seen != number and not self.live:
            raise damage(self.path, f"of its {number} items, {self._seen} were found")

    def attempts(self, after: int) -> tuple[list[Attempt], int | None]:
        """Return a step of the ledger."""
        return self._attempts(f"{_ATTEMPTS} ORDER BY a.id", after)

    def failed(self, after: int) -> tuple[list[Attempt], int | None]:
        """Return a step of those rows of the ledger that did not end well."""
        return self._attempts(f"{_ATTEMPTS} AND a.status != 'ok' ORDER BY a.id", after)

    def _attempts(self, query: str, after: int) -> tuple[list[Attempt], int | None]:
        rows, after_ = self._step(query, after)
        for row in rows:
            if not _is_whole(row):
                raise damage(self.path, f"row {row[0]} of its ledger is not what was written")
        return [Attempt(*row[:-1]) for row in rows], after_

    def finished(self, after: int) -> tuple[list[tuple[Any, ...]], int | None]:
        """Return a step of (row, identity, replicate, status)."""
        return self._step(
            "SELECT id, identity, replicate, status FROM Attempt WHERE id > ? ORDER BY id", after
        )

    def numbers(self, sweep: str, after: int) -> tuple[list[tuple[Any, ...]], int | None]:
        """Return a step of (row, number, attempt, status, seconds) of one sweep."""
        return self._step(
            "SELECT a.id, a.number, a.attempt, a.status, a.seconds"
            " FROM Attempt a JOIN Sweep s ON s.id = a.sweep WHERE a.id > ? AND s.name = ? ORDER BY a.id",
            after,
            sweep,
        )

    def backup(self, target: sqlite3.Connection) -> None:
        """Copy the whole session, in one consistent state."""
        self._connection.backup(target)

    def _counted(self, query: str, after: int) -> tuple[list[tuple[Any, ...]], int | None]:
        rows, next_ = self._step(query, after)
        if after == 0:
            self._seen = 0
        if self._seen is not None:
            for row, *_ in rows:
                if row > after:  # a damaged page may show one row in the place of another
                    self._seen += 1
                    after = row
        return rows, next_

    def _step(self, query: str, after: int, *values: Any) -> tuple[list[tuple[Any, ...]], int | None]:
        with named_errors(self.path):
            return step(self._connection, query, after, *values)


def _is_whole(row: tuple[Any, ...]) -> bool:
    try:
        return bool(row[-1] == attempt_checksum(row[4], row[9], row[10]))
    except (TypeError, AttributeError):  # a flipped bit made a text of bytes, or a number
        return False


@contextmanager
def open_reader(path: Path, *, home: int | None = None) -> Iterator[Reader | None]:
    """Open a session for a short step of reading; gives None for a file that is no session of ours.

    Readers hold no lock between steps: a slow one must not hold a writer up, nor keep it from sealing.

    Raises:
        SessionError: the session is damaged, newer, or an incomplete copy, or must not be read.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(Grip(path))
            header = Header.read(path)
        except FileNotFoundError:
            header = None
        except OSError as error:
            text = f"the session {path} cannot be read ({error.strerror})."
            raise SessionError(text, path=str(path)) from error
        if header is None or not header.ours:
            yield None
            return
        checked(path, home, header)
        uri = f"{path.absolute().as_uri()}?mode=ro"
        if not header.writing and header.wal != bool(log_size(path)):
            # Sealed; a log beside it is of an older copy and must not be applied. Or shelve.open left it in
            # the mode with a log, and to look at it must not make one.
            uri += "&immutable=1"
        stack.enter_context(named_errors(path))
        reader = Reader(path, stack.enter_context(closing(_connect(uri))), header)
        if header.writing and not at_home(path, home):
            _check_log(reader, header)
        yield reader


def _connect(uri: str) -> sqlite3.Connection:
    return sqlite3.connect(uri, uri=True, isolation_level=None, timeout=10.0, check_same_thread=False)


def _check_log(reader: Reader, header: Header) -> None:
    """Raise IncompleteCopyError unless the log that was copied continues the file that was copied."""
    noted = dict(reader._connection.execute("SELECT name, value FROM Meta"))
    if (header.generation, log_salt(reader.path)) != (noted.get("generation"), noted.get("log")):
        raise incomplete(reader.path)
