"""Writing a session."""

from __future__ import annotations

import ctypes
import os
import sqlite3
import sys
from collections.abc import Iterator, MutableMapping, Sequence
from contextlib import contextmanager, suppress
from itertools import groupby
from pathlib import Path
from typing import Any

from ..errors import OverwrittenSessionError, SessionClosedError
from .checksum import attempt_checksum, checksum, sweep_checksum
from .format import (
    COUNT_ATTEMPTS,
    COUNT_MORE,
    COUNT_UNKNOWN,
    FOREIGN,
    FORMAT,
    GET,
    HAS,
    NOTE_BLOBS,
    RECOUNT,
    Header,
    Home,
    at_home,
    check_blobs,
    check_log,
    checked,
    count,
    log_salt,
    log_size,
    named_errors,
    new_log,
    step,
    verified,
)
from .grip import Grip
from .guard import harden
from .history import add_history
from .insert import insert
from .sidecar import Sidecar
from .stretch import Sum
from .tail import Tail
from .watch import Watch

__all__ = ["Store"]

BUSY = 10_000
"""Milliseconds that a write waits for another process that writes the same file."""

FOLD_WAIT = 500
"""Milliseconds that folding the log waits for those who read or write, as it can be done later."""

_ADD = "Dict (key, value, crc)", "(?, ?, ?)"
_PUT = (
    "INSERT INTO Dict (key, value, crc) VALUES (?, ?, ?)"
    " ON CONFLICT (key) DO UPDATE SET value = excluded.value, crc = excluded.crc"
)
_NOTE = "UPDATE Meta SET value = ? WHERE name = ?"
_ATTEMPT = (
    "Attempt (sweep, number, identity, replicate, attempt, item, status, key, error, traceback, host, pid, "
    "started, seconds, output, crc)"
)
_ATTEMPT_VALUES = "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
# Of one that ended well, and printed nothing. To bind what is always the same takes a quarter longer.
_DONE = (
    "Attempt (sweep, status, number, identity, replicate, attempt, item, key, host, pid, started, seconds, "
    "crc)"
)
_DONE_VALUES = "({sweep:d}, 'ok', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"

_FOR_MARKS = "memory"
"""How the marks are written: in place, without a rollback journal. They lie in the first hundred bytes of the
file, which are written in one piece; the journal of a writer that is killed would keep all readers out."""


