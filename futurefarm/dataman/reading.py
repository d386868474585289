"""How the sessions of a directory are read as one."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from ..directory import Directory
from ..errors import DamagedSessionError, IncompleteCopyError, SessionError, UnreadableValueError
from ..ledger import Record
from ..session import home_of, was_session
from ..store import Reader, Whole, check_log, damage, open_reader, verified, verified_key
from ..store.glance import count_sealed
from ..trust import Loader, Trust

__all__ = ["ForeignFileWarning", "Sessions", "Step", "loader_of"]

ADVICE = "Recover it with: "

T = TypeVar("T")
Read = Callable[[Reader, int], tuple[Any, int | None]]
"""Reads a step behind a row; tells where to go on, or None at the end."""
Tell = Callable[[SessionError], None]
Make = Callable[[Path, Any, Tell], Iterable[T]]
"""Makes of a step what is asked for, and tells what of it cannot be read."""


class ForeignFileWarning(UserWarning):
    """A file in the directory is no session of futurefarm; it was left alone."""


class Sessions:
    """The sessions of a directory. Each is read in short steps, so that no writer has to wait for long."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._foreign: set[str] = set()

    def each(self, read: Read, make: Make[T]) -> Iterator[T]:
        """Read all sessions in steps; what cannot be read is raised when the rest is through."""
        problems = _Problems()
        paths = self._paths()
        for path in paths:
            try:
                for step in self.steps(path, read):
                    yield from make(path, step, problems.add)
                    del step  # or there would be two in memory
            except SessionError as error:
                problems.add(error)
        problems.raise_first(len(paths))

    def _paths(self) -> list[Path]:
        for path in self._directory.strangers():
            self._warn_of(path, "has a name that no session can have, and is ignored")
        return self._directory.sessions()

    def rows(self, path: Path, read: Read, after: int = 0) -> Iterator[Any]:
        """Read one session in steps, behind the row ``after``."""
        for step in self.steps(path, read, after):
            yield from step

    def steps(self, path: Path, read: Read, after: int | None = 0) -> Iterator[Any]:
        """Read one session, behind the row ``after``."""
        step: Any = None
        while after is not None:
            with open_reader(path, home=home_of(self._directory, path.name)) as reader:
                if reader is None:
                    self._missed(path)
                    return
                while after is not None:
                    step, after = read(reader, after)
                    if reader.live:
                        break
                    yield step
                    step = None
                else:
                    reader.check_number()
            if step is not None:
                yield step  # of a live session: its writer must find it closed
        check_log(path)

    def ask(
        self, question: Callable[[Reader], T], glance: Callable[[Path], T | None] = lambda path: None
    ) -> Iterator[T]:
        """Ask each session a question; what cannot be read is raised when the rest is through.

        ``glance`` may know the answer before a session is opened, where nothing is wrong with it.
        """
        problems = _Problems()
        paths = self._paths()
        for path in paths:
            try:
                answer = glance(path)
                if answer is None:
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

    def counts(self) -> Iterator[int]:
        """Count the items of each session."""
        return self.ask(len, count_sealed)

    def check(self) -> None:
        """Raise SessionError if a session is damaged, newer, or an incomplete copy; nothing is read of it."""
        for _ in self.counts():
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


class Step(NamedTuple):
    """What was read of a session in one go, and what reads its values: that is asked at each step."""

    loader: Loader
    found: Whole | list[Any]


def with_loader(trust: Trust, read: Read) -> Read:
    """Return a reading of `Step`."""

    def read_with_loader(reader: Reader, after: int) -> tuple[Step, int | None]:
        found, after_ = read(reader, after)
        return Step(loader_of(trust, reader), found), after_

    return read_with_loader


def read_keys(trust: Trust) -> Read:
    """Return a reading of keys: in one piece where only the user can have written them."""

    def read(reader: Reader, after: int) -> tuple[Whole | list[Any], int | None]:
        own = trust.doubt(reader.path, foreign=reader.foreign) is None
        return reader.whole_keys(after) if own else reader.keys(after)

    return read


def read_items(trust: Trust) -> Read:
    """Return a reading of `Step`: in one piece what is unpickled without a doubt."""

    def read(reader: Reader, after: int) -> tuple[Step, int | None]:
        loader = loader_of(trust, reader)
        found, after_ = reader.whole_items(after) if loader.doubt is None else reader.items(after)
        return Step(loader, found), after_

    return read


def keys(path: Path, found: Whole | list[Any], tell: Tell) -> Iterable[str]:
    """Return the keys of a step of `read_keys`."""
    if isinstance(found, Whole):
        return [key.decode() for key in found.keys]
    return _each_of(lambda row: verified_key(path, row[1]), found, tell)


def values(path: Path, step: Step, tell: Tell) -> Iterable[Any]:
    """Return the values of a step of `read_items`. Unpickles them."""
    loader, found = step
    made = loader.loads_all(found.values) if isinstance(found, Whole) else None
    return (value for _, value in _one_by_one(path, step, tell)) if made is None else made


def items(path: Path, step: Step, tell: Tell) -> Iterable[tuple[str, Any]]:
    """Return keys and values of a step of `read_items`. Unpickles the values."""
    loader, found = step
    if isinstance(found, Whole):
        made = loader.loads_all(found.values)
        if made is not None:
            return zip([key.decode() for key in found.keys], made)
    return _one_by_one(path, step, tell)


def _one_by_one(path: Path, step: Step, tell: Tell) -> Iterator[tuple[str, Any]]:
    return _each_of(lambda row: _item(path, step.loader, row), _rows(step.found), tell)


def matching(matches: Callable[[str], Any]) -> Make[tuple[str, str, Any]]:
    """Return what makes (key, session, value) of the matching items of a step; only they are unpickled."""

    def make(path: Path, step: Step, tell: Tell) -> Iterable[tuple[str, str, Any]]:
        loader, found = step

        def wanted(row: tuple[int, bytes, bytes, int | None]) -> tuple[str, Any] | None:
            return _item(path, loader, row) if matches(verified_key(path, row[1])) else None

        return ((pair[0], path.name, pair[1]) for pair in _each_of(wanted, _rows(found), tell) if pair)

    return make


def _rows(found: Whole | list[Any]) -> Iterable[Any]:
    """Return rows as `Reader.items` does, without a checksum where that of all of them was right."""
    return ((0, *pair, None) for pair in zip(*found)) if isinstance(found, Whole) else found


def _item(path: Path, loader: Loader, row: tuple[int, bytes, bytes, int | None]) -> tuple[str, Any]:
    _, key, value, crc = row
    text = verified_key(path, key)
    return text, loader.loads(verified(path, key, value, crc), text)


def records(path: Path, step: Step, tell: Tell) -> Iterable[Record]:
    """Return the records of a step of `Reader.attempts` or `Reader.failed`."""
    return _each_of(lambda row: Record.of(step.loader, row), step.found, tell)


def _each_of(make: Callable[[Any], T], rows: Iterable[Any], tell: Tell) -> Iterator[T]:
    for row in rows:
        try:
            yield make(row)
        except (DamagedSessionError, IncompleteCopyError, UnreadableValueError) as error:
            tell(error)


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
