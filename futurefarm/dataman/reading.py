"""How the sessions of a directory are read as one."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from ..directory import Directory
from ..errors import DamagedSessionError, IncompleteCopyError, SessionError, UnreadableValueError
from ..ledger import Record
from ..session import home_of, was_session
from ..store import Attempt, Reader, check_log, damage, open_reader, verified, verified_key
from ..trust import Loader, Trust

__all__ = ["ForeignFileWarning", "Sessions", "item", "loader_of", "record", "with_loader"]

ADVICE = "Recover it with: "

Step = tuple[list[Any], int | None]
T = TypeVar("T")


class ForeignFileWarning(UserWarning):
    """A file in the directory is no session of futurefarm; it was left alone."""


class Sessions:
    """The sessions of a directory. Each is read in short steps, so that no writer has to wait for long."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._foreign: set[str] = set()

    def each(self, read: Callable[[Reader, int], Step], make: Callable[[Path, Any], T]) -> Iterator[T]:
        """Read all sessions in steps; what cannot be read is raised when the rest is through."""
        problems = _Problems()
        paths = self._paths()
        for path in paths:
            try:
                for row in self.rows(path, read):
                    try:
                        yield make(path, row)
                    except (DamagedSessionError, IncompleteCopyError, UnreadableValueError) as error:
                        problems.add(error)
            except SessionError as error:
                problems.add(error)
        problems.raise_first(len(paths))

    def _paths(self) -> list[Path]:
        for path in self._directory.strangers():
            self._warn_of(path, "has a name that no session can have, and is ignored")
        return self._directory.sessions()

    def rows(self, path: Path, read: Callable[[Reader, int], Step], after: int | None = 0) -> Iterator[Any]:
        """Read one session in steps, behind the row ``after``."""
        while after is not None:
            with open_reader(path, home=home_of(self._directory, path.name)) as reader:
                if reader is None:
                    self._missed(path)
                    return
                while after is not None:
                    rows, after = read(reader, after)
                    if reader.live:
                        break
                    yield from rows
                    rows = []
                else:
                    reader.check_number()
            yield from rows  # of a live session only: its writer must find it closed
        check_log(path)

    def ask(self, question: Callable[[Reader], T]) -> Iterator[T]:
        """Ask each session a question; what cannot be read is raised when the rest is through."""
        problems = _Problems()
        paths = self._paths()
        for path in paths:
            try:
                with open_reader(path, home=home_of(self._directory, path.name)) as reader:
                    if reader is None:
                        self._missed(path)
                        continue
                    check_log(path)
                    answer = question(reader)
            except SessionError as error:
                problems.add(error)
            else:
                yield answer
        problems.raise_first(len(paths))

    def check(self) -> None:
        """Raise SessionError if a session is damaged, newer, or an incomplete copy; nothing is read of it."""
        for _ in self.ask(len):
            pass

    def check_indexes(self) -> None:
        """Raise DamagedSessionError if a key that seems to be missing may be there, hidden by damage."""
        for _ in self.ask(Reader.check_index):
            pass

    def _missed(self, path: Path) -> None:
        """Warn of a foreign file, once; of a session that was there a moment ago, raise SessionError."""
        if not path.exists():
            raise SessionError(
                f"the session {path.name} was removed while {path.parent} was read, or was joined to another "
                f"one by `futurefarm compact`. Read again.",
                path=str(path),
            )
        if was_session(self._directory, path):
            raise damage(path, "it does not begin like a session any more")
        self._warn_of(path, "is no session of futurefarm and is ignored")

    def _warn_of(self, path: Path, what: str) -> None:
        if path.name not in self._foreign:
            self._foreign.add(path.name)
            warnings.warn(f"{path} {what}. Move it out of the directory.", ForeignFileWarning, stacklevel=6)


def loader_of(trust: Trust, reader: Reader) -> Loader:
    """Return what reads the values of the session that is being read."""
    return trust.loader(reader.path, foreign=reader.foreign)


def with_loader(trust: Trust, read: Callable[[Reader, int], Step]) -> Callable[[Reader, int], Step]:
    """Return a reading of steps of (loader, row): whether to trust a session is asked at each step."""

    def read_with_loader(reader: Reader, after: int) -> Step:
        rows, after_ = read(reader, after)
        loader = loader_of(trust, reader)
        return [(loader, row) for row in rows], after_

    return read_with_loader


def item(path: Path, found: tuple[Loader, tuple[int, bytes, bytes, int | None]]) -> tuple[str, Any]:
    """Return key and value of a row of `Reader.items`. Unpickles the value."""
    loader, (_, key, value, crc) = found
    text = verified_key(path, key)
    return text, loader.loads(verified(path, key, value, crc), text)


def record(path: Path, found: tuple[Loader, Attempt]) -> Record:
    loader, row = found
    return Record.of(loader, row)


class _Problems:
    """What could not be read. The first is kept whole: each holds on to the bytes that it is about."""

    def __init__(self) -> None:
        self._first: SessionError | None = None
        self._number = 0
        self._spoilt: set[str] = set()

    def add(self, problem: SessionError) -> None:
        self._number += 1
        self._spoilt.add(problem.path)
        if self._first is None:
            self._first = problem

    def raise_first(self, sessions: int) -> None:
        """Raise what went wrong, once everything else has been read."""
        first = self._first
        if first is None:
            return
        more = f" (and {self._number - 1} more)" if self._number > 1 else ""
        if isinstance(first, UnreadableValueError):
            rest = "All others were read."
        else:
            rest = f"The other {sessions - len(self._spoilt)} sessions were read."
        what, _, advice = first.message.rstrip(".").partition(f". {ADVICE}")
        first.message = f"{what}{more}. {rest}{advice and f' {ADVICE}{advice}'}"
        raise first
