"""Looking for everything that may be wrong with a session."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, TypeVar
from zlib import crc32

from ..errors import DamagedSessionError, IncompleteCopyError, SessionError
from .beside import Beside
from .format import Header, Home, verified
from .log import lost_commits
from .reader import Reader, open_reader
from .salvage import salvage

__all__ = ["Finding", "examine"]

T = TypeVar("T")
Judge = Callable[[bytes], str | None]


class Finding(NamedTuple):
    """Something wrong: what it is, and the key of the value that it is about, or None.

    ``damage`` is whether the bytes are not what was written, so that a fresh session of the rest would help.
    """

    what: str
    key: str | None = None
    damage: bool = True


def examine(path: Path, judge: Judge | None = None, *, home: Home | None = None) -> Iterator[Finding]:
    """Iterate over all that is wrong with a session; ``judge`` tells what is wrong with a whole value."""
    told: set[str | None] = set()
    damaged = False
    for finding in _look(path, judge, home):
        damaged = damaged or finding.damage
        told.add(finding.key)
        yield finding
    if damaged:
        yield from (finding for finding in _beyond(path) if finding.key not in told - {None})


def _look(path: Path, judge: Judge | None, home: Home | None) -> Iterator[Finding]:
    try:
        with open_reader(path, home=home) as reader:
            if reader is not None:
                yield from (Finding(f"SQLite finds: {line}") for line in reader.integrity())
                yield from _values(reader, judge)
                yield from _ledger(reader)
                yield from _log(path)
    except (DamagedSessionError, IncompleteCopyError) as error:
        yield Finding(error.message)
    except SessionError as error:
        yield Finding(error.message, damage=False)


def _values(reader: Reader, judge: Judge | None) -> Iterator[Finding]:
    with Beside(reader.path) as beside:
        for rows in _steps(reader.items):
            for _, key, value, crc in rows:
                try:
                    data = verified(reader.path, key, value, crc)
                except DamagedSessionError as error:
                    yield Finding("its value is not what was written", error.key or repr(key))
                    continue
                fault = beside.fault(data)
                if fault:
                    yield Finding(fault, key.decode())
                    continue
                wrong = judge(beside.stream(data)) if judge else None
                if wrong:
                    yield Finding(wrong, key.decode(), damage=False)
    reader.check_number()


def _ledger(reader: Reader) -> Iterator[Finding]:
    told = seen = 0
    for ended in _steps(reader.finished):
        told = _sum(told, ended)
    reader.check_number()
    for rows in _steps(reader.attempts):
        seen = _sum(seen, [(row.row, row.identity, row.replicate, row.status) for row in rows])
        for row in rows:
            if row.status == "ok" and row.key is not None and row.key not in reader:
                text = f"task {row.number} of the sweep {row.sweep} ended well, and its result is not there"
                yield Finding(text, row.key.decode(), damage=False)
    reader.check_number()
    if told != seen and not reader.live:
        yield Finding("its history is not that of its ledger")


def _steps(read: Callable[[int], tuple[list[T], int | None]]) -> Iterator[list[T]]:
    after: int | None = 0
    while after is not None:
        rows, after = read(after)
        yield rows


def _sum(before: int, ended: list[tuple[int, bytes, int, str]]) -> int:
    """Return a checksum of which tasks ended and how, by which two accounts can be compared."""
    for row in ended:
        before = crc32(repr(row).encode(), before)
    return before


def _log(path: Path) -> Iterator[Finding]:
    loss = lost_commits(path) if Header.read(path).writing else None
    if loss is not None and loss.acknowledged:
        yield Finding(f"its log is damaged, and {loss.commits} commits in it are not seen")
    elif loss is not None:
        what = (
            "the last commit in its log is not whole: the power failed while it was written, or it is damaged"
        )
        yield Finding(what)


def _beyond(path: Path) -> Iterator[Finding]:
    """Iterate over what is lost, as far as its remains tell."""
    items: set[bytes] = set()
    attempts: set[int] = set()
    spoilt: set[bytes] = set()
    rows: set[int] = set()
    with Beside(path) as beside:
        for found in salvage(path):
            if found.table == "Dict":
                key, value, _ = found.columns
                (spoilt if found.whole is False or beside.fault(value) else items).add(key)
            elif found.table == "Attempt":
                (attempts if found.whole else rows).add(found.row)
    for key in sorted(spoilt - items):
        yield Finding("its value is not what was written", key.decode("utf-8", "replace"))
    for row in sorted(rows - attempts):
        yield Finding(f"row {row} of its ledger is not what was written")
    yield Finding(f"{len(items)} items and {len(attempts)} attempts of it can be recovered")
