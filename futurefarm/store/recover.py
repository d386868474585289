"""Making a fresh session of what a damaged one still holds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from .beside import Beside, end_of
from .checksum import sweep_checksum
from .format import NOTE_BLOBS, Header, create, sync
from .history import rewrite_history
from .salvage import Found, salvage
from .store import Store

__all__ = ["Recovered", "recover"]

NAMED = 10_000
"""Keys of lost values that are told; of more, only the number is."""

_ITEM = "INSERT OR IGNORE INTO Dict (key, value, crc) VALUES (?, ?, ?)"
_SWEEP = "INSERT OR IGNORE INTO Sweep (id, name, record, crc) VALUES (?, ?, ?, ?)"
_ATTEMPT = (
    "INSERT OR IGNORE INTO Attempt (id, sweep, number, identity, replicate, attempt, status, key, host, pid,"
    f" started, seconds, crc, item, error, traceback, output) VALUES ({', '.join('?' * 17)})"
)
_RECOUNT_ATTEMPTS = "UPDATE Meta SET value = (SELECT COUNT(*) FROM Attempt) WHERE name = 'attempts'"
_UNKNOWN = "SELECT DISTINCT sweep FROM Attempt WHERE sweep NOT IN (SELECT id FROM Sweep)"
_WITHOUT_VALUE = "status = 'ok' AND NOT EXISTS (SELECT 1 FROM Dict WHERE Dict.key = Attempt.key)"


@dataclass
class Recovered:
    """What was recovered of a session, and what was not.

    ``lost`` has the keys of values that are damaged or missing, as far as they are known; their attempts are
    left out too, so that a sweep that resumes runs those tasks again. ``notes`` is what Meta still says.
    """

    items: int = 0
    attempts: int = 0
    unchecked: int = 0
    damaged_attempts: int = 0
    lost: list[str] = field(default_factory=list)
    notes: dict[str, object] = field(default_factory=dict)


def recover(source: Path, target: Path, *, foreign: bool = False) -> Recovered:
    """Make a sealed session at ``target`` of all rows of ``source`` whose checksums fit; on disk on return.

    ``source`` is only read, and its large values stay where they are: whoever gives the new file the name of
    the old one leaves them beside it. (To move them would be a second step, and a kill in between would part
    them.) Those that are damaged or missing cost the values that refer to them. Values of other programs,
    which have no checksum, are taken over as they are. If others may have written it, because ``foreign``
    says so or nothing tells otherwise any more, that is noted in the new file, as its owner does not tell.
    """
    create(target)
    store = Store(target, wal=False)
    try:
        with Beside(source) as beside, store.transaction():
            told = _take_over(store, salvage(source), beside)
            if foreign or "foreign" in told.notes or "count" not in told.notes:
                store.connection.execute("INSERT OR IGNORE INTO Meta VALUES ('foreign', 1)")
    finally:
        store.close()
    if Header.read(target).writing:
        raise RuntimeError(f"{target} was not sealed")  # pragma: no cover - nobody else knows the file
    sync(target)
    return told


def _take_over(store: Store, found: Iterator[Found], beside: Beside) -> Recovered:
    execute = store.connection.execute
    told = Recovered()
    blobs = 0
    names: dict[int, str] = {}
    spoilt: dict[bytes, None] = {}
    spoilt_rows: set[int] = set()
    for table, row, columns, whole in found:
        if table == "Name":
            names[row] = str(columns[0])
        elif table == "Meta":
            told.notes[columns[0]] = columns[1]
        elif table == "Sweep":
            if whole:
                execute(_SWEEP, (row, *columns))
        elif table == "Dict":
            if whole is not False and not beside.fault(columns[1]):
                execute(_ITEM, columns)
                blobs = max(blobs, end_of(columns[1]))
            elif len(spoilt) < NAMED:
                spoilt[columns[0]] = None
        elif whole:
            if not execute(_ATTEMPT, (row, *columns)).rowcount and not _is_there(store, row, columns):
                execute(_ATTEMPT, (None, *columns))  # its own number was damaged and is another row's
        else:
            spoilt_rows.add(row)
    for (number,) in execute(_UNKNOWN).fetchall():
        _stand_in(store, number, names.get(number))
    without = execute(f"SELECT key FROM Attempt WHERE {_WITHOUT_VALUE} LIMIT {NAMED}").fetchall()
    spoilt |= dict.fromkeys(key for (key,) in without)
    told.lost = [key.decode("utf-8", "replace") for key in spoilt if key not in store]
    execute(f"DELETE FROM Attempt WHERE {_WITHOUT_VALUE}")
    if blobs:
        execute(NOTE_BLOBS, (blobs,))
    store.recount()
    execute(_RECOUNT_ATTEMPTS)
    rewrite_history(store.connection)
    told.items, told.unchecked = execute("SELECT COUNT(*), COUNT(*) - COUNT(crc) FROM Dict").fetchone()
    (told.attempts,) = execute("SELECT COUNT(*) FROM Attempt").fetchone()
    told.damaged_attempts = sum(
        execute("SELECT 1 FROM Attempt WHERE id = ?", (row,)).fetchone() is None for row in spoilt_rows
    )
    return told


def _is_there(store: Store, row: int, columns: tuple[object, ...]) -> bool:
    query = "SELECT crc FROM Attempt WHERE id = ?"
    return bool(store.connection.execute(query, (row,)).fetchone() == (columns[11],))


def _stand_in(store: Store, number: int, name: str | None) -> None:
    """Add a sweep whose record is lost, so that its attempts are not."""
    for name_ in (name or f"unknown-{number}", f"unknown-{number}"):
        if store.connection.execute(
            _SWEEP, (number, name_, "{}", sweep_checksum(number, name_, "{}"))
        ).rowcount:
            return
