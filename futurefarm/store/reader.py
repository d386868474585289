"""Reading a session, in short steps."""

from __future__ import annotations

import os
import sqlite3
import struct
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from ..errors import IncompleteCopyError, OverwrittenSessionError, SessionError
from .checksum import attempt_checksum, history_checksum, sweep_checksum
from .format import (
    FOREIGN,
    GET,
    HAS,
    Header,
    Home,
    at_home,
    check_blobs,
    check_sealed,
    check_standing,
    checked,
    count,
    damage,
    incomplete,
    log_salt,
    log_size,
    named_errors,
    size_of,
    step,
    verified,
    verified_key,
)
from .grip import Grip
from .guard import budget_of, harden
from .history import ROW, done, fits, unpacked
from .stretch import Stretch, Whole

__all__ = ["Attempt", "Reader", "open_reader"]

T = TypeVar("T")

BUSY = 10.0
"""Seconds for which a file that SQLite has locked is waited for."""

# In the order in which `attempt_checksum` takes them.
_ATTEMPT = (
    "SELECT id, crc, sweep, number, identity, replicate, attempt, item, status, key, error, traceback, host,"
    " pid, started, seconds, output FROM Attempt"
)

_IS_FOUND = (
    "EXISTS (SELECT 1 FROM Dict AS found INDEXED BY sqlite_autoindex_Dict_1"
    " WHERE found.key = each.key AND found.rowid = each.rowid)"
)
_HIDDEN = f"SELECT key FROM Dict AS each NOT INDEXED WHERE NOT {_IS_FOUND} LIMIT 1"
_KEYS = (
    f"SELECT rowid, CASE WHEN {_IS_FOUND} THEN key END FROM Dict AS each NOT INDEXED"
    " WHERE rowid > ? AND rowid <= ? ORDER BY rowid"
)
_ITEMS = "SELECT rowid, key, value, crc FROM Dict WHERE rowid > ? AND rowid <= ? ORDER BY rowid"
_LAST = (1 << 63) - 1
"""The highest number that a row can have."""

_in_order: set[tuple[int, int, int, int]] = set()
"""Files whose index finds every key: device, inode, time of change and size."""


_NO_ROOM = ("SQLITE_IOERR_SHMSIZE", "SQLITE_IOERR_SHMOPEN", "SQLITE_CANTOPEN", "SQLITE_FULL")


