"""A session: one writer's file in the directory, a `shelve.Shelf` guarded by a file lock."""

from .files import NotedHome, home_of, was_session
from .holder import locked_by
from .idle import idle
from .keys import KeyMaker, key_bytes
from .lock import LOCK_TIMEOUT, LockWaitWarning, check_lock_timeout
from .locking import LockingSession
from .session import LOG_LIMIT, Session, seal

__all__ = [
    "LOCK_TIMEOUT",
    "LOG_LIMIT",
    "KeyMaker",
    "LockWaitWarning",
    "LockingSession",
    "NotedHome",
    "Session",
    "check_lock_timeout",
    "home_of",
    "idle",
    "key_bytes",
    "locked_by",
    "seal",
    "was_session",
]
