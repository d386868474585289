"""The format of a session file: its schema, its header, its checksums, and what makes it unreadable."""

from __future__ import annotations

import errno
import os
import secrets
import sqlite3
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from ..errors import (
    DamagedSessionError,
    FutureFarmError,
    IncompleteCopyError,
    NewerSessionError,
    SessionError,
    StorageFullError,
)
from ..smallfile import make
from .checksum import checksum
from .grip import Grip
from .log import lost_commits
from .tail import Tail

FORMAT = 1
_MAGIC = b"SQLite format 3\0"
_APPLICATION = 0x46464152  # "FFAR"
_LOGS = (1 << 22) - 1  # what fits into user_version beside the format and the mark, and leaves it positive

# The number of items is kept twice, so that a flipped bit in it is noticed. Another program does not keep it:
# what it wrote has no checksum and makes us count, and when that is deleted the number is unknown: NULL.
_COUNTERS = "('count', 'again')"

SCHEMA = f"""
PRAGMA application_id = {_APPLICATION};
CREATE TABLE Dict (key BLOB UNIQUE NOT NULL, value BLOB NOT NULL, crc INTEGER);
CREATE INDEX Unchecked ON Dict (key) WHERE crc IS NULL;
CREATE TABLE Meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE Sweep (
    id INTEGER PRIMARY KEY, name TEXT UNIQUE NOT NULL, record TEXT NOT NULL, crc INTEGER NOT NULL
);
CREATE TABLE Attempt (
    id INTEGER PRIMARY KEY, sweep INTEGER NOT NULL, number INTEGER NOT NULL, identity BLOB NOT NULL,
    replicate INTEGER NOT NULL, attempt INTEGER NOT NULL, status TEXT NOT NULL, key BLOB, host TEXT NOT NULL,
    pid INTEGER NOT NULL, started REAL NOT NULL, seconds REAL NOT NULL, crc INTEGER NOT NULL,
    item BLOB NOT NULL, error TEXT, traceback TEXT, output TEXT
);
CREATE TABLE History (id INTEGER PRIMARY KEY, rows BLOB NOT NULL, crc INTEGER NOT NULL);
CREATE TABLE Stretch (
    first INTEGER PRIMARY KEY, last INTEGER NOT NULL, size INTEGER NOT NULL, keys INTEGER NOT NULL,
    crc INTEGER NOT NULL
);
CREATE TRIGGER Removed AFTER DELETE ON Dict WHEN OLD.crc IS NOT NULL
    BEGIN UPDATE Meta SET value = value - 1 WHERE name IN {_COUNTERS}; END;
CREATE TRIGGER Forgotten AFTER DELETE ON Dict WHEN OLD.crc IS NULL
    BEGIN UPDATE Meta SET value = NULL WHERE name IN {_COUNTERS}; END;
INSERT INTO Meta VALUES ('count', 0), ('again', 0), ('attempts', 0);
INSERT INTO Meta VALUES ('generation', 0), ('log', x''), ('base', 0), ('folding', 0);
"""

COUNT_MORE = f"UPDATE Meta SET value = value + ? WHERE name IN {_COUNTERS}"
# No file has more rows than a quarter of its bytes. In a hostile one, whose tables show one page in many
# places, a plain COUNT would not end.
_MOST_ROWS = "(SELECT page_count * page_size / 4 FROM pragma_page_count, pragma_page_size)"
COUNT_ITEMS = f"(SELECT COUNT(*) FROM (SELECT 1 FROM Dict LIMIT {_MOST_ROWS}))"
COUNT_LEDGER = f"(SELECT COUNT(*) FROM (SELECT 1 FROM Attempt LIMIT {_MOST_ROWS}))"
RECOUNT = f"UPDATE Meta SET value = {COUNT_ITEMS} WHERE name IN {_COUNTERS}"
COUNT_UNKNOWN = f"{RECOUNT} AND value IS NULL"
COUNT_ATTEMPTS = "UPDATE Meta SET value = value + ? WHERE name = 'attempts'"

NOTES = frozenset({"count", "again", "attempts", "generation", "log", "foreign", "blobs"})
"""The names in Meta."""

# How long the file with the large values must be. It is there from the first one on.
NOTE_BLOBS = (
    "INSERT INTO Meta VALUES ('blobs', ?) ON CONFLICT (name) DO UPDATE SET value = max(value, excluded.value)"
)
BLOBS = "SELECT value FROM Meta WHERE name = 'blobs'"