class Attempt(NamedTuple):
    """A row of the ledger, as it is stored."""

    row: int
    sweep: str
    record: str
    number: int
    identity: bytes
    replicate: int
    attempt: int
    item: bytes
    status: str
    key: bytes | None
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
        self._what = "items"
        self._seen: int | None = None
        self._sweeps: dict[int, tuple[str, str]] = {}
        self._stretches: list[Stretch] = []
        self._budget = budget_of(path)

    @property
    def live(self) -> bool:
        """Whether somebody may be writing: then a connection must not be kept open between steps."""
        return self._header.writing or Header.read(self.path) != self._header

    @cached_property
    def foreign(self) -> bool:
        """Whether others may have written it, in the directory from which it was merged."""
        with named_errors(self.path):
            return self._connection.execute(FOREIGN).fetchone() is not None

    def __len__(self) -> int:
        return count(self.path, self._connection)

    def __contains__(self, key: bytes) -> bool:
        with named_errors(self.path):
            return self._connection.execute(HAS, (key,)).fetchone() is not None

    def check_index(self) -> None:
        """Raise DamagedSessionError unless every key is found by the index, as otherwise one seems missing.

        It takes about a second for a million keys. A file that was found in order is not looked at again.
        """
        status = os.stat(self.path)
        file = status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size
        if file in _in_order:
            return
        with named_errors(self.path):
            hidden = self._connection.execute(_HIDDEN).fetchone()
        if hidden is not None:
            raise damage(self.path, f"its index does not find {verified_key(self.path, hidden[0])!r}")
        if len(_in_order) > 10_000:
            _in_order.clear()
        _in_order.add(file)

    def get(self, key: bytes) -> bytes | None:
        """Return the value of a key, or None. Raises DamagedSessionError if it is not what was written."""
        with named_errors(self.path):
            row = self._connection.execute(GET, (key,)).fetchone()
        return None if row is None else verified(self.path, key, *row)

    def keys(self, after: int, until: int = _LAST) -> tuple[list[tuple[Any, ...]], int | None]:
        """Return a step of (row, key) behind row ``after``, and the row to go on from, or None at the end.

        A key that is not what was written comes as None: without the values only the index vouches for keys.
        """
        return self._counted("items", _KEYS, after, until)

    def items(self, after: int, until: int = _LAST) -> tuple[list[tuple[Any, ...]], int | None]:
        """Return a step of (row, key, value, crc)."""
        return self._counted("items", _ITEMS, after, until)

    def whole_keys(self, after: int) -> tuple[Whole | list[tuple[Any, ...]], int | None]:
        """Return a step of keys that are known to be what was written, or one as `keys` does."""
        return self._stretch(after, self.keys, values=False)

    def whole_items(self, after: int) -> tuple[Whole | list[tuple[Any, ...]], int | None]:
        """Return a step of keys and values that are known to be what was written, or one as `items` does.

        Only for a session of the user's own: one of another hand could fill the memory with a single step.
        """
        return self._stretch(after, self.items, values=True)

    def _stretch(
        self,
        after: int,
        rows: Callable[[int, int], tuple[list[tuple[Any, ...]], int | None]],
        *,
        values: bool,
    ) -> tuple[Whole | list[tuple[Any, ...]], int | None]:
        with named_errors(self.path):
            stretch = self._next_stretch(after)
            if stretch is None:
                return rows(after, _LAST)
            if stretch.first > after + 1:
                return rows(after, stretch.first - 1)
            whole = stretch.read(self._connection, values=values)
        if whole is None:
            return rows(after, stretch.last)
        self._count("items", after, ())
        if self._seen is not None:
            self._seen += len(whole.keys)
        self._pay(stretch.size)
        return whole, stretch.last

    def _next_stretch(self, after: int) -> Stretch | None:
        while self._stretches and self._stretches[-1].first <= after:
            self._stretches.pop()
        if not self._stretches:
            self._stretches = Stretch.behind(self._connection, after)
        return self._stretches[-1] if self._stretches else None

    def check_number(self) -> None:
        """Raise DamagedSessionError unless as many rows were read as there are in a sealed session."""
        if self._seen is None:
            return
        number = len(self) if self._what == "items" else self._number_of_attempts()
        # Asked last: a writer may have come and gone since the rows were read.
        if self._seen != number and not self.live:
            raise damage(self.path, f"of its {number} {self._what}, {self._seen} were found")

    def _number_of_attempts(self) -> Any:
        with named_errors(self.path):
            query = "SELECT max(value) FROM Meta WHERE name = 'attempts'"
            return self._connection.execute(query).fetchone()[0]

    def attempts(self, after: int) -> tuple[list[Attempt], int | None]:
        """Return a step of the ledger."""
        rows, after_ = self._counted("attempts", f"{_ATTEMPT} WHERE id > ? ORDER BY id", after)
        return [self._attempt(row) for row in rows], after_

    def failed(self, after: int) -> tuple[list[Attempt], int | None]:
        """Return a step of those rows of the ledger that did not end well."""
        ended, after_ = self.finished(after)
        return [self._attempt_of(row) for row, _, _, status in ended if status != "ok"], after_

    def _attempt_of(self, number: int) -> Attempt:
        with named_errors(self.path):
            row = self._connection.execute(f"{_ATTEMPT} WHERE id = ?", (number,)).fetchone()
        if row is None:
            raise self._damaged_row(number)
        self._pay(size_of(row))
        return self._attempt(row)

    def finished(self, after: int) -> tuple[list[tuple[int, bytes, int, str]], int | None]:
        """Return a step of (row, identity, replicate, status)."""
        batches, after_ = self._histories(after)
        ended = [row for first, rows in batches for row in self._of_history(first, unpacked, first, rows)]
        self._count("attempts", after, (row for row, *_ in ended))
        return ended, after_

    def done(self, after: int) -> tuple[list[bytes], int | None]:
        """Return a step of identity and replicate, in 20 bytes, of the tasks that ended well."""
        batches, after_ = self._histories(after)
        claims = [self._of_history(first, done, rows) for first, rows in batches]
        self._count("attempts", after, ())
        for first, rows in batches:
            if self._seen is not None and first > after:
                after = first + len(rows) // ROW - 1
                self._seen += len(rows) // ROW
        return list(chain.from_iterable(claims)), after_

    def _histories(self, after: int) -> tuple[list[tuple[int, bytes]], int | None]:
        batches, after_ = self._step("SELECT id, rows, crc FROM History WHERE id > ? ORDER BY id", after)
        for first, rows, crc in batches:
            if not _is(crc, history_checksum, (first, rows)):
                raise self._damaged_history(first)
        return [(first, rows) for first, rows, _ in batches], after_

    def _of_history(self, first: int, read: Callable[..., list[T]], *what: Any) -> list[T]:
        try:
            return read(*what)
        except (struct.error, IndexError):
            raise self._damaged_history(first) from None

    def _damaged_history(self, first: int) -> SessionError:
        return damage(self.path, f"the history of its ledger from row {first} on is not what was written")

    def numbers(
        self, sweep: str, first: int, last: int, after: int
    ) -> tuple[list[tuple[Any, ...]], int | None]:
        """Return a step of (row, number, attempt, status) of the tasks of a sweep from first to last."""
        query = f"{_ATTEMPT} WHERE id > ? AND number BETWEEN ? AND ? ORDER BY id"
        rows, after_ = self._step(query, after, first, last)
        attempts = map(self._attempt, rows)
        return [(a.row, a.number, a.attempt, a.status) for a in attempts if a.sweep == sweep], after_

    def _attempt(self, row: tuple[Any, ...]) -> Attempt:
        number, crc, sweep, *columns = row
        if _is(crc, attempt_checksum, row[2:]):
            attempt = Attempt(number, *self._sweep(sweep), *columns)
            if fits(attempt.identity, attempt.replicate, attempt.status):
                return attempt
        raise self._damaged_row(number)

    def _damaged_row(self, number: object) -> SessionError:
        return damage(self.path, f"row {number} of its ledger is not what was written")

    def _sweep(self, number: int) -> tuple[str, str]:
        """Return name and record of a sweep, which all its rows share."""
        if number not in self._sweeps:
            with named_errors(self.path):
                query = "SELECT name, record, crc FROM Sweep WHERE id = ?"
                row = self._connection.execute(query, (number,)).fetchone()
            if row is None or not _is(row[2], sweep_checksum, (number, *row[:2])):
                raise damage(self.path, f"the record of its sweep {number} is not what was written")
            self._pay(size_of(row))
            self._sweeps[number] = row[:2]
        return self._sweeps[number]

    def free_bytes(self) -> int:
        """Return the bytes in pages that are not used."""
        query = "SELECT freelist_count * page_size FROM pragma_freelist_count, pragma_page_size"
        with named_errors(self.path):
            return int(self._connection.execute(query).fetchone()[0])

    def integrity(self) -> list[str]:
        """Return what SQLite itself finds wrong, at most ten lines."""
        with named_errors(self.path):
            lines = [str(line) for (line,) in self._connection.execute("PRAGMA integrity_check(10)")]
        return [] if lines == ["ok"] else lines

    def backup(self, target: sqlite3.Connection) -> None:
        """Copy the whole session, in one consistent state."""
        deadline = time.monotonic() + BUSY

        def no_longer(status: int, left: int, pages: int) -> None:
            if status != sqlite3.SQLITE_DONE and time.monotonic() > deadline:
                raise sqlite3.OperationalError("database is locked")

        # Python asks a source that is locked again and again, without end; all pages come in one step else.
        self._connection.backup(target, progress=no_longer, sleep=0.05)

    def _counted(
        self, what: str, query: str, after: int, until: int | None = None
    ) -> tuple[list[tuple[Any, ...]], int | None]:
        rows, next_ = self._step(query, after, *(() if until is None else (until,)))
        self._count(what, after, (row for row, *_ in rows))
        return rows, until if next_ is None and until != _LAST else next_

    def _count(self, what: str, after: int, rows: Iterable[int]) -> None:
        if after == 0:
            self._what, self._seen = what, 0
        if self._seen is not None:
            for row in rows:
                if row > after:  # a damaged page may show one row in the place of another
                    self._seen += 1
                    after = row

    def _step(self, query: str, after: int, *values: Any) -> tuple[list[tuple[Any, ...]], int | None]:
        with named_errors(self.path):
            rows, after_, size = step(self._connection, query, after, *values)
        self._pay(size)
        return rows, after_

    def _pay(self, size: int) -> None:
        """Notice a file whose tables show one page in many places: it could be read without end."""
        self._budget -= size
        if self._budget < 0:
            raise damage(self.path, "its tables hold more than it has bytes")


