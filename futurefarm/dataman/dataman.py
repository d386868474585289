"""`DataManager`: a directory that many writers fill and everyone reads as one."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from ..directory import Directory, computer_name, new_session_name
from ..errors import DuplicateKeyError, UsageError
from ..ledger import Record
from ..session import LOCK_TIMEOUT, KeyMaker, LockingSession, Session
from ..store import Reader, verified_key
from .reading import Sessions, item
from .view import View

__all__ = ["DataManager"]

Match = str | Callable[[str], bool]


class DataManager:
    """A directory that many writers fill and everyone reads as one.

    The directory ``datapath/name.data`` holds sessions, one file per writer. To merge two directories, copy
    the files of one into the other (``cp A.data/* B.data/``), also while they are being written.

    Opening, counting and listing never run code from the directory. Reading a *value* unpickles it: read
    only directories that you trust.

    Args:
        name: of the directory, without ``.data``; it may lie in folders (``"paper/fig3"``) or be absolute.
        datapath: the folder in which the directory lies; the current one by default.

    Raises:
        DirectoryError: a file is in the way, or the place cannot be written.

    Example:
        >>> dataman = DataManager("example")
        >>> with dataman.session() as session:
        ...     session["answer"] = 42
        >>> dataman["answer"], len(dataman), list(dataman.keys())
        (42, 1, ['answer'])
    """

    def __init__(self, name: str | os.PathLike[str], datapath: str | os.PathLike[str] = "") -> None:
        text = os.fspath(name)
        if not text or text.endswith(("/", os.sep)):
            raise UsageError(f"{text!r} cannot be the name of a DataManager: it names no directory.")
        self._open(Directory(os.path.join(datapath, f"{text}.data")))

    def _open(self, directory: Directory) -> None:
        self._directory = directory
        self._keys = KeyMaker()
        self._sessions = Sessions(directory)
        if not directory.path.is_dir():
            directory.create()

    @classmethod
    def at(cls, path: str | os.PathLike[str]) -> DataManager:
        """Open the directory at ``path``, given whole: ``DataManager.at("taskfarmexample.data")``.

        Raises:
            UsageError: there is no such directory.
        """
        if not os.path.isdir(path):
            raise UsageError(f"there is no directory {os.fspath(path)}. Give the path of a *.data directory.")
        manager = cls.__new__(cls)
        manager._open(Directory(path))
        return manager

    def __repr__(self) -> str:
        return f"<DataManager {self.basepath}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return DataManager.at, (self.basepath,)

    # -- where things are

    @property
    def directory(self) -> Directory:
        """The names of everything on disk."""
        return self._directory

    @property
    def basepath(self) -> str:
        """The path of the directory."""
        return str(self._directory.path)

    @property
    def computer_name(self) -> str:
        """``user.computer``."""
        return computer_name()

    @property
    def computer_session_filename(self) -> str:
        """The path of this computer's own session in this directory; it stays the same from run to run."""
        self._directory.create()
        return str(self._directory.session(self._directory.computer_session))

    def session_name(self) -> str:
        """Return a new, unique session name ``user.computer.stamp``."""
        return new_session_name()

    def session_filename(self, name: str | None = None) -> str:
        """Return the path of the session ``name``, or of a new one."""
        return str(self._directory.session(self.session_name() if name is None else name))

    def session_filenames(self) -> list[str]:
        """Return the paths of all sessions, sorted by name."""
        return [str(path) for path in self._directory.sessions()]

    def make_unique_key(self) -> str:
        """Return a key that is unique everywhere; later keys sort behind earlier ones."""
        return self._keys.make(1)[0]

    # -- writing

    def session(self, name: str | None = None, *, timeout: float = LOCK_TIMEOUT) -> Session:
        """Open a session for this writer alone, a new one unless ``name`` is given.

        Its lock is held until it is closed. ``timeout`` is in seconds.

        Raises:
            SessionLockedError: another writer still holds it after ``timeout``.
        """
        self._directory.create()
        return Session(self._directory, self.session_name() if name is None else name, timeout=timeout)

    def computer_session(self, *, timeout: float = LOCK_TIMEOUT) -> Session:
        """Open this computer's own session, the same one in every run."""
        self._directory.create()
        return Session(self._directory, self._directory.computer_session, timeout=timeout)

    def locking_session(self, name: str | None = None, *, timeout: float = LOCK_TIMEOUT) -> LockingSession:
        """Open a session that several writers share; see `LockingSession`."""
        self._directory.create()
        name = self.session_name() if name is None else name
        return LockingSession(self._directory, name, timeout=timeout)

    def locking_computer_session(self, *, timeout: float = LOCK_TIMEOUT) -> LockingSession:
        """Open this computer's own session so that several processes can share it."""
        self._directory.create()
        return LockingSession(self._directory, self._directory.computer_session, timeout=timeout)

    # -- reading all sessions as one

    def keys(self) -> View[str]:
        """Return a view of all keys; one that several sessions hold comes once for each."""
        return View(
            self.itemcount,
            lambda: self._sessions.each(Reader.keys, lambda path, row: verified_key(path, row[1])),
            self.__contains__,
        )

    def values(self) -> View[Any]:
        """Return a view of all values. It reads as it is iterated, in bounded memory."""
        return View(self.itemcount, lambda: (value for _, value in self.items()))

    def items(self) -> View[tuple[str, Any]]:
        """Return a view of all (key, value).

        Iterating yields everything that can be read; what cannot is then raised as SessionError.
        """
        return View(self.itemcount, lambda: self._sessions.each(Reader.items, item))

    def itemcount(self) -> int:
        """Return the number of stored values in all sessions, without reading them."""
        return sum(self._sessions.ask(len))

    def __len__(self) -> int:
        return self.itemcount()

    def __bool__(self) -> bool:
        return True

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and any(self._sessions.ask(lambda reader: key.encode() in reader))

    def __getitem__(self, key: str) -> Any:
        found = self._pickles(key)
        if not found:
            raise KeyError(key)
        if len(found) > 1:
            names = tuple(found)
            raise DuplicateKeyError(
                f"the key {key!r} is held by {len(names)} sessions ({', '.join(names)}). "
                f"dataman.get_all({key!r}) returns the value of each.",
                key=key,
                sessions=names,
            )
        return pickle.loads(next(iter(found.values())))

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value of ``key``, or ``default`` if no session holds it."""
        try:
            return self[key]
        except DuplicateKeyError:
            raise
        except KeyError:
            return default

    def get_all(self, key: str) -> dict[str, Any]:
        """Return the value of ``key`` in each session that holds it, by the session's name."""
        return {name: pickle.loads(value) for name, value in self._pickles(key).items()}

    def get_merged(self, key: str) -> list[Any]:
        """Return the lists and tuples that the sessions hold under ``key``, joined to one list.

        Raises:
            TypeError: one of the values is neither a list nor a tuple.
        """
        return _joined(key, self.get_all(key).values())

    def get_matching(self, match: Match) -> dict[str, dict[str, Any]]:
        """Return `get_all` of every key that begins with ``match``, or for which ``match(key)`` is true."""
        found: dict[str, dict[str, Any]] = {}
        for key, name, value in self._matching(match):
            found.setdefault(key, {})[name] = value
        return found

    def get_merged_matching(self, match: Match) -> list[Any]:
        """Return `get_merged` of all matching keys, joined to one list."""
        found = self.get_matching(match)
        return [part for key, values in found.items() for part in _joined(key, values.values())]

    def get_flat_matching(self, match: Match) -> list[Any]:
        """Return the values of all matching keys in all sessions as one list."""
        return [value for _, _, value in self._matching(match)]

    # -- the ledger

    def records(self) -> Iterator[Record]:
        """Iterate over the attempts at all tasks, in the order in which each session recorded them."""
        return self._sessions.each(Reader.attempts, lambda path, row: Record.of(path.name, row))

    def failures(self) -> Iterator[Record]:
        """Iterate over the last failed attempts at the tasks that have not succeeded since."""
        last: dict[tuple[bytes, int], Record] = {}
        for record in self._sessions.each(Reader.failed, lambda path, row: Record.of(path.name, row)):
            task = record.identity, record.replicate
            if task not in last or last[task].started <= record.started:
                last[task] = record
        for identity, replicate, status in self.history() if last else ():
            if status == "ok":
                last.pop((identity, replicate), None)
        return iter(last.values())

    def history(self) -> Iterator[tuple[bytes, int, str]]:
        """Iterate over (identity, replicate, status) of all attempts."""
        return self._sessions.each(Reader.finished, lambda path, row: row[1:])

    def ended(self, sweep: str) -> Iterator[tuple[str, int, int, str]]:
        """Iterate over (session, number, attempt, status) of a sweep."""
        for path in self._directory.sessions():
            for _, number, attempt, status, _ in self._sessions.rows(
                path, lambda r, at: r.numbers(sweep, at)
            ):
                yield path.name, number, attempt, status

    # -- merging

    def merge(
        self, other: DataManager | str | os.PathLike[str], *, timeout: float = LOCK_TIMEOUT
    ) -> dict[str, int]:
        """Take over what another directory holds; doing so again changes nothing.

        Args:
            other: a DataManager, or the path of its directory.
            timeout: seconds to wait for the writer of a session that both directories have.

        Returns:
            The number of items and attempts taken over, by session.

        Raises:
            SessionError: a session cannot be read, or is held by a writer; the others were taken over.
        """
        from ..merge import merge

        source = other if isinstance(other, DataManager) else DataManager.at(other)
        self._directory.create()
        return merge(source._directory, self._directory, timeout)

    def check_readable(self) -> None:
        """Raise SessionError if a session is damaged, newer, or an incomplete copy."""
        self._sessions.check()

    def _pickles(self, key: str) -> dict[str, bytes]:
        found = self._sessions.ask(lambda reader: (reader.path.name, reader.get(key.encode())))
        return {name: value for name, value in found if value is not None}

    def _matching(self, match: Match) -> Iterator[tuple[str, str, Any]]:
        matches = match if callable(match) else lambda key: key.startswith(match)

        def wanted(path: Path, row: Any) -> tuple[str, str, Any] | None:
            key = verified_key(path, row[1])
            return (key, path.name, item(path, row)[1]) if matches(key) else None

        return (found for found in self._sessions.each(Reader.items, wanted) if found is not None)


def _joined(key: str, values: Iterable[Any]) -> list[Any]:
    joined: list[Any] = []
    for value in values:
        if not isinstance(value, list | tuple):
            raise TypeError(
                f"the values of {key!r} cannot be merged: one is a {type(value).__name__}, and only lists "
                f"and tuples can be joined. get_all({key!r}) returns each."
            )
        joined.extend(value)
    return joined