FOREIGN = "SELECT 1 FROM Meta WHERE name = 'foreign'"
MARK_FOREIGN = "INSERT OR IGNORE INTO Meta VALUES ('foreign', 1)"

GET = "SELECT value, crc FROM Dict WHERE key = ?"
HAS = "SELECT 1 FROM Dict WHERE key = ?"

STEP_ROWS = 1000
STEP_BYTES = 4 << 20


class Header(NamedTuple):
    """What the first bytes of a session file say, read without SQLite."""

    ours: bool
    version: int
    writing: bool
    generation: int
    wal: bool

    @classmethod
    def read(cls, path: Path) -> Header:
        with Grip(path) as grip:
            return cls.of(grip.read(100))

    @classmethod
    def of(cls, data: bytes) -> Header:
        """Return what the first hundred bytes say."""
        ours = data.startswith(_MAGIC) and data[68:72] == _APPLICATION.to_bytes(4, "big")
        user = int.from_bytes(data[60:64], "big")
        return cls(ours, user & 0xFF, bool(user & 0x100), user >> 9, data[18:19] == b"\2")


def resembles_session(path: Path) -> bool:
    """Whether all but a few bits of what tells our files from others are there."""
    with Grip(path) as grip:
        data = grip.read(72)
    expected = int.from_bytes(_MAGIC + _APPLICATION.to_bytes(4, "big"), "big")
    return (int.from_bytes(data[:16] + data[68:72], "big") ^ expected).bit_count() <= 8


def is_blank(path: Path) -> bool:
    """Whether a file is empty, or begins with a block that was never written."""
    with Grip(path) as grip:
        return not any(grip.read(512))


def create(path: Path) -> None:
    """Make an empty, sealed session file at ``path``, which must not exist; it is on disk on return."""
    with named_errors(path):
        os.close(make(path))
        connection = sqlite3.connect(path, isolation_level=None)
        try:
            # Nobody knows the file yet: it may be written carelessly and then synced as a whole.
            connection.execute("PRAGMA journal_mode = OFF")
            connection.execute("PRAGMA synchronous = OFF")
            connection.executescript(f"BEGIN; {SCHEMA} PRAGMA user_version = {FORMAT}; COMMIT;")
        finally:
            connection.close()
        Tail(0).write(path)
        sync(path)


def sync(path: Path) -> None:
    """Make all that was written to a file durable."""
    fd = os.open(path, os.O_RDWR)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def log_salt(path: Path) -> bytes:
    """Return what SQLite makes anew whenever it begins a session's log; nothing where there is no log."""
    try:
        with open(f"{path}-wal", "rb") as file:
            return file.read(24)[16:]
    except FileNotFoundError:
        return b""


def log_size(path: Path) -> int:
    """Return the bytes in a session's log; 0 where there is none."""
    with named_errors(path):
        try:
            return os.stat(f"{path}-wal").st_size
        except FileNotFoundError:
            return 0


class Home(Protocol):
    """What is remembered, beside a session, of the file that was last written here under its name."""

    def knows(self, inode: int, log: int) -> bool:
        """Whether the file of this inode was written here, with the log of this number."""
        ...

    def note(self, inode: int, *logs: int) -> None:
        """Remember a file and the logs that it has or may soon have; on disk on return."""
        ...


def checked(path: Path, home: Home | None, header: Header | None = None) -> Header:
    header = header or Header.read(path)
    if not header.ours:
        raise SessionError(
            f"{path} is not a session of futurefarm. Move it out of the directory or choose another name.",
            path=str(path),
        )
    if header.version > FORMAT:
        raise NewerSessionError(
            f"the session {path.name} was written by a later version of futurefarm (format {header.version}, "
            f"known here: {FORMAT}). Update with: pip install -U futurefarm",
            path=str(path),
            version=header.version,
        )
    if header.writing and not log_size(path) and not at_home(path, home):
        raise incomplete(path)
    return header


def at_home(path: Path, home: Home | None) -> bool:
    """Whether a file is the very one that was written here, and no copy.

    By its inode, and, because `cp` over a file leaves it its inode, by the number of its log.
    """
    known, log = False, -1
    while home is not None and not known:
        seen, log = log, Header.read(path).generation
        if log == seen:  # else a writer may have begun a new log between our two looks
            break
        known = home.knows(os.stat(path).st_ino, log)
    return known