def _is(crc: object, of: Callable[..., int], columns: tuple[Any, ...]) -> bool:
    try:
        return of(*columns) == crc
    except (TypeError, AttributeError, struct.error):  # a flipped bit made a text of bytes, or a number
        return False


@contextmanager
def open_reader(path: Path, *, home: Home | None = None) -> Iterator[Reader | None]:
    """Open a session for a short step of reading; gives None for a file that is no session of ours.

    Readers hold no lock between steps: a slow one must not hold a writer up, nor keep it from sealing.

    Raises:
        SessionError: the session is damaged, newer, or an incomplete copy, or must not be read.
    """
    with ExitStack() as stack:
        try:
            grip = stack.enter_context(Grip(path))
            header = Header.of(grip.read(100))
        except FileNotFoundError:
            header = None
        except OSError as error:
            text = f"the session {path} cannot be read ({error.strerror})."
            raise SessionError(text, path=str(path)) from error
        if header is None or not header.ours:
            yield None
            return
        if grip.lost:
            raise OverwrittenSessionError(
                f"the session {path.name} was overwritten while this program was writing it, and this "
                f"version of Python cannot let go of what was there. Read it in another program, or with "
                f"Python 3.12.",
                path=str(path),
            )
        stack.enter_context(named_errors(path))
        checked(path, home, header)
        # What a commit that was cut off left in a file without a log, SQLite undoes, but only for a writer.
        mode = "rw" if not header.wal and _has_journal(path) else "ro"
        uri = f"{path.absolute().as_uri()}?mode={mode}"
        if not header.writing and header.wal != bool(log_size(path)):
            # Sealed; a log beside it is of an older copy and must not be applied. Or shelve.open left it in
            # the mode with a log, and to look at it must not make one.
            uri += "&immutable=1"
        connection = stack.enter_context(closing(_connect(uri)))
        try:
            _harden(path, connection, header, home)
        except sqlite3.OperationalError as error:
            if log_size(path) or getattr(error, "sqlite_errorname", "") not in _NO_ROOM:
                raise
            # It was begun on a full disk, where there is no room for the index of its log, which is empty.
            connection = stack.enter_context(closing(_connect(f"{uri}&immutable=1")))
            _harden(path, connection, header, home)
        reader = Reader(path, connection, header)
        try:
            _check_copy(reader, header)
            check_blobs(path, connection)
        except IncompleteCopyError:  # what was written here is no copy; its writer came or went as we looked
            if not at_home(path, home):
                raise
        yield reader


