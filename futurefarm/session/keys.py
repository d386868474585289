"""Keys for results."""

from __future__ import annotations

import os
import secrets
import threading
import time

__all__ = ["KeyMaker", "key_bytes"]


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


def key_bytes(key: object) -> bytes | None:
    """Return a key as it is stored, or None for what no session can have as a key."""
    try:
        return key.encode() if isinstance(key, str) else None
    except UnicodeEncodeError:  # half a surrogate
        return None
