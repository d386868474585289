"""Every error that futurefarm raises on purpose, and how the errors are related.

::

    FutureFarmError
    ├── UsageError (ValueError)               a call that cannot work, refused before anything runs
    │   └── UsageTypeError (TypeError)        ... because an argument is of the wrong type
    ├── ExecutorError (RuntimeError)
    │   ├── UnknownExecutorError (LookupError)
    │   ├── MissingEngineError (ImportError)  the name is known, its package is not installed
    │   ├── WorkerDiedError                   one worker died, and only what it ran is lost
    │   └── BrokenExecutorError               the engine died and could not be replaced
    ├── DirectoryError (OSError)              the directory cannot be used
    ├── SessionError (OSError)
    │   ├── SessionNameError (ValueError)
    │   ├── SessionLockedError (TimeoutError)
    │   ├── SessionClosedError (ValueError)
    │   ├── UnstoredError                     results cannot be stored now; the error names their tasks
    │   │   └── StorageFullError              ... because the disk or a quota is full
    │   ├── DamagedSessionError
    │   ├── UnreadableValueError (UnpicklingError)  a value whose class is missing, for example
    │   │   └── UntrustedValueError (PermissionError) ... or which others may have written
    │   ├── IncompleteCopyError               copied while it was written, its log is missing
    │   ├── OverwrittenSessionError           another file was put in its place while it was written
    │   └── NewerSessionError                 written by a later version of futurefarm
    ├── DuplicateKeyError (KeyError)          several sessions hold this key
    ├── UnstorableError (TypeError)           a value that cannot be pickled
    └── TasksFailedError (RuntimeError)       the sweep is over and some of its tasks failed

An error says what happened, where, and what to do now. What it knows is also in attributes, named
in each class, and it survives pickling, because errors cross process boundaries.
"""

from __future__ import annotations

import pickle
from typing import Any

__all__ = [
    "BrokenExecutorError",
    "DamagedSessionError",
    "DirectoryError",
    "DuplicateKeyError",
    "ExecutorError",
    "FutureFarmError",
    "IncompleteCopyError",
    "MissingEngineError",
    "NewerSessionError",
    "OverwrittenSessionError",
    "SessionClosedError",
    "SessionError",
    "SessionLockedError",
    "SessionNameError",
    "StorageFullError",
    "TasksFailedError",
    "UnknownExecutorError",
    "UnreadableValueError",
    "UnstorableError",
    "UnstoredError",
    "UntrustedValueError",
    "UsageError",
    "UsageTypeError",
    "WorkerDiedError",
]


def _rebuild(cls: type[FutureFarmError], message: str, attributes: dict[str, Any]) -> FutureFarmError:
    return cls(message, **attributes)


class FutureFarmError(Exception):
    """The base of all errors of futurefarm.

    Args:
        message: what happened, where, and what to do now.
        attributes: what the error knows; each becomes an attribute of the error.
    """

    def __init__(self, message: str, **attributes: Any) -> None:
        super().__init__(message)
        self.message = message
        self._attributes = attributes
        for name, value in attributes.items():
            setattr(self, name, value)

    def __str__(self) -> str:
        # KeyError, one of our second parents, would show the repr of the message.
        return self.message

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.message, self._attributes)


class UsageError(FutureFarmError, ValueError):
    """A call that cannot work: nothing was run and nothing was written."""


class UsageTypeError(UsageError, TypeError):
    """An argument of the wrong type: nothing was run and nothing was written."""


class ExecutorError(FutureFarmError, RuntimeError):
    """Something is wrong with the engine, not with a task."""


class UnknownExecutorError(ExecutorError, LookupError):
    """No executor has this name. Attributes: ``name``, ``known``."""

    name: str
    known: tuple[str, ...]


class MissingEngineError(ExecutorError, ImportError):
    """The executor is known but its engine is not installed. Attributes: ``executor``, ``install``."""

    executor: str
    install: str


