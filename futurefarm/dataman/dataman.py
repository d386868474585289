"""`DataManager`: a directory that many writers fill and everyone reads as one."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import reduce
from pathlib import Path
from typing import Any, TypeVar

from ..directory import Directory, computer_name, new_session_name
from ..errors import DuplicateKeyError, UsageError
from ..ledger import Record
from ..session import LOCK_TIMEOUT, KeyMaker, LockingSession, Session, check_lock_timeout
from ..store import Reader, verified_key
from .reading import Sessions, item
from .view import View

__all__ = ["DataManager"]

Match = str | Callable[[str], bool]
S = TypeVar("S", bound=Session)


class DataManager:
    """A directory that many writers fill and everyone reads as one.

    The directory ``datapath/name.data`` holds sessions, one file per writer. To merge two directories, copy
    the files of one into the other (``cp A.data/* B.data/``), also while they are being written.

    Opening, counting and listing never run code from the directory. Reading a *value* unpickles it: read
    only directories that you trust.

    Args:
        name: of the directory, without ``.data``; it may lie in folders (``"paper/fig3"``) or be absolute.
        datapath: the folder in which the directory lies; the current one by default.
        lock_timeout: seconds for which sessions opened here wait while another writer holds them, unless
            they are told otherwise. A wait of more than two is told of by a LockWaitWarning, which names
            the holder. Reading never waits for a lock.

    Raises:
        DirectoryError: a file is in the way, or the place cannot be written.
        UsageError: the name names no directory, or ``lock_timeout`` is no time to wait.

    Example:
        >>> dataman = DataManager("example")
        >>> with dataman.session() as session:
        ...     session["answer"] = 42
        >>> dataman["answer"], len(dataman), list(dataman.keys())
        (42, 1, ['answer'])
    """

    def __init__(
        self,
        name: str | os.PathLike[str],
        datapath: str | os.PathLike[str] = "",
        *,
        lock_timeout: float = LOCK_TIMEOUT,
    ) -> None:
        text, datapath = os.fsdecode(name), os.fsdecode(datapath)
        if not text or text.endswith(("/", os.sep)) or "\0" in text + datapath:
            raise UsageError(f"{text!r} cannot be the name of a DataManager: it names no directory.")
        self._open(Directory(os.path.join(datapath, f"{text}.data")), lock_timeout)

    def _open(self, directory: Directory, lock_timeout: float) -> None:
        self._directory = directory
        self._lock_timeout = check_lock_timeout(lock_timeout)
        self._keys = KeyMaker()
        self._sessions = Sessions(directory)
        if not os.path.isdir(directory.path):  # unlike Path's it has no error for a name that is too long
            directory.create()

    @classmethod
    def at(cls, path: str | os.PathLike[str], *, lock_timeout: float = LOCK_TIMEOUT) -> DataManager:
        """Open the directory at ``path``, given whole: ``DataManager.at("taskfarmexample.data")``.

        Raises:
            UsageError: there is no such directory.
        """
        if not os.path.isdir(path):
            raise UsageError(f"there is no directory {os.fspath(path)}. Give the path of a *.data directory.")
        manager = cls.__new__(cls)
        manager._open(Directory(path), lock_timeout)
        return manager

    def __repr__(self) -> str:
        return f"<DataManager {self.basepath}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (self.basepath, self._lock_timeout)

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

    def session(self, name: str | None = None, *, lock_timeout: float | None = None) -> Session:
        """Open a session for this writer alone, a new one unless ``name`` is given.

        Its lock is held until it is closed.

        Args:
            name: of the session; a new one by default.
            lock_timeout: seconds to wait while another writer holds it; by default those of the DataManager.

        Raises:
            SessionLockedError: another writer still holds it after ``lock_timeout``.
        """
        name = self.session_name() if name is None else name
        return self._opened(Session, name, lock_timeout)

    def computer_session(self, *, lock_timeout: float | None = None) -> Session:
        """Open this computer's own session, the same one in every run."""
        return self._opened(Session, None, lock_timeout)

    def locking_session(
        self, name: str | None = None, *, lock_timeout: float | None = None
    ) -> LockingSession:
        """Open a session that several writers share; see `LockingSession`."""
        name = self.session_name() if name is None else name
        return self._opened(LockingSession, name, lock_timeout)

    def locking_computer_session(self, *, lock_timeout: float | None = None) -> LockingSession:
        """Open this computer's own session so that several processes can share it."""
        return self._opened(LockingSession, None, lock_timeout)

    def _opened(self, kind: type[S], name: str | None, lock_timeout: float | None) -> S:
        """Open a session; None stands for the name of this computer's own."""
        self._directory.create()
        return kind(
            self._directory,
            self._directory.computer_session if name is None else name,
            lock_timeout=self._lock_timeout if lock_timeout is None else lock_timeout,
        )

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
        """Iterate over the last failed attempts at the tasks that have not succeeded since.

        The attempts of a sweep are numbered and those in a session stand in order. Only between sweeps on
        different computers do their clocks decide which was last.
        """
        last: dict[tuple[bytes, int], dict[str, Record]] = {}  # of each task, by sweep
        for record in self._sessions.each(Reader.failed, lambda path, row: Record.of(path.name, row)):
            sweeps = last.setdefault((record.identity, record.replicate), {})
            if record.sweep not in sweeps or sweeps[record.sweep].attempt <= record.attempt:
                sweeps.pop(record.sweep, None)  # they stand in the order in which they were read
                sweeps[record.sweep] = record
        for identity, replicate, status in self.history() if last else ():
            if status == "ok":
                last.pop((identity, replicate), None)
        return (reduce(_later, sweeps.values()) for sweeps in last.values())

    def history(self) -> Iterator[tuple[bytes, int, str]]:
        """Iterate over (identity, replicate, status) of all attempts."""
        return self._sessions.each(Reader.finished, lambda path, row: row[1:])

    def ended(self, sweep: str, numbers: Collection[int]) -> Iterator[tuple[str, int, int, str]]:
        """Iterate over (session, number, attempt, status) of some tasks of a sweep."""
        if not numbers:
            return
        span = min(numbers), max(numbers)
        for path in self._directory.sessions():
            rows = self._sessions.rows(path, lambda reader, at: reader.numbers(sweep, *span, at))
            for _, number, attempt, status in rows:
                if number in numbers:
                    yield path.name, number, attempt, status

    # -- merging

    def merge(
        self, other: DataManager | str | os.PathLike[str], *, lock_timeout: float | None = None
    ) -> dict[str, int]:
        """Take over what another directory holds; doing so again changes nothing.

        Args:
            other: a DataManager, or the path of its directory.
            lock_timeout: seconds to wait for the writer of a session that both directories have; by default
                those of the DataManager.

        Returns:
            The number of items and attempts taken over, by session.

        Raises:
            SessionError: a session cannot be read, or is held by a writer; the others were taken over.
        """
        from ..merge import merge

        source = other if isinstance(other, DataManager) else DataManager.at(other)
        self._directory.create()
        seconds = self._lock_timeout if lock_timeout is None else check_lock_timeout(lock_timeout)
        return merge(source._directory, self._directory, seconds)

    def compact(self) -> dict[str, int]:
        """Join many small sessions into one, which makes opening and copying the directory faster.

        Joined are sealed sessions of up to 16 MB whose names were made up by `session_name`. A session that
        somebody writes, that is damaged, or that holds a key of another one stays as it is. Readers see
        either the old sessions or the new one, also when the program is killed.

        Returns:
            The number of items and attempts, by the session that was joined.
        """
        from ..compact import compact

        self._directory.create()
        return compact(self._directory)

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


def _reopen(path: str, lock_timeout: float) -> DataManager:
    return DataManager.at(path, lock_timeout=lock_timeout)


def _later(one: Record, other: Record) -> Record:
    """Return the later one of two attempts of different sweeps, in the order in which they were read."""
    return one if one.session != other.session and one.started > other.started else other


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
