"""How the sessions of a directory are read as one."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from ..directory import Directory
from ..errors import DamagedSessionError, SessionError
from ..session import home_of
from ..store import Reader, open_reader, verified, verified_key

__all__ = ["ForeignFileWarning", "Sessions", "item"]

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
        problems: list[SessionError] = []
        paths = self._directory.sessions()
        for path in paths:
            try:
                for row in self.rows(path, read):
                    try:
                        yield make(path, row)
                    except DamagedSessionError as error:
                        problems.append(error)
            except SessionError as error:
                problems.append(error)
        _raise(problems, len(paths))

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

    def ask(self, question: Callable[[Reader], T]) -> Iterator[T]:
        """Ask each session a question; what cannot be read is raised when the rest is through."""
        problems: list[SessionError] = []
        paths = self._directory.sessions()
        for path in paths:
            try:
                with open_reader(path, home=home_of(self._directory, path.name)) as reader:
                    if reader is None:
                        self._missed(path)
                        continue
                    answer = question(reader)
            except SessionError as error:
                problems.append(error)
            else:
                yield answer
        _raise(problems, len(paths))

    def check(self) -> None:
        """Raise SessionError if a session is damaged, newer, or an incomplete copy; nothing is read of it."""
        for _ in self.ask(len):
            pass

    def _missed(self, path: Path) -> None:
        """Warn of a foreign file, once; of a session that was there a moment ago, raise SessionError."""
        if not path.exists():
            raise SessionError(
                f"the session {path.name} was removed while {path.parent} was read, or was joined to another "
                f"one by `futurefarm compact`. Read again.",
                path=str(path),
            )
        if path.name not in self._foreign:
            self._foreign.add(path.name)
            warnings.warn(
                f"{path} is no session of futurefarm and is ignored. Move it out of the directory.",
                ForeignFileWarning,
                stacklevel=5,
            )


def item(path: Path, row: tuple[int, bytes, bytes, int | None]) -> tuple[str, Any]:
    """Return key and value of a row of `Reader.items`. Unpickles the value."""
    _, key, value, crc = row
    return verified_key(path, key), pickle.loads(verified(path, key, value, crc))


def _raise(problems: list[SessionError], sessions: int) -> None:
    """Raise what went wrong, once everything else has been read."""
    if not problems:
        return
    first = problems[0]
    spoilt = len({problem.path for problem in problems})
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    first.message = f"{first.message.rstrip('.')}{more}. The other {sessions - spoilt} sessions were read."
    raise first