def new_log(*but: int) -> int:
    """Return the number of a new log: random, so that copies of one session which are both written differ."""
    while (number := 1 + secrets.randbelow(_LOGS)) in but:
        pass
    return number


def check_sealed(path: Path, log: int) -> None:
    """Raise IncompleteCopyError if the copy of a sealed file was torn: some pages are of another moment."""
    try:
        tail = Tail.read(path)
    except ValueError:
        raise incomplete(path) from None
    if tail is not None and tail != Tail(log):  # without one: another program made the file longer
        raise incomplete(path)


def check_standing(path: Path, noted: Mapping[str, Any]) -> None:
    """Raise IncompleteCopyError if a copy was torn whose log does not make it whole again.

    Args:
        path: of a file that is not at home.
        noted: what was noted in the log that lies beside it.
    """
    try:
        tail = Tail.read(path)
    except ValueError:
        tail = None
    if tail is None:  # the pages grew over it: the log was being folded in, and has to be that long
        whole = noted.get("folding") == 1
    elif tail.folding:
        whole = tail.log == noted.get("generation") and log_size(path) >= tail.folding
    else:
        whole = tail.log == noted.get("base")
    if not whole:
        raise incomplete(path)


def incomplete(path: Path) -> IncompleteCopyError:
    return IncompleteCopyError(
        f"the session {path.name} is an incomplete copy: it was copied while it was being written, and parts "
        f"of it are of different moments, or its log {path.name}-wal is missing. {_copy_again(path)}",
        path=str(path),
    )


def without_blobs(path: Path, key: str | None = None) -> IncompleteCopyError:
    """Return the error for a session whose large values are not all there."""
    what = "it" if key is None else f"the value of {key!r}"
    return IncompleteCopyError(
        f"the session {path.name} is an incomplete copy: its file {sidecar_of(path).name}, with large "
        f"values, is missing or was copied before {what} was whole. {_copy_again(path)}",
        path=str(path),
        key=key,
    )


def _copy_again(path: Path) -> str:
    return (
        f"Copy it again from where it came, or merge that directory with dataman.merge(). To make do with "
        f"what is here: {_repair(path)}"
    )


def sidecar_of(path: Path) -> Path:
    """Return the path of the file that holds the large values of a session."""
    return Path(f"{path}.blobs")


def check_blobs(path: Path, connection: sqlite3.Connection) -> None:
    """Raise IncompleteCopyError if the file with the large values of a session is missing or too short."""
    (length,) = connection.execute(BLOBS).fetchone() or (0,)
    if type(length) is not int:
        raise damage(path, "how many large values it has is not what was written")
    try:
        whole = not length or os.stat(sidecar_of(path)).st_size >= length
    except FileNotFoundError:
        whole = False
    if not whole:
        raise without_blobs(path)


def advice(path: Path) -> str:
    return f"Recover it with: {_repair(path)}"


def _repair(path: Path) -> str:
    import shlex  # late, as `tempfile` below: a worker, which starts for every sweep, must not wait for it

    return f"futurefarm repair {shlex.quote(str(path.parent))}"


def damage(path: Path, what: object, key: str | None = None) -> DamagedSessionError:
    return DamagedSessionError(
        f"the session {path.name} is damaged: {what}. {advice(path)}.",
        path=str(path),
        key=key,
    )


def named(path: Path, error: sqlite3.Error | OSError | UnicodeDecodeError) -> SessionError:
    """Return the error of ours that names the session for one of SQLite or of the file system."""
    if isinstance(error, OSError):
        if error.errno in _FULL:
            return full(path)
        text = f"the session {path} cannot be used ({error.strerror or error})."
        return SessionError(text, path=str(path), errno=error.errno)
    if not isinstance(error, sqlite3.OperationalError):
        return damage(path, error)
    name = getattr(error, "sqlite_errorname", "")  # full, locked, no permission, input or output failed
    if name in (
        "",
        "SQLITE_ERROR",
    ):  # it does not understand our statements: the schema is not what was written
        return damage(path, error)
    if name == "SQLITE_FULL" or (name in _MAYBE_FULL and not _has_room(path.parent)):
        return full(path)
    return SessionError(f"the session {path} cannot be used ({error}; {name}).", path=str(path))


_FULL = (errno.ENOSPC, errno.EDQUOT)

# What SQLite says when a quota is full, or when the disk is and it cannot even begin. That a sync failed is
# not among them: after that the file must not be used again, whatever the reason.
_MAYBE_FULL = ("SQLITE_CANTOPEN", "SQLITE_IOERR_WRITE", "SQLITE_IOERR_SHMSIZE", "SQLITE_IOERR_TRUNCATE")

