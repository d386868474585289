"""A shelf that one writer holds."""

from __future__ import annotations

import shelve
import weakref
from collections.abc import MutableMapping, Sequence
from contextlib import suppress
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ..blobs import LARGE, has_trailer
from ..directory import Directory
from ..errors import SessionClosedError, SessionError, SessionLockedError, UsageTypeError
from ..store import Store, checksum
from ..task import PROTOCOL, Outcome, dumps_apart
from .files import open_store
from .keys import KeyMaker, key_bytes
from .lock import LOCK_TIMEOUT, Lock, Turn, check_lock_timeout

if TYPE_CHECKING:
    from ..trust import Loader, Trust

__all__ = ["LOG_LIMIT", "Session", "seal"]

LOG_LIMIT = 64 << 20
"""Bytes after which the log of a session is folded into its file."""


class Session(shelve.Shelf):  # type: ignore[type-arg]
    """A shelf that one writer holds: its lock is taken when it is opened and released when it is closed.

    Every assignment is on disk when it returns. Values are read as `DataManager` reads them: where others may
    have written them, plain data only. Use it as a context manager, so that it is closed and its
    file becomes one plain, sealed file; ``DataManager.session`` makes one.

    Args:
        directory: where the session lies.
        name: its name there; the file is made if it is missing.
        lock_timeout: seconds to wait while another writer holds the session. A wait of more than two is
            told of by a LockWaitWarning, which names the holder.
        trust: decides how values are read.

    Raises:
        SessionLockedError: another writer still holds it; the error says who.
        UsageError: ``lock_timeout`` is no time to wait.
        SessionError: the file is damaged, incomplete, newer, or no session.
    """

    def __init__(
        self,
        directory: Directory,
        name: str,
        *,
        lock_timeout: float = LOCK_TIMEOUT,
        trust: Trust | None = None,
    ) -> None:
        directory.session(name)
        lock_timeout = check_lock_timeout(lock_timeout)
        self.name = name
        self.directory = directory
        self._lock = Lock(directory, name)
        self._busy = Turn(directory, name, lock_timeout)
        self._keys = KeyMaker()
        self._left_by_fold = 0
        self.trust = trust
        try:
            self._lock.acquire(lock_timeout)
            self.store = open_store(directory, name)
            self._shelf = self._shelf_over(self.store)
            super().__init__(self._shelf, protocol=PROTOCOL)
            # A program that ends without closing its session still leaves one plain, sealed file.
            weakref.finalize(self, _let_go, self._busy, self.store, self._lock)
            self._settle()
        except BaseException:  # Ctrl-C may strike at any line, and nobody else would let go of the lock
            self._abandon()
            raise

    def _settle(self) -> None:
        """Begin the life of a session that was opened: its lock is held until it is closed."""

    def _abandon(self) -> None:
        store: Store | None = getattr(self, "store", None)
        try:
            if store is not None and self._lock.level:
                store.close()
        finally:
            self._lock.release()

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
        data = key_bytes(key)
        if data is None:
            raise UsageTypeError(f"the key of a value must be a text, not {key!r}.")
        stream, buffers = dumps_apart(value, LARGE)
        with self._busy:
            self._put(data, stream, buffers)
            self._fold_long_log()

    def _put(self, key: bytes, stream: bytes, buffers: Sequence[Any]) -> None:
        self._shelf[key] = self.store.keep(stream, buffers)

    def __contains__(self, key: object) -> bool:
        data = key_bytes(key)
        return data is not None and data in self._shelf

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value of ``key``, or ``default`` if it is not here."""
        with suppress(KeyError):
            return self[key]
        return default

    def __getitem__(self, key: str) -> Any:
        with self._busy:
            value = self._shelf[self._known(key)]
        return self._loader.loads(value, key)

    @cached_property
    def _loader(self) -> Loader:
        from ..trust import Trust  # late: a worker, which only writes, must not wait for what it imports

        trust = self.trust or Trust(self.directory.path)
        return trust.loader(self.directory.session(self.name), foreign=self.store.foreign)

    def __delitem__(self, key: str) -> None:
        with self._busy:
            del self._shelf[self._known(key)]

    @staticmethod
    def _known(key: object) -> bytes:
        data = key_bytes(key)
        if data is None:
            raise KeyError(key)
        return data

    def _fold_long_log(self) -> None:
        if self.store.log_size > LOG_LIMIT + self._left_by_fold:
            self.store.fold()
            # A log that somebody reads stays. It is tried again when it grew by as much, not at each value.
            self._left_by_fold = self.store.log_size

    def commit(self, sweep: str, record: str, outcomes: Sequence[Outcome]) -> int:
        """Store results and ledger rows in one transaction: all are on disk when this returns, or none.

        Args:
            sweep: the id of the sweep.
            record: its provenance, JSON.
            outcomes: how attempts ended; each that ended ``ok`` becomes a value under a key of its own. What
                was kept of their values (``Store.keep``) was kept by this very session.

        Returns:
            The number of the last row in the session's ledger.
        """
        if self.closed:
            raise SessionClosedError(f"the session {self.name} is closed.", path=self.path)
        keys = iter(self._keys.make(sum(outcome.status == "ok" for outcome in outcomes)))
        results: list[tuple[bytes, bytes, int]] = []
        attempts: list[tuple[Any, ...]] = []
        for outcome in outcomes:
            key, value = None, outcome.value
            if value is not None:
                key = next(keys).encode()
                if len(value) >= LARGE or has_trailer(value):
                    value = self.store.place(value)
                results.append((key, value, checksum(key, value)))
            attempts.append((*outcome.task, outcome.status, key, *outcome[3:]))
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
                try:
                    self.store.close()  # Ctrl-C may have struck before the shelf did so; twice is harmless
                finally:
                    self._lock.release()


def _let_go(busy: Turn, store: Store, lock: Lock) -> None:
    if not lock.is_ours:  # a forked child: what it inherited is its parent's to close
        return
    with busy:  # another thread may be closing the session at this moment
        try:
            store.close()
        finally:
            lock.release()


def seal(directory: Directory, name: str) -> bool:
    """Seal the session of a writer that is gone; return False if somebody still holds it."""
    try:
        Session(directory, name, lock_timeout=0).close()
    except SessionLockedError:
        return False
    except SessionError:  # it was overwritten by something that cannot be sealed; whoever reads it is told
        return True
    return True
