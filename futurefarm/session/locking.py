"""A session that several writers share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableMapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ..directory import Directory
from ..store import Store
from ..task import Outcome
from .lock import LOCK_TIMEOUT
from .session import Session

if TYPE_CHECKING:
    from ..trust import Trust

__all__ = ["LockingSession"]


class LockingSession(Session):
    """A session that several writers share: the lock is taken for each operation, or for a ``with`` block.

    A ``with`` block is one transaction: everything in it is stored, or, when it ends by an exception,
    nothing. The block does not close the session. Safe from threads, processes and separately started
    programs; it can be pickled, and the copy opens the same session. No operation waits for longer than
    ``lock_timeout`` seconds: SessionLockedError then says who holds the session.

    Example:
        >>> from futurefarm import DataManager
        >>> session = DataManager("counters").locking_session("shared")
        >>> with session:
        ...     session["runs"] = session.get("runs", 0) + 1
        >>> session["runs"]
        1
        >>> session.close()
    """

    def __init__(
        self,
        directory: Directory,
        name: str,
        *,
        lock_timeout: float = LOCK_TIMEOUT,
        trust: Trust | None = None,
    ) -> None:
        self._timeout = lock_timeout
        self._blocks: list[AbstractContextManager[None]] = []
        super().__init__(directory, name, lock_timeout=lock_timeout, trust=trust)

    def _settle(self) -> None:
        self._lock.release()  # it is taken again for each operation

    def _shelf_over(self, store: Store) -> MutableMapping[bytes, bytes]:
        return _Guarded(store, self._held)

    @contextmanager
    def _held(self) -> Iterator[None]:
        with self._busy:
            level = self._lock.level
            try:
                self._lock.acquire(self._timeout)
                yield
            finally:  # not a plain count: Ctrl-C may have struck before the lock was taken
                self._lock.release(level)

    def _put(self, key: bytes, stream: bytes, buffers: Sequence[Any]) -> None:
        with self._held():  # others who share the session write to the same file
            super()._put(key, stream, buffers)

    def commit(self, sweep: str, record: str, outcomes: Sequence[Outcome]) -> int:
        """Store results and ledger rows in one transaction, as `Session.commit` does, holding the lock."""
        with self._held():
            return super().commit(sweep, record, outcomes)

    def _fold_long_log(self) -> None:
        with self._held():
            super()._fold_long_log()

    @contextmanager
    def _block(self) -> Iterator[None]:
        with self._held():
            with self.store.transaction():
                yield
            super()._fold_long_log()

    def __enter__(self) -> LockingSession:
        block = self._block()
        block.__enter__()
        self._blocks.append(block)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._lock.is_ours:  # else a child that was forked in the block; the block is its parent's
            self._blocks.pop().__exit__(kind, error, traceback)

    # Each of these looks and then writes, and nobody may come in between.

    def setdefault(self, key: str, default: Any = None) -> Any:
        with self._block():
            return super().setdefault(key, default)

    def pop(self, key: str, *default: Any) -> Any:
        with self._block():
            return super().pop(key, *default)

    def popitem(self) -> tuple[str, Any]:
        with self._block():
            return super().popitem()

    def update(self, *args: Any, **kwargs: Any) -> None:
        with self._block():
            super().update(*args, **kwargs)

    def clear(self) -> None:
        with self._block():
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
        return _reopen, (self.directory.path, self.name, self._timeout, self.trust)


def _reopen(path: Any, name: str, lock_timeout: float, trust: Trust | None) -> LockingSession:
    return LockingSession(Directory(path), name, lock_timeout=lock_timeout, trust=trust)


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