_ROOM = 64 << 10  # bytes: more than SQLite needs to open a session


def full(path: Path) -> StorageFullError:
    return StorageFullError(
        f"the session {path} cannot be written, as the disk or the quota is full. What it holds is intact. "
        f"Free space and write again.",
        path=str(path),
        errno=errno.ENOSPC,
    )


def _has_room(folder: Path) -> bool:
    """Ask the file system itself, because SQLite does not tell why it could not write."""
    import tempfile

    try:
        with tempfile.TemporaryFile(dir=folder, prefix=".") as file:
            file.write(bytes(_ROOM))
    except OSError as error:
        return error.errno not in _FULL
    return True


def verified_key(path: Path, key: Any) -> str:
    try:
        return str(key, "utf-8")
    except (TypeError, UnicodeDecodeError):
        what = "one of its keys" if key is None else f"the key {key!r}"
        raise damage(path, f"{what} is not what was written") from None


def verified(path: Path, key: bytes, value: Any, crc: int | None) -> bytes:
    text = verified_key(path, key)
    if type(value) is not bytes or (crc is not None and crc != checksum(key, value)):
        raise damage(path, f"the value of {text!r} is not what was written", text)
    return value


class TornLogWarning(UserWarning):
    """The last commit in the log of a session is not whole: torn by a power cut, or damaged."""


def check_log(path: Path) -> None:
    """Raise DamagedSessionError if acknowledged commits in a session's log cannot be seen.

    Of the last commit nobody knows: a power cut may have torn it before it was acknowledged. That is normal,
    so it is told by a TornLogWarning only.
    """
    with named_errors(path):
        loss = lost_commits(path) if Header.read(path).writing else None
    if loss is None:
        return
    if loss.acknowledged:
        raise damage(path, f"its log is damaged, and {loss.commits} commits in it are not seen")
    warnings.warn(
        f"the last commit in the log of the session {path.name} is not whole. If the power failed while it "
        f"was written, nothing that was acknowledged is missing; otherwise it is damaged. {advice(path)}",
        TornLogWarning,
        stacklevel=5,
    )


@contextmanager
def named_errors(path: Path) -> Iterator[None]:
    """Turn the errors of SQLite and of the system into ours, which name the session."""
    try:
        yield
    except (sqlite3.IntegrityError, sqlite3.ProgrammingError):
        raise  # a mistake of ours, not of the file
    except (sqlite3.DatabaseError, OSError, UnicodeDecodeError) as error:  # may quote damaged text
        if isinstance(error, FutureFarmError):
            raise
        raise named(path, error) from error


_COUNTED = f"SELECT min(value), max(value) FROM Meta WHERE name IN {_COUNTERS}"
_UNCHECKED = "SELECT 1 FROM Dict WHERE crc IS NULL LIMIT 1"


def count(path: Path, connection: sqlite3.Connection) -> int:
    """Return the number of items, without going through them unless another program wrote some."""
    with named_errors(path):
        least, most = connection.execute(_COUNTED).fetchone()
        if least is None or connection.execute(_UNCHECKED).fetchone() is not None:
            return int(connection.execute(f"SELECT {COUNT_ITEMS}").fetchone()[0])
    if least != most or type(least) is not int or least < 0:
        raise damage(path, "its number of items is not what was written")
    return least


def step(
    connection: sqlite3.Connection, query: str, after: int, *values: Any
) -> tuple[list[tuple[Any, ...]], int | None, int]:
    """Return the next rows of a query, bounded in number and bytes, where to go on, or None, and their size.

    The query takes the row to start behind, and then ``values``; its first column is the row.
    """
    rows: list[tuple[Any, ...]] = []
    size = 0
    cursor = connection.execute(query, (after, *values))
    try:
        for row in cursor:
            rows.append(row)
            size += size_of(row)
            if len(rows) == STEP_ROWS or size > STEP_BYTES:
                if not after < row[0]:  # of a damaged file; to go on from there could take for ever
                    raise sqlite3.DatabaseError("its rows are not in order")
                return rows, int(row[0]), size
    finally:
        cursor.close()
    return rows, None, size


def size_of(row: tuple[Any, ...]) -> int:
    """Return about how many bytes of the file a row takes, at the least."""
    return 4 + sum(len(field) for field in row if type(field) is bytes or type(field) is str)
