"""Taking over what another session file holds."""

from __future__ import annotations

import os
import sqlite3
from itertools import groupby
from pathlib import Path

from ..blobs import has_trailer
from ..smallfile import make, open_plain
from .beside import Beside, is_same
from .checksum import checksum
from .format import (
    BLOBS,
    COUNT_ITEMS,
    COUNT_LEDGER,
    HAS,
    MARK_FOREIGN,
    Header,
    Home,
    named_errors,
    sidecar_of,
    sync,
    verified,
    verified_key,
    without_blobs,
)
from .reader import open_reader
from .store import Store
from .tail import Tail

__all__ = ["adopt", "copy", "overlaps"]

_ADD = "INSERT INTO Dict (key, value, crc) VALUES (?, ?, ?)"
_PIECE = 1 << 20


def copy(source: Path, target: Path, *, home: Home | None = None, foreign: bool = False) -> int | None:
    """Copy a session, also one that is being written, to a new, sealed file, on disk on return.

    Its large values are copied beside it, as they are: `blobs` tells why a later state of them will do.

    ``foreign`` notes in the copy that others may have written it: the owner of the file no longer tells.

    Returns:
        The number of items and attempts in it, or None if ``source`` is no session.
    """
    with open_reader(source, home=home) as reader:
        if reader is None:
            return None
        os.close(make(target))
        connection = sqlite3.connect(target, isolation_level=None)
        try:
            with named_errors(source):
                reader.backup(connection)
                connection.execute("PRAGMA journal_mode = DELETE")
                version = Header.read(target)
                connection.execute("PRAGMA synchronous = EXTRA")
                connection.execute(f"PRAGMA user_version = {version.version | version.generation << 9}")
                if foreign:
                    connection.execute(MARK_FOREIGN)
                (attempts,) = connection.execute(f"SELECT {COUNT_LEDGER}").fetchone()
                (items,) = connection.execute(f"SELECT {COUNT_ITEMS}").fetchone()
                (length,) = connection.execute(BLOBS).fetchone() or (0,)
        finally:
            connection.close()
        if length:
            _copy_blobs(source, target, length)
    Tail(version.generation).write(target)
    sync(target)
    return int(attempts) + int(items)


def _copy_blobs(source: Path, target: Path, length: int) -> None:
    try:
        read = os.fdopen(open_plain(sidecar_of(source)), "rb", buffering=0)
    except FileNotFoundError:
        raise without_blobs(source) from None
    with read, named_errors(target), os.fdopen(make(sidecar_of(target)), "wb", buffering=0) as file:
        while length:
            piece = read.read(min(length, _PIECE))
            if not piece:
                raise without_blobs(source)
            file.write(piece)
            length -= len(piece)
        os.fsync(file.fileno())


def adopt(
    source: Path, store: Store, *, home: Home | None = None, foreign: bool = False
) -> tuple[int, list[str]]:
    """Take over the items and attempts of ``source`` that ``store`` does not have.

    What is missing in ``source`` by damage is noticed, and then nothing is taken over.

    Returns:
        How many there were, and the keys under which the two hold different values; ``store`` keeps its own.
    """
    taken = 0
    conflicts: list[str] = []
    with open_reader(source, home=home) as reader, Beside(source) as beside:
        if reader is None:
            return 0, []
        connection = store.connection
        with store.transaction():
            if foreign or reader.foreign:
                connection.execute(MARK_FOREIGN)
            after: int | None = 0
            while after is not None:
                rows, after = reader.items(after)
                for _, key, value, crc in rows:
                    if connection.execute(HAS, (key,)).fetchone() is None:
                        if has_trailer(value):
                            value = verified(source, key, value, crc)
                            value = beside.move(verified_key(source, key), value, store)
                            crc = checksum(key, value)
                        connection.execute(_ADD, (key, value, crc))
                        taken += 1
                    elif not is_same(store[key], value):
                        conflicts.append(key.decode("utf-8", "replace"))
            reader.check_number()
            store.recount()
            known = set(connection.execute(_KNOWN))
            after = 0
            while after is not None:
                attempts, after = reader.attempts(after)
                new = [a for a in attempts if (a.sweep, a.number, a.attempt, a.started) not in known]
                for (sweep, record), of_sweep in groupby(new, lambda a: (a.sweep, a.record)):
                    store.add_attempts(store.sweep(sweep, record), [a[3:] for a in of_sweep])
                taken += len(new)
            reader.check_number()
    return taken, conflicts


def overlaps(source: Path, store: Store) -> bool:
    """Whether ``store`` holds a key that ``source`` holds."""
    with open_reader(source) as reader:
        after: int | None = 0
        while reader is not None and after is not None:
            rows, after = reader.keys(after)
            if any(key in store for _, key in rows):
                return True
    return False


_KNOWN = "SELECT s.name, a.number, a.attempt, a.started FROM Attempt a JOIN Sweep s ON s.id = a.sweep"
