"""`DataManager`: a directory that many writers fill and everyone reads as one."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import reduce
from typing import TYPE_CHECKING, Any, TypeVar

from ..directory import Directory, computer_name, new_session_name
from ..errors import DuplicateKeyError, UsageError, UsageTypeError
from ..ledger import Record
from ..session import LOCK_TIMEOUT, KeyMaker, LockingSession, Session, check_lock_timeout, key_bytes
from ..store import Reader
from ..trust import Loader, Trust
from . import reading
from .reading import Sessions, loader_of
from .view import View

if TYPE_CHECKING:
    from ..checkup import Checkup
    from ..repair import Repair

__all__ = ["DataManager"]

Match = str | Callable[[str], bool]
S = TypeVar("S", bound=Session)
T = TypeVar("T")


class DataManager:
    """A directory that many writers fill and everyone reads as one.

    The directory ``datapath/name.data`` holds sessions, one file per writer. To merge two directories, copy
    the files of one into the other (``cp A.data/* B.data/``), also while they are being written.
    Copy with another program, or with `merge`: POSIX frees the locks of a program on a file when it closes
    any copy of it, so ``shutil.copy`` of a session that the same program is writing would free SQLite's.

    Opening, counting, listing and merging never run code from the directory. Reading a *value* unpickles it.
    Where somebody else may have written it, because the directory or the session belongs to another user or
    can be written by others, or the session was merged from such a directory, only plain data is read:
    Python's own types, those of ``datetime``, ``collections`` and the like, and arrays of numpy.

    Args:
        name: of the directory, without ``.data``; it may lie in folders (``"paper/fig3"``) or be absolute.
        datapath: the folder in which the directory lies; the current one by default.
        lock_timeout: seconds for which sessions opened here wait while another writer holds them, unless
            they are told otherwise. A wait of more than two is told of by a LockWaitWarning, which names
            the holder. Reading never waits for a lock.
        trusted: True unpickles everything, whoever may have written it, and says so once; False reads plain
            data only; None decides as described.
        mmap: True gives large arrays as read-only memory, mapped from the disk: they cost nothing until they
            are looked at, and hardly any memory then. Unlike copies they are not checked for damage when they
            are read; `check` does that. While they are used, their session must not be overwritten.

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
        trusted: bool | None = None,
        mmap: bool = False,
    ) -> None:
        text, datapath = _path(name), _path(datapath)
        if not text or text.endswith(("/", os.sep)):
            raise UsageError(f"{text!r} cannot be the name of a DataManager: it names no directory.")
        self._open(Directory(os.path.join(datapath, f"{text}.data")), lock_timeout, trusted, mmap)

    def _open(self, directory: Directory, lock_timeout: float, trusted: bool | None, mmap: bool) -> None:
        if not isinstance(mmap, bool):
            raise UsageTypeError(f"mmap must be True or False, not {mmap!r}.")
        if trusted is not None and not isinstance(trusted, bool):
            raise UsageTypeError(f"trusted must be True, False or None, not {trusted!r}.")
        self._trust = Trust(directory.path, trusted, mapped=mmap)
        self._directory = directory
        self._lock_timeout = check_lock_timeout(lock_timeout)
        self._keys = KeyMaker()
        self._sessions = Sessions(directory)
        if not os.path.isdir(directory.path):  # unlike Path's it has no error for a name that is too long
            directory.create()

    @classmethod
    def at(
        cls,
        path: str | os.PathLike[str],
        *,
        lock_timeout: float = LOCK_TIMEOUT,
        trusted: bool | None = None,
        mmap: bool = False,
    ) -> DataManager:
        """Open the directory at ``path``, given whole: ``DataManager.at("taskfarmexample.data")``.

        ``trusted`` and ``mmap`` are those of `DataManager`.

        Raises:
            UsageError: there is no such directory.
        """
        path = _path(path)
        if not os.path.isdir(path):
            raise UsageError(f"there is no directory {path}. Give the path of a *.data directory.")
        manager = cls.__new__(cls)
        manager._open(Directory(path), lock_timeout, trusted, mmap)
        return manager

    def __repr__(self) -> str:
        return f"<DataManager {self.basepath}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (self.basepath, self._lock_timeout, self._trust.trusted, self._trust.mapped)

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
            trust=self._trust,
        )

    # -- reading all sessions as one

    def keys(self) -> View[str]:
        """Return a view of all keys; one that several sessions hold comes once for each."""
        return View(
            self.itemcount,
            lambda: self._sessions.each(reading.read_keys(self._trust), reading.keys),
            self.__contains__,
        )

    def values(self) -> View[Any]:
        """Return a view of all values. It reads as it is iterated, in bounded memory."""
        return View(self.itemcount, lambda: self._items(reading.values))

    def items(self) -> View[tuple[str, Any]]:
        """Return a view of all (key, value).

        Iterating yields everything that can be read; what cannot is then raised: a SessionError, which is an
        UnreadableValueError or UntrustedValueError where a single value cannot or must not be unpickled.
        """
        return View(self.itemcount, lambda: self._items(reading.items))

    def _items(self, make: reading.Make[T]) -> Iterator[T]:
        return self._sessions.each(reading.read_items(self._trust), make)

    def itemcount(self) -> int:
        """Return the number of stored values in all sessions, without reading them."""
        return sum(self._sessions.counts())

    def __len__(self) -> int:
        return self.itemcount()

    def __bool__(self) -> bool:
        return True

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __contains__(self, key: object) -> bool:
        data = key_bytes(key)
        if data is not None and any(self._sessions.ask(lambda reader: data in reader)):
            return True
        self._sessions.check_indexes()
        return False

    def __getitem__(self, key: str) -> Any:
        loader, value = self._one(key)
        return loader.loads(value, key)

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
        return {loader.path.name: loader.loads(value, key) for loader, value in self._pickles(key)}

    def get_pickle(self, key: str) -> bytes:
        """Return the pickle of a value as it was stored, checked for damage and not unpickled.

        It is what is left of a value whose class is missing: ``pickletools.dis`` shows what it holds. Large
        arrays, which lie in another file, are put back into it, so that ``pickle.loads`` reads it.

        Raises:
            KeyError: no session holds the key.
            DuplicateKeyError: several sessions do.
            DamagedSessionError: it is not what was written.
        """
        loader, value = self._one(key)
        return loader.in_band(value, key)

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
        return self._ledger(Reader.attempts)

    def _ledger(self, read: reading.Read) -> Iterator[Record]:
        return self._sessions.each(reading.with_loader(self._trust, read), reading.records)

    def failures(self) -> Iterator[Record]:
        """Iterate over the last failed attempts at the tasks that have not succeeded since.

        The attempts of a sweep are numbered and those in a session stand in order. Only between sweeps on
        different computers do their clocks decide which was last.
        """
        last: dict[tuple[bytes, int], dict[str, Record]] = {}  # of each task, by sweep
        for failed in self._ledger(Reader.failed):
            sweeps = last.setdefault((failed.identity, failed.replicate), {})
            if failed.sweep not in sweeps or sweeps[failed.sweep].attempt <= failed.attempt:
                sweeps.pop(failed.sweep, None)  # they stand in the order in which they were read
                sweeps[failed.sweep] = failed
        for identity, replicate, status in self.history() if last else ():
            if status == "ok":
                last.pop((identity, replicate), None)
        return (reduce(_later, sweeps.values()) for sweeps in last.values())

    def history(self) -> Iterator[tuple[bytes, int, str]]:
        """Iterate over (identity, replicate, status) of all attempts."""
        return self._sessions.each(Reader.finished, lambda path, rows, tell: [row[1:] for row in rows])

    def done(self) -> Iterator[list[bytes]]:
        """Iterate over lists of identity and replicate (in 4 bytes, little-endian) of what ended well."""
        return self._sessions.each(Reader.done, lambda path, claims, tell: [claims])

    def news(self, session: str, after: int) -> Iterator[tuple[int, bytes, int, str]]:
        """Iterate over (row, identity, replicate, status) of the attempts in a session behind some row."""
        return self._sessions.rows(self._directory.session(session), Reader.finished, after)

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
        with self._directory.named_errors():
            return merge(source._directory, self._directory, seconds, source._trust)

    def check(self) -> Checkup:
        """Verify everything in the directory, and change nothing.

        Checked are each session's header, what SQLite knows of its integrity, all checksums, that no row is
        missing, that each value can be unpickled here (without doing so: nothing in the directory is run) and
        that each attempt that ended well has its result. Named are also logs without a session, incomplete
        copies, foreign files and what killed programs left behind.

        Returns:
            What was found; ``fine`` is True if that is nothing, or harmless.

        Example:
            >>> dataman = DataManager("checked")
            >>> dataman.check().fine
            True
        """
        from ..checkup import check

        with self._directory.named_errors():
            return check(self._directory)

    def repair(self) -> list[Repair]:
        """Put a fresh session with all that can be read in the place of each damaged or incomplete one.

        What a checksum does not vouch for is left out and told by its key; a task whose result is lost counts
        as not done. The damaged files are kept in ``.farm/damaged``. A session that a writer holds is left
        alone. Doing so again changes nothing, and a kill at any moment loses nothing.

        Returns:
            What was done about each damaged session.
        """
        from ..repair import repair

        self._directory.create()
        with self._directory.named_errors():
            return repair(self._directory)

    def compact(self) -> dict[str, int]:
        """Join many small sessions into one, and give back space, which makes opening and copying faster.

        Joined are sealed sessions of up to 16 MB whose names were made up by `session_name`, and larger ones
        of which half is space of what was deleted, replaced, or never finished. A session that
        somebody writes, that is damaged, or that holds a key of another one stays as it is; what others may
        have written is not joined with what is the user's own. Readers see either the old sessions or the
        new one, also when the program is killed.

        Returns:
            The number of items and attempts, by the session that was joined.
        """
        from ..compact import compact

        self._directory.create()
        with self._directory.named_errors():
            return compact(self._directory)

    def check_readable(self) -> None:
        """Raise SessionError if a session is damaged, newer, or an incomplete copy."""
        self._sessions.check()

    def _pickles(self, key: str) -> list[tuple[Loader, bytes]]:
        """Return the pickle of each session that holds a key, with what reads it."""
        data = key_bytes(key)
        if data is None:
            return []
        found = self._sessions.ask(lambda reader: (loader_of(self._trust, reader), reader.get(data)))
        return [(loader, value) for loader, value in found if value is not None]

    def _one(self, key: str) -> tuple[Loader, bytes]:
        found = self._pickles(key)
        if not found:
            self._sessions.check_indexes()
            raise KeyError(key)
        if len(found) > 1:
            names = tuple(loader.path.name for loader, _ in found)
            raise DuplicateKeyError(
                f"the key {key!r} is held by {len(names)} sessions ({', '.join(names)}). "
                f"dataman.get_all({key!r}) returns the value of each.",
                key=key,
                sessions=names,
            )
        return found[0]

    def _matching(self, match: Match) -> Iterator[tuple[str, str, Any]]:
        if not callable(match) and not isinstance(match, str):
            raise UsageTypeError(f"match must be a text or a function, not {match!r}.")
        matches = match if callable(match) else lambda key: key.startswith(match)
        return self._items(reading.matching(matches))


def _reopen(path: str, lock_timeout: float, trusted: bool | None, mmap: bool) -> DataManager:
    return DataManager.at(path, lock_timeout=lock_timeout, trusted=trusted, mmap=mmap)


def _path(path: Any) -> str:
    """Return a path as text."""
    try:
        text = os.fsdecode(path)
    except TypeError:
        raise UsageTypeError(f"a path must be a text or a path, not {path!r}.") from None
    try:
        valid = b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        valid = False
    if not valid:
        raise UsageError(f"{text!r} cannot be a path: it has characters that no file system takes.")
    return text


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