class WorkerDiedError(ExecutorError):
    """A worker died, and what it ran is lost; the executor goes on with its other workers.

    An executor whose workers die alone raises it from the future of the call that is lost.
    Attributes: ``pid`` of the worker and its ``exitcode`` (negative: a signal), None where not known.
    """

    pid: int | None
    exitcode: int | None

    @classmethod
    def of(cls, pid: int | None, exitcode: int | None) -> WorkerDiedError:
        """Say how a worker ended."""
        worker = "the worker" if pid is None else f"the worker with process id {pid}"
        return cls(f"{worker} {_way_of_ending(exitcode)}.", pid=pid, exitcode=exitcode)


def _way_of_ending(exitcode: int | None) -> str:
    if exitcode is None:
        return "died"
    if exitcode >= 0:
        return f"ended by itself with exit code {exitcode}"
    hint = " (out of memory?)" if -exitcode == 9 else ""
    return f"was killed by {_SIGNALS.get(-exitcode, f'signal {-exitcode}')}{hint}"


# By number and not by the module `signal`, whose names end in aliases; these are the same on all systems.
_SIGNALS = {
    2: "SIGINT",
    4: "SIGILL",
    6: "SIGABRT",
    8: "SIGFPE",
    9: "SIGKILL",
    11: "SIGSEGV",
    13: "SIGPIPE",
    15: "SIGTERM",
}


class BrokenExecutorError(ExecutorError):
    """The engine broke and cannot be made again. What was finished is committed."""


class DirectoryError(FutureFarmError, OSError):
    """The directory of a DataManager cannot be used. Attribute: ``path``."""

    path: str


class SessionError(FutureFarmError, OSError):
    """Something is wrong with one session file. Attribute: ``path``."""

    path: str


class SessionNameError(SessionError, ValueError):
    """A session cannot have this name. Attribute: ``name``."""

    name: str


class SessionLockedError(SessionError, TimeoutError):
    """Another writer holds the session. Attribute: ``holder``, what is known of it."""

    holder: dict[str, Any]


class SessionClosedError(SessionError, ValueError):
    """The session is closed, or belongs to the process that this one was forked from."""


class UnstoredError(SessionError):
    """Something cannot be stored now; what had been stored is intact.

    Attributes: ``path``, ``errno`` where known, and, when ``run_tasks`` raises it, ``tasks``: the numbers of
    the tasks that ended without being stored. ``resume=True`` runs them again.
    """

    tasks: tuple[int, ...] = ()


class StorageFullError(UnstoredError):
    """The disk, or a quota, is full. Attributes as in UnstoredError."""


class DamagedSessionError(SessionError):
    """The bytes of a session are not what was written. Attributes: ``path``, ``key`` where known."""

    key: str | None = None


class UnreadableValueError(SessionError, pickle.UnpicklingError):
    """A value that is on disk as it was written, but cannot be unpickled here.

    Attributes: ``path``, ``session``, ``key`` (None for the arguments of a task), and ``cause``, type and
    text of what was raised.
    """

    session: str
    key: str | None
    cause: str


class UntrustedValueError(UnreadableValueError, PermissionError):
    """A value that is more than plain data, and which somebody else may have written; nothing was run.

    Attributes: those of UnreadableValueError, and ``refused``, what it asked for: ``os.system``.
    """

    refused: str


class IncompleteCopyError(SessionError):
    """A session copied while it was written, without the log that held its last commits, or large values.

    Attributes: ``path``, and ``key`` where it is about one value.
    """

    key: str | None = None


class OverwrittenSessionError(SessionError):
    """Another file was put in the place of a session while it was being written; that file was left alone."""


class NewerSessionError(SessionError):
    """A session of a later version of futurefarm. Attributes: ``path``, ``version``."""

    version: int


class DuplicateKeyError(FutureFarmError, KeyError):
    """Several sessions hold this key. Attributes: ``key``, ``sessions``."""

    key: str
    sessions: tuple[str, ...]


class UnstorableError(FutureFarmError, TypeError):
    """A value that cannot be pickled, and therefore not be stored."""


class TasksFailedError(FutureFarmError, RuntimeError):
    """A sweep ended and some of its tasks failed; all other results are stored.

    Attributes: ``summary``, the `futurefarm.Summary` of the sweep, and ``failures``, the records of
    the first failed tasks (at most ten; `DataManager.failures` has all of them).
    """

    summary: Any
    failures: tuple[Any, ...]
