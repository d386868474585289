"""The lock of a session."""

from __future__ import annotations

import errno
import math
import os
import threading
import time
import warnings
from typing import Any

import filelock

from ..directory import Directory
from ..errors import SessionClosedError, SessionError, SessionLockedError, UsageError
from ..status import this_process
from .holder import described, holder_of

__all__ = ["LOCK_TIMEOUT", "Lock", "LockWaitWarning", "Turn", "check_lock_timeout"]

LOCK_TIMEOUT = 60.0
"""Seconds that opening a session waits for another writer to let go of it."""

NOTICE = 2.0
"""Seconds of waiting after which a warning tells who holds the lock."""


class LockWaitWarning(UserWarning):
    """A session is waited for; the text says which process holds it, and until when it is waited for."""


def check_lock_timeout(seconds: Any) -> float:
    """Return ``seconds`` unless they are no time to wait: a wait without an end is not offered."""
    try:
        if not isinstance(seconds, bool) and math.isfinite(seconds) and seconds >= 0:
            return float(seconds)
    except (TypeError, ValueError, OverflowError):
        pass
    raise UsageError(
        f"lock_timeout must be a number of seconds, 0 or more, not {seconds!r}. To wait for long, say so: "
        f"lock_timeout=86400."
    )


class Lock:
    """The lock of a session."""

    def __init__(self, directory: Directory, name: str) -> None:
        self._directory = directory
        self._name = name
        # Threads of this process are kept apart by the session itself, hence one count for all of them.
        self._lock = filelock.FileLock(
            directory.lock(name), thread_local=False, fallback_to_soft=False, mode=0o600
        )
        self._pid = os.getpid()

    def acquire(self, timeout: float) -> None:
        """Take the lock; a wait of some seconds is told of, once, with who holds it.

        Raises:
            SessionLockedError: it is held for longer than ``timeout`` seconds.
        """
        if self._pid != os.getpid():
            raise SessionClosedError(
                f"the session {self._name} was opened by the process that this one was forked from. "
                f"Open it again here.",
                path=str(self._directory.path / self._name),
            )
        deadline = time.monotonic() + timeout
        if self._acquired(min(timeout, NOTICE)):
            return
        if timeout > NOTICE:
            warnings.warn(
                f"waiting for the session {self._name} in {self._directory.path}, which is held by "
                f"{described(holder_of(self._directory, self._name))}; giving up after {timeout:g} s "
                f"(lock_timeout).",
                LockWaitWarning,
                stacklevel=5,
            )
            if self._acquired(max(0.0, deadline - time.monotonic())):
                return
        raise self.held_error()

    def _acquired(self, timeout: float) -> bool:
        try:
            self._lock.acquire(timeout=timeout)
        except filelock.Timeout:
            return False
        except OSError as error:
            advice = "Choose a datapath that you may write to."
            if error.errno in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
                advice = "This file system has no working locks: choose a datapath on another one."
            raise SessionError(
                f"the session {self._name} in {self._directory.path} cannot be locked "
                f"({error.strerror or error}). {advice}",
                path=str(self._directory.path / self._name),
            ) from error
        except RuntimeError as error:  # this very thread holds it, and waiting would not help
            raise self.held_error() from error
        return True

    def held_error(self) -> SessionLockedError:
        """Return the error that says who holds the session."""
        holder = holder_of(self._directory, self._name)
        return SessionLockedError(
            f"the session {self._name} in {self._directory.path} is held by {described(holder)}, and one "
            f"writer at a time can hold a session. Wait for it (lock_timeout=), or use locking_session() in "
            f"both.",
            path=str(self._directory.path / self._name),
            holder=holder,
        )

    @property
    def is_ours(self) -> bool:
        """False in a child that was forked from the process which made this lock."""
        return self._pid == os.getpid()

    @property
    def level(self) -> int:
        """How many times the lock has been taken and not let go of."""
        return self._lock.lock_counter

    def release(self, level: int = 0) -> None:
        """Let go of the lock, but for the first ``level`` times that it was taken."""
        while self.is_ours and self.level > level:
            try:
                self._lock.release()
            except OSError as error:
                raise SessionError(
                    f"the lock of the session {self._name} in {self._directory.path} cannot be given back "
                    f"({error.strerror or error}), so others wait until this program ends. What was written "
                    f"is kept. Choose a datapath on a file system with working locks.",
                    path=str(self._directory.path / self._name),
                ) from error


class Turn:
    """Lets one thread of this process at a time use a session, and the others wait for no longer than told.

    Re-entrant. ``with turn:`` takes it.
    """

    def __init__(self, directory: Directory, name: str, timeout: float) -> None:
        self._path = directory.path / name
        self._timeout = timeout
        self._lock = threading.RLock()

    def acquire(self) -> None:
        if not self._lock.acquire(timeout=min(self._timeout, threading.TIMEOUT_MAX)):
            raise SessionLockedError(
                f"the session {self._path.name} in {self._path.parent} has been in use by another thread of "
                f"this process for {self._timeout:g} s. Keep `with` blocks of a session short, or wait for "
                f"longer (lock_timeout=).",
                path=str(self._path),
                holder={"pid": os.getpid(), "host": this_process()[0], "since": None, "stopped": False},
            )

    def release(self) -> None:
        self._lock.release()

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()
