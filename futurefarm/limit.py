"""A time limit for tasks."""

from __future__ import annotations

import re
from collections import deque

from .errors import UsageError

__all__ = ["Limit"]

EVIDENCE = 10
"""Tasks that must have ended before a limit by the median holds."""

FLOOR = 1.0
"""Seconds that a limit by the median has at least: tasks of microseconds vary by more than any factor."""

_MEMORY = 500
_RELATIVE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*x\s*median\s*")


class Limit:
    """How long a task may take: a number of seconds, or a multiple of the median, as in ``"5x median"``.

    Example:
        >>> limit = Limit("5x median")
        >>> for _ in range(10):
        ...     limit.note(2.0)
        >>> limit.seconds, Limit(3).seconds, Limit(None).seconds
        (10.0, 3.0, None)
    """

    def __init__(self, timeout: float | str | None) -> None:
        self.timeout = timeout
        self._factor: float | None = None
        self._noted: deque[float] = deque(maxlen=_MEMORY)
        self._number = 0
        self.seconds: float | None = None
        """The limit, or None while there is none."""
        if timeout is None:
            return
        if isinstance(timeout, str):
            match = _RELATIVE.fullmatch(timeout)
            self._factor = float(match[1]) if match else 0.0
        elif isinstance(timeout, int | float) and not isinstance(timeout, bool):
            self.seconds = float(timeout)
        if not (self._factor or (self.seconds and self.seconds > 0)):
            raise UsageError(f"timeout must be seconds or a text like '5x median', not {timeout!r}.")

    def note(self, seconds: float) -> None:
        """Note how long a task took that ended well."""
        if self._factor is None:
            return
        self._noted.append(seconds)
        self._number += 1
        if self._number % EVIDENCE == 0:  # it moves slowly, and to find it takes longer than many a task
            import statistics  # late: most sweeps have no limit, and their workers must not wait for it

            self.seconds = max(FLOOR, self._factor * statistics.median(self._noted))
