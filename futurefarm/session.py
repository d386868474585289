"""A session: one writer's file in the directory, a `shelve.Shelf` guarded by a file lock."""

from __future__ import annotations

import json
import os
import secrets
import shelve
import threading
import time
import weakref
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any

import filelock

from .directory import Directory
from .errors import SessionClosedError, SessionError, SessionLockedError
from .status import this_process
from .store import Store, checksum, create, open_reader
from .task import PROTOCOL, Outcome

__all__ = ["LOCK_TIMEOUT", "KeyMaker", "LockingSession", "Session", "home_of", "seal"]

LOCK_TIMEOUT = 60.0
"""Seconds that opening a session waits for another writer to let go of it."""

LOG_LIMIT = 64 << 20
"""Bytes after which the log of a session is folded into its file."""


class KeyMaker:
    """Makes keys that are unique everywhere and increase with time, also when the clock is set back.

    Random keys would scatter over the index of a session: a million of them take five times as long to
    store. A key is the time in microseconds, a random stamp, and a counter.
    """

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._stamp = secrets.token_hex(5)
        self._latest = 0
        self._count = 0
        self._lock = threading.Lock()

    def make(self, number: int) -> list[str]:
        """Return ``number`` new keys in increasing order."""
        if self._pid != os.getpid():  # a forked child needs a stamp, and a lock, of its own
            self._begin()
        with self._lock:
            first = self._count
            self._count += number
            self._latest = max(self._latest, time.time_ns() // 1000)
            prefix = f"{self._latest:014x}-{self._stamp}"
        return [f"{prefix}-{count:08x}" for count in range(first, first + number)]


class Session(shelve.Shelf):  # type: ignore[type-arg]
    """A shelf that one writer holds: its lock is taken when it is opened and released when it is closed.

    Every assignment is on disk when it returns. Use it as a context manager, so that it is closed and its
    file becomes one plain, sealed file; ``DataManager.session`` makes one.

    Args:
        directory: where the session lies.
        name: its name there; the file is made if it is missing.
        timeout: seconds to wait while another writer holds the session.

    Raises:
        SessionLockedError: another writer still holds it; the error says who.
        SessionError: the file is damaged, incomplete, newer, or no session.
    """

    def __init__(self, directory: Directory, name: str, *, timeout: float = LOCK_TIMEOUT) -> None:
        directory.session(name)
        self.name = name
        self.directory = directory
        self._lock = _Lock(directory, name)
        self._busy = threading.RLock()
        self._keys = KeyMaker()
        self._lock.acquire(timeout)
        try:
            self.store = _open(directory, name)
        except BaseException:
            self._lock.release()
            raise
        super().__init__(self._shelf_over(self.store), protocol=PROTOCOL)
        # A program that ends without closing its session still leaves one plain, sealed file.
        weakref.finalize(self, _let_go, self._busy, self.store, self._lock)

    def _shelf_over(self, store: Store) -> MutableMapping[bytes, bytes]:
        return store

    @property
    def path(self) -> str:
        """The path of the session's file."""
        return str(self.directory.path / self.name)

    @property
    def log_size(self) -> int:
        """Bytes in the log that is not yet part of the file."""
        return self.store.log_size

    def __setitem__(self, key: str, value: Any) -> None:
        with self._busy:
            super().__setitem__(key, value)
            self._fold_long_log()

    def __getitem__(self, key: str) -> Any:
        with self._busy:
            return super().__getitem__(key)

    def __delitem__(self, key: str) -> None:
        with self._busy:
            super().__delitem__(key)

    def _fold_long_log(self) -> None:
        if self.store.log_size > LOG_LIMIT:
            self.store.fold()

    def commit(self, sweep: str, record: str, outcomes: Sequence[Outcome]) -> int:
        """Store results and ledger rows in one transaction: all are on disk when this returns, or none.

        Args:
            sweep: the id of the sweep.
            record: its provenance, JSON.
            outcomes: how attempts ended; each that ended ``ok`` becomes a value under a key of its own.

        Returns:
            The number of the last row in the session's ledger.
        """
        keys = iter(self._keys.make(sum(outcome.status == "ok" for outcome in outcomes)))
        results: list[tuple[bytes, bytes, int]] = []
        attempts: list[tuple[Any, ...]] = []
        for task, status, value, error, traceback, host, pid, started, seconds in outcomes:
            key = None
            if value is not None:
                key = next(keys).encode()
                results.append((key, value, checksum(key, value)))
            number, identity, replicate, attempt, item = task
            what = number, identity, replicate, attempt, status, key, item
            attempts.append((*what, error, traceback, host, pid, started, seconds))
        with self._busy:
            if self.closed:
                raise SessionClosedError(f"the session {self.name} is closed.", path=self.path)
            return self.store.append(sweep, record, results, attempts)

    @property
    def closed(self) -> bool:
        return self.store.closed

    def close(self) -> None:
        """Seal the file, unless another process has it open, and let go of the lock; twice is harmless."""
        if not self._lock.is_ours:  # a forked child: it closes nothing, and another thread may have been busy
            self.store.close()
            return
        with self._busy:
            try:
                super().close()
            finally:
                self._lock.release()


class LockingSession(Session):
    """A session that several writers share: the lock is taken for each operation, or for a ``with`` block.

    A ``with`` block is one transaction: everything in it is stored, or, when it ends by an exception,
    nothing. The block does not close the session. Safe from threads, processes and separately started
    programs; it can be pickled, and the copy opens the same session.

    Example:
        >>> from futurefarm import DataManager
        >>> session = DataManager("counters").locking_session("shared")
        >>> with session:
        ...     session["runs"] = session.get("runs", 0) + 1
        >>> session["runs"]
        1
        >>> session.close()
    """

    def __init__(self, directory: Directory, name: str, *, timeout: float = LOCK_TIMEOUT) -> None:
        self._timeout = timeout
        super().__init__(directory, name, timeout=timeout)
        self._lock.release()

    def _shelf_over(self, store: Store) -> MutableMapping[bytes, bytes]:
        return _Guarded(store, self._held)

    @contextmanager
    def _held(self) -> Iterator[None]:
        with self._busy:
            self._lock.acquire(self._timeout)
            try:
                yield
            finally:
                self._lock.release()

    def _fold_long_log(self) -> None:
        with self._held():
            super()._fold_long_log()

    def __enter__(self) -> LockingSession:
        self._busy.acquire()
        try:
            self._lock.acquire(self._timeout)
            try:
                self.store.begin()
            except BaseException:
                self._lock.release()
                raise
        except BaseException:
            self._busy.release()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not self._lock.is_ours:  # a child that was forked in the block; the block is its parent's
            return
        try:
            self.store.end(commit=kind is None)
            super()._fold_long_log()
        finally:
            self._lock.release()
            self._busy.release()

    # Each of these looks and then writes, and nobody may come in between.

    def setdefault(self, key: str, default: Any = None) -> Any:
        with self:
            return super().setdefault(key, default)

    def pop(self, key: str, *default: Any) -> Any:
        with self:
            return super().pop(key, *default)

    def popitem(self) -> tuple[str, Any]:
        with self:
            return super().popitem()

    def update(self, *args: Any, **kwargs: Any) -> None:
        with self:
            super().update(*args, **kwargs)

    def clear(self) -> None:
        with self:
            super().clear()

    def close(self) -> None:
        """Close the session; the last process that closes it seals the file."""
        if self.closed:
            return
        if not self._lock.is_ours:
            super().close()
            return
        with self._held():
            super().close()

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (self.directory.path, self.name, self._timeout)


def _reopen(path: Any, name: str, timeout: float) -> LockingSession:
    return LockingSession(Directory(path), name, timeout=timeout)


def _let_go(busy: threading.RLock, store: Store, lock: _Lock) -> None:
    if not lock.is_ours:  # a forked child: what it inherited is its parent's to close
        return
    with busy:  # another thread may be closing the session at this moment
        try:
            store.close()
        finally:
            lock.release()


class _Guarded(MutableMapping[bytes, bytes]):
    """A store whose every operation takes the lock."""

    def __init__(self, store: Store, held: Callable[[], Any]) -> None:
        self.store = store
        self._held = held

    def __getitem__(self, key: bytes) -> bytes:
        with self._held():
            return self.store[key]

    def __setitem__(self, key: bytes, value: bytes) -> None:
        with self._held():
            self.store[key] = value

    def __delitem__(self, key: bytes) -> None:
        with self._held():
            del self.store[key]

    def __contains__(self, key: object) -> bool:
        with self._held():
            return key in self.store

    def __len__(self) -> int:
        with self._held():
            return len(self.store)

    def __iter__(self) -> Iterator[bytes]:
        # In steps without the lock: SQLite gives each step a consistent state, and the caller's work
        # between two keys must not keep all other writers waiting.
        return iter(self.store)

    def close(self) -> None:
        self.store.close()


class _Lock:
    """The lock of a session, with a note beside it of who holds it and which file it guards."""

    def __init__(self, directory: Directory, name: str) -> None:
        self._directory = directory
        self._name = name
        # Threads of this process are kept apart by the session itself, hence one count for all of them.
        self._lock = filelock.FileLock(
            directory.lock(name), thread_local=False, fallback_to_soft=False, mode=0o600
        )
        self._pid = os.getpid()

    def acquire(self, timeout: float) -> None:
        if self._pid != os.getpid():
            raise SessionClosedError(
                f"the session {self._name} was opened by the process that this one was forked from. "
                f"Open it again here.",
                path=str(self._directory.path / self._name),
            )
        try:
            self._lock.acquire(timeout=timeout)
        except OSError as error:
            if not isinstance(error, filelock.Timeout):
                raise SessionError(
                    f"the session {self._name} in {self._directory.path} cannot be locked "
                    f"({error.strerror or error}). Choose a datapath that you may write to.",
                    path=str(self._directory.path / self._name),
                ) from error
            raise self._locked() from error
        except RuntimeError as error:  # another thread of this process holds it, and waiting would not help
            raise self._locked() from error

    def _locked(self) -> SessionLockedError:
        holder = _read_note(self._directory, self._name)
        who = f"process {holder['pid']} on {holder['host']}" if "pid" in holder else "another writer"
        return SessionLockedError(
            f"the session {self._name} in {self._directory.path} is held by {who}, and one writer at a "
            f"time can hold a session. Wait for it, or use locking_session() in both.",
            path=str(self._directory.path / self._name),
            holder=holder,
        )

    @property
    def is_ours(self) -> bool:
        """False in a child that was forked from the process which made this lock."""
        return self._pid == os.getpid()

    def release(self) -> None:
        if self.is_ours:
            self._lock.release()


def _open(directory: Directory, name: str) -> Store:
    """Open or make a session's file; its lock is held."""
    path = directory.session(name)
    if path.exists():
        home = home_of(directory, name)
        if home is None or home != path.stat().st_ino:
            home = path.stat().st_ino
            with open_reader(path) as reader:  # from elsewhere: checked as a copy, and at home from then on
                if reader is not None:
                    _write_note(directory, name, home)
        return Store(path, wal=not directory.on_network, home=home)
    draft = directory.farm / f"draft-{secrets.token_hex(5)}"
    try:
        create(draft)
        _write_note(directory, name, draft.stat().st_ino)
        draft.rename(path)  # under its name it is whole from the first moment
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise SessionError(
            f"the session {path} cannot be made ({error.strerror or error}).", path=str(path)
        ) from error
    _sync(directory.path)
    return Store(path, wal=not directory.on_network, home=path.stat().st_ino)


def _sync(folder: Any) -> None:
    """Make names in a folder durable; Windows keeps names without being asked."""
    if os.name == "posix":
        fd = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def home_of(directory: Directory, name: str) -> int | None:
    """Return the inode of the file that was written under this name here; a copy has another one."""
    return _read_note(directory, name).get("inode")


def _write_note(directory: Directory, name: str, inode: int) -> None:
    host, pid, _ = this_process()
    note = directory.holder(name)
    draft = note.with_name(f"{note.name}.{secrets.token_hex(4)}")
    with draft.open("x") as file:
        json.dump({"host": host, "pid": pid, "since": time.time(), "inode": inode}, file)
        file.flush()
        os.fsync(file.fileno())
    draft.rename(note)


def _read_note(directory: Directory, name: str) -> dict[str, Any]:
    try:
        note = json.loads(directory.holder(name).read_text())
    except (OSError, ValueError):
        return {}
    return note if isinstance(note, dict) else {}


def seal(directory: Directory, name: str) -> bool:
    """Seal the session of a writer that is gone; return False if somebody still holds it."""
    try:
        Session(directory, name, timeout=0).close()
    except SessionLockedError:
        return False
    return True