class Store(MutableMapping[bytes, bytes]):
    """A session file, open for writing. Whoever opens it holds the session's lock.

    Every change is a transaction of its own, on disk when the call returns (one sync), unless it is made
    inside `transaction`. A result survives a power cut: WAL with ``synchronous=FULL``.

    Args:
        path: an existing session file.
        wal: False on a network file system, where WAL does not work; commits then cost five syncs.
        home: what is remembered of the file that was written here before; kept up to date by the store.

    Raises:
        SessionError: it is no session, is damaged, newer, or an incomplete copy.

    A change raises OverwrittenSessionError when somebody has put another file in the place of this one.
    """

    def __init__(self, path: Path, *, wal: bool = True, home: Home | None = None) -> None:
        self.path = path
        self._home = home
        self._pid = os.getpid()
        self._wal = wal
        self._depth = 0
        self._sum = Sum()
        self._connection: sqlite3.Connection | None = None
        self._sidecar = Sidecar(path)
        with named_errors(path):
            header = checked(path, home)
            check_log(path)  # to write on would overwrite what can be recovered
            if not header.writing and not header.wal:
                for side in ("-wal", "-shm"):  # left over by a copy of an older state; the file has it all
                    Path(f"{path}{side}").unlink(missing_ok=True)
            self._grip = Grip(path)
            try:
                self._connection = sqlite3.connect(
                    path, isolation_level=None, timeout=BUSY / 1000, check_same_thread=False
                )
                harden(path, self._connection)
                check_blobs(path, self._connection)  # to write behind the end of a short copy would hide it
                self._begin_log(header, self._connection)
                self._watch = Watch(path, home, wal=wal)
            except BaseException:
                if self._connection is not None:
                    self._connection.close()
                self._grip.release()
                raise

    def _begin_log(self, header: Header, connection: sqlite3.Connection) -> None:
        execute = connection.execute
        execute("PRAGMA cache_size = -16000")
        execute("PRAGMA wal_autocheckpoint = 0")
        if header.writing:  # another process writes too, or one died: its log goes on
            if not header.wal:
                execute(f"PRAGMA journal_mode = {_FOR_MARKS}")
            execute(f"PRAGMA journal_mode = {'WAL' if self._wal else 'TRUNCATE'}")
            execute(f"PRAGMA synchronous = {'FULL' if self._wal else 'EXTRA'}")
            if self._wal and not log_size(self.path):  # died between two logs
                self._renew()
            elif self._wal and self._home is not None and not at_home(self.path, self._home):
                self._note_home(header.generation)
                self._fold()  # a copy: no later copy of the original may be taken for what is written here
            return
        execute(f"PRAGMA journal_mode = {_FOR_MARKS}")  # shelve.open leaves WAL mode behind
        execute("PRAGMA synchronous = EXTRA")
        # Without a log the pages change from now on.
        Tail(header.generation, folding=0 if self._wal else -1).write(self.path)
        log = new_log(header.generation)
        self._note_home(header.generation, log)  # both: somebody may look between this line and the next
        self._set_version(connection, log, writing=True)
        self._note_home(log)
        execute(f"PRAGMA journal_mode = {'WAL' if self._wal else 'TRUNCATE'}")
        if self._wal:
            execute("PRAGMA synchronous = FULL")
        self._note_log(log, base=header.generation)
        execute(COUNT_UNKNOWN)

    def _set_version(self, connection: sqlite3.Connection, log: int, *, writing: bool) -> None:
        connection.execute(f"PRAGMA user_version = {FORMAT | writing << 8 | log << 9}")

    def _note_home(self, *logs: int) -> None:
        if self._home is not None:
            self._home.note(os.stat(self.path).st_ino, *logs)

    def _note_log(self, log: int, base: int) -> None:
        """Note in the log which file and log belong together; ``base`` was folded into the file last."""
        self._note(generation=log, base=base, folding=0)
        self._note(log=log_salt(self.path))  # which is there from the first entry on

    def _note(self, **values: int | bytes) -> None:
        connection = self.connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            connection.executemany(_NOTE, ((value, name) for name, value in values.items()))
            self._sum.note(connection)  # so that the end of a session costs no sync of its own
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    # -- one value at a time

    def __getitem__(self, key: bytes) -> bytes:
        row = self._execute(GET, (key,)).fetchone()
        if row is None:
            raise KeyError(key)
        return verified(self.path, key, *row)

    def __setitem__(self, key: bytes, value: bytes) -> None:
        with self.transaction():
            row = self._execute(GET, (key,)).fetchone()
            crc = checksum(key, value)
            last = self._execute(_PUT, (key, value, crc)).lastrowid
            if row is None:
                self._execute(COUNT_MORE, (1,))
                self._sum.add(self.connection, last or 0, [(key, value, crc)])
            elif row[1] is None:  # another program wrote it and did not count
                self.recount()

    def __delitem__(self, key: bytes) -> None:
        if not self._execute("DELETE FROM Dict WHERE key = ?", (key,)).rowcount:
            raise KeyError(key)

    def __contains__(self, key: object) -> bool:
        return self._execute(HAS, (key,)).fetchone() is not None

    def __len__(self) -> int:
        return count(self.path, self.connection)

    def __iter__(self) -> Iterator[bytes]:
        after: int | None = 0
        while after is not None:
            with named_errors(self.path):
                rows, after, _ = step(
                    self.connection, "SELECT rowid, key FROM Dict WHERE rowid > ? ORDER BY rowid", after
                )
            yield from (key for _, key in rows)

    @property
    def foreign(self) -> bool:
        """Whether others may have written what is in it, in the directory from which it was merged."""
        return self._execute(FOREIGN, ()).fetchone() is not None

    # -- large ones

    def keep(self, stream: bytes, buffers: Sequence[Any] = (), *, whole: bool = False) -> bytes:
        """Write what is large of a value beside the session at once; return what stands in its place.

        ``whole`` asks to write the pickle itself, too, be it small.
        It is on disk when a value that refers to it is stored. Several threads may do so at once.

        Raises:
            StorageFullError: there is no space, and nothing of it is left.
            SessionError: it cannot be written.
        """
        return self._open_sidecar.keep(stream, buffers, whole=whole)

    def place(self, value: bytes) -> bytes:
        """Keep what is large of a value that was pickled elsewhere; leave one that was kept here as it is."""
        return self._open_sidecar.place(value)

    @property
    def mark(self) -> bytes | None:
        """What tells the file with its large values from all others; None where there is none yet."""
        return self._open_sidecar.mark

    @property
    def _open_sidecar(self) -> Sidecar:
        _ = self.connection
        return self._sidecar

    def _settle(self) -> None:
        """Make large values durable before the commit of what refers to them."""
        length = self._sidecar.settle()
        if length is not None:
            self._execute(NOTE_BLOBS, (length,))

    # -- many at once

    def append(
        self,
        sweep: str,
        record: str,
        results: list[tuple[bytes, bytes, int]],
        attempts: list[tuple[Any, ...]],
    ) -> int:
        """Add results and ledger rows in one transaction; return the last row of the ledger.

        ``results`` are new keys, values and checksums; ``attempts`` the columns of Attempt from ``number``
        to ``output``. Nobody else may be writing: what a failure leaves in the log is cut off.

        Raises:
            StorageFullError: there is no space; nothing was stored, and the session may be written again.
            SessionError: nothing was stored for sure, and the session must not be written again.
        """
        end = self.log_size
        try:
            last = self._append(sweep, record, results, attempts)
        except Exception:  # not Ctrl-C: it may have struck when all was committed, and is no failure
            self._cut_log(end)
            raise
        self._check_that_it_stands()  # before it counts as stored: its directory may have been moved
        return last

    def _append(
        self,
        sweep: str,
        record: str,
        results: list[tuple[bytes, bytes, int]],
        attempts: list[tuple[Any, ...]],
    ) -> int:
        with named_errors(self.path), self.transaction():
            number = self.sweep(sweep, record)
            insert(self.connection, *_ADD, results)
            self._execute(COUNT_MORE, (len(results),))
            self.sum_up(results)
            return self.add_attempts(number, attempts)

    def _cut_log(self, end: int) -> None:
        """Cut off what a failed transaction left behind the log.

        It may be whole, if only its sync failed: whoever opens the file next would take it for committed,
        while it is stored a second time elsewhere. And on a full disk it would keep space from others.
        """
        if self._wal and end and self._depth == 0 and self.log_size > end:
            with suppress(OSError):
                os.truncate(f"{self.path}-wal", end)

    def add_attempts(self, sweep: int, rows: list[tuple[Any, ...]]) -> int:
        """Add rows to the ledger, as `Attempt` has them from ``number`` on; return the number of the last."""
        last = int(self._execute("SELECT max(id) FROM Attempt", ()).fetchone()[0] or 0)
        for done, run in groupby(rows, _is_done):
            if done:
                guarded = [(*row[:5], row[6], *row[9:13], attempt_checksum(sweep, *row)) for row in run]
                insert(self.connection, _DONE, _DONE_VALUES.format(sweep=sweep), guarded)
            else:
                guarded = [(sweep, *row, attempt_checksum(sweep, *row)) for row in run]
                insert(self.connection, _ATTEMPT, _ATTEMPT_VALUES, guarded)
        if rows:
            add_history(self.connection, last + 1, [(row[1], row[2], row[5]) for row in rows])
            self._execute(COUNT_ATTEMPTS, (len(rows),))
        return last + len(rows)

    def sum_up(self, added: list[tuple[bytes, bytes, int]]) -> None:
        """Note of items that were just added that their checksums fit, for those who read all of them."""
        if added:
            (last,) = self._execute("SELECT last_insert_rowid()", ()).fetchone()
            self._sum.add(self.connection, last, added)

    def recount(self) -> None:
        """Count the items again, after they were written by other ways than `append`."""
        self._execute(RECOUNT, ())

    def sweep(self, sweep: str, record: str) -> int:
        """Return the number that a sweep has in this file."""
        found = self._execute("SELECT id FROM Sweep WHERE name = ?", (sweep,)).fetchone()
        if found is not None:
            return int(found[0])
        (last,) = self._execute("SELECT coalesce(max(id), 0) FROM Sweep", ()).fetchone()
        number = int(last) + 1
        row = number, sweep, record, sweep_checksum(number, sweep, record)
        self._execute("INSERT INTO Sweep (id, name, record, crc) VALUES (?, ?, ?, ?)", row)
        return number

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All changes in the block, or none; a block within a block is a part of it, undone on its own.

        Ctrl-C may strike at any line. As a generator this is undone even where it strikes between the end
        of the block and ours: a transaction that stayed open would take what is written later for its own.
        """
        depth = self._depth
        if not depth:
            self._check_that_it_stands()
        try:
            self._execute(f"SAVEPOINT part{depth}" if depth else "BEGIN IMMEDIATE", ())
            self._depth = depth + 1
            yield
            if not depth:
                self._settle()
            self._execute(f"RELEASE part{depth}" if depth else "COMMIT", ())
            self._depth = depth
        except BaseException:
            self._undo(depth)
            raise

    def _undo(self, depth: int) -> None:
        """Undo what was begun at a depth, unless SQLite did so itself, because the disk is full or failed."""
        begun = self._depth > depth
        self._depth = depth
        self._sum.forget()
        connection = self._connection
        if connection is None or self._pid != os.getpid() or not connection.in_transaction:
            return
        if not depth:
            self._execute("ROLLBACK", ())
        elif begun:
            with suppress(sqlite3.OperationalError):  # there is no such part: it has been released
                connection.execute(f"ROLLBACK TO part{depth}")
                connection.execute(f"RELEASE part{depth}")

    # -- the life of the file

    @property
    def closed(self) -> bool:
        return self._connection is None

    @property
    def log_size(self) -> int:
        return log_size(self.path)

    def fold(self) -> None:
        """Fold the log into the file and begin a new one, for a file whose log grew long."""
        if self._wal and not self._depth:  # a transaction's log cannot be folded
            self._check_that_it_stands()
            with named_errors(self.path):
                self._fold()

    def _fold(self) -> None:
        self._announce_fold()
        busy, log, folded = self._checkpoint()
        if not busy or log == folded:
            self._renew()
        else:
            self._note(folding=0)

    def _announce_fold(self) -> None:
        """Mark log and file, before pages of the file change, for those who are copying it."""
        if self._wal:
            self._note(folding=1)
        Tail(self._generation(), folding=max(1, log_size(self.path))).write(self.path)

    def _generation(self) -> int:
        # Asked of the log: another process that shares the session may have begun a new one.
        return int(self.connection.execute("PRAGMA user_version").fetchone()[0] >> 9)

    def _checkpoint(self) -> tuple[int, int, int]:
        self._execute(f"PRAGMA busy_timeout = {FOLD_WAIT}", ())
        try:
            busy, log, folded = self._execute("PRAGMA wal_checkpoint(TRUNCATE)", ()).fetchone()
        finally:
            self._execute(f"PRAGMA busy_timeout = {BUSY}", ())
        return busy, log, folded

    def _renew(self) -> None:
        """Go over to a new log, after the old one was folded into the file.

        The order matters to copies that are being taken: the generation rises between the old log and the
        new one, so that no copy can hold the old file and the new log unnoticed.
        """
        old = self._generation()
        new = new_log(old)
        self._note_home(old, new)
        self._set_version(self.connection, new, writing=True)
        self._checkpoint()
        Tail(old).write(self.path)
        self._note_log(new, base=old)
        if Header.read(self.path).generation == new:  # a reader may have kept it from the file for now
            self._note_home(new)

    def close(self) -> None:
        """Seal the file, unless another process has it open, and close it. Closing twice is harmless."""
        self._sidecar.close()
        if self._connection is None:
            return
        if self._pid != os.getpid():  # of the process that this one was forked from
            _abandon(self._connection)
            self._connection = None
            return
        try:
            self._check_that_it_stands()
            sealed = self._seal_and_disconnect()
            if not sealed and self._wal and not log_size(self.path):
                # The other process closed in between, and SQLite folded the log in as ours closed last.
                with named_errors(self.path):
                    self._connection = sqlite3.connect(self.path, isolation_level=None, timeout=1.0)
                self._seal_and_disconnect()
        finally:
            if self._connection is not None:
                self._connection.close()
                self._connection = None
            self._grip.release()

    def _check_that_it_stands(self) -> None:
        """Raise OverwrittenSessionError if another file lies in the place of ours, and close."""
        try:
            with named_errors(self.path):
                self._watch.check()
        except OverwrittenSessionError:
            connection, self._connection = self._connection, None
            if connection is not None:
                self._close_without_folding(connection)
            raise

    def _close_without_folding(self, connection: sqlite3.Connection) -> None:
        """Close a connection so that its log is not folded into a file that is not ours."""
        if sys.version_info >= (3, 12):
            connection.setconfig(sqlite3.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, True)
            connection.close()
            self._grip.release()
        else:
            _abandon(connection)
            if self._grip.holds(self.path):
                # Within this process, SQLite would use the index of our log for the one that was copied here.
                self._grip.lose()
                Path(f"{self.path}-shm").unlink(missing_ok=True)

    def _seal_and_disconnect(self) -> bool:
        try:
            with named_errors(self.path):
                return self._seal(self.connection)
        finally:
            self.connection.close()
            self._connection = None

    def _seal(self, connection: sqlite3.Connection) -> bool:
        if connection.in_transaction:  # closed in the middle of one, which is then undone
            connection.execute("ROLLBACK")
        try:
            connection.execute(f"PRAGMA busy_timeout = {FOLD_WAIT}")
            self._announce_fold()
            # FULL leaves the log as it is, so that a copy which began before still gets all of it.
            if self._wal and connection.execute("PRAGMA wal_checkpoint(FULL)").fetchone()[0]:
                self._note(folding=0)
                return False
            if not self._leave_log(connection):
                self._renew()  # all of the log is in the file, so the others would begin it anew
                return False
            log = self._generation()
            Tail(log).write(self.path)
            connection.execute("PRAGMA synchronous = EXTRA")
            self._set_version(connection, log, writing=False)
        except (sqlite3.OperationalError, OSError):
            return False  # in use elsewhere, or the disk failed; it stays readable, and the next one seals it
        return True

    def _leave_log(self, connection: sqlite3.Connection) -> bool:
        try:
            (mode,) = connection.execute(f"PRAGMA journal_mode = {_FOR_MARKS}").fetchone()
        except sqlite3.OperationalError:
            return False
        return bool(mode == _FOR_MARKS)

    @property
    def connection(self) -> sqlite3.Connection:
        if self._connection is None or self._pid != os.getpid():
            raise SessionClosedError(
                f"the session {self.path.name} is closed, or was opened by the process that this one was "
                f"forked from. Open a session of your own: dataman.session().",
                path=str(self.path),
            )
        return self._connection

    def _execute(self, statement: str, values: tuple[Any, ...]) -> sqlite3.Cursor:
        with named_errors(self.path):
            return self.connection.execute(statement, values)


def _is_done(row: tuple[Any, ...]) -> bool:
    return row[5] == "ok" and row[7] is row[8] is row[13] is None


def _abandon(connection: sqlite3.Connection) -> None:
    """Keep a connection for good that must not be closed: one inherited by a fork holds locks of its owner.

    A list would not do, as it is emptied at the end of the program, with a warning about the connection.
    """
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))
