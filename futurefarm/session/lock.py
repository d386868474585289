"""The lock of a session."""

from __future__ import annotations

import os

import filelock

from ..directory import Directory
from ..errors import SessionClosedError, SessionError, SessionLockedError
from .files import read_note

__all__ = ["LOCK_TIMEOUT", "Lock"]

LOCK_TIMEOUT = 60.0
"""Seconds that opening a session waits for another writer to let go of it."""


class Lock:
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
        holder = read_note(self._directory, self._name)
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
