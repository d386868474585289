"""Taking the place of a session's writer for a moment, where there is none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ..directory import Directory
from ..errors import SessionLockedError
from .lock import Lock

__all__ = ["idle"]


@contextmanager
def idle(directory: Directory, name: str) -> Iterator[bool]:
    """Hold the lock of a session in the block; gives False at once where somebody else holds it."""
    lock = Lock(directory, name)
    try:
        lock.acquire(0)
    except SessionLockedError:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()