def _has_journal(path: Path) -> bool:
    try:
        return os.stat(f"{path}-journal").st_size > 0
    except FileNotFoundError:
        return False


def _connect(uri: str) -> sqlite3.Connection:
    return sqlite3.connect(uri, uri=True, isolation_level=None, timeout=BUSY, check_same_thread=False)


def _harden(path: Path, connection: sqlite3.Connection, header: Header, home: Home | None) -> None:
    try:
        harden(path, connection)
    except sqlite3.OperationalError:
        raise
    except sqlite3.DatabaseError as error:
        # SQLite trips over a first page that is later than the log, before the two can be compared.
        if not at_home(path, home):
            if header.writing:
                raise incomplete(path) from error
            check_sealed(path, header.generation)
        raise


def _check_copy(reader: Reader, header: Header) -> None:
    if header.writing:
        _check_log(reader, header)
    else:
        check_sealed(reader.path, header.generation)


def _check_log(reader: Reader, header: Header) -> None:
    """Raise IncompleteCopyError unless the log that was copied continues the file that was copied."""
    query = "SELECT name, value FROM Meta LIMIT 20"
    try:
        noted = dict(reader._connection.execute(query))
    except sqlite3.OperationalError:
        raise
    except sqlite3.DatabaseError as error:  # pages of different moments, most likely
        raise incomplete(reader.path) from error
    if (header.generation, log_salt(reader.path)) != (noted.get("generation"), noted.get("log")):
        raise incomplete(reader.path)
    check_standing(reader.path, noted)
