"""Noticing that a file was put in the place of one that is being written."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import OverwrittenSessionError
from .format import Home, at_home

__all__ = ["Watch"]


class Watch:
    """Notices when another file is put in the place of one that is being written, as ``cp`` of a backup does.

    SQLite would not: it would go on with a log that belongs to a file which is no longer there. While a log
    grows, the file itself stands still, so one look at its size and time before each commit tells (1.5 us).
    """

    def __init__(self, path: Path, home: Home | None, *, wal: bool) -> None:
        self._path = path
        self._home = home
        self._wal = wal
        self._seen = self._state()

    def _state(self) -> tuple[int, ...]:
        try:
            status = os.stat(self._path)
        except FileNotFoundError:
            return ()
        # Without a log each commit changes the file, and SQLite itself looks whether somebody else did.
        return (status.st_ino, status.st_size, status.st_mtime_ns) if self._wal else (status.st_ino,)

    def check(self) -> None:
        """Raise OverwrittenSessionError unless the file is still ours."""
        state = self._state()
        if state == self._seen or self._home is None:
            return
        # The log may have been folded in, here or by another process that shares the session.
        if not state or state[0] != self._seen[0] or not at_home(self._path, self._home):
            raise OverwrittenSessionError(
                f"another file was put in the place of the session {self._path.name} while it was being "
                f"written (a copy put back, or a file moved away?). What lies in {self._path.parent} now was "
                f"left as it is, and nothing more is written to it; what had been stored in this session is "
                f"there only if it is in that file. Go on in a new session.",
                path=str(self._path),
            )
        self._seen = state
