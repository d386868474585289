"""Waiting for space, while the disk is full."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from ..errors import StorageFullError

__all__ = ["Patience"]

Result = TypeVar("Result")

FIRST, LONGEST = 0.05, 1.0
"""Seconds between two tries: as long again each time, up to a second, so that freed space is soon used."""

LOOK = 0.03
"""Seconds between two looks at the stop flag."""


class Patience:
    """Tries again to store something as long as the disk is full, for some seconds.

    Whoever computed waits, with what it has computed: so nothing new is begun, no result crosses a pipe, and
    none is held twice. (Results sent to the parent would need memory there just when there is no space.)

    Args:
        seconds: how long.
        over: says whether the wait is to end now, as the sweep is being stopped.
        clock, sleep: seconds that increase, and waiting for some of them.
    """

    def __init__(
        self,
        seconds: float,
        over: Callable[[], bool],
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._seconds = seconds
        self._over = over
        self._clock = clock
        self._sleep = sleep

    def store(self, attempt: Callable[[], Result], waiting: Callable[[bool], None]) -> Result:
        """Return what ``attempt`` returns, once it finds space.

        Args:
            attempt: stores something, or raises StorageFullError and keeps it.
            waiting: told True when the wait begins, and False when it ends.

        Raises:
            StorageFullError: there was no space in all the time, or the wait was ended.
        """
        try:
            return attempt()
        except StorageFullError:
            waiting(True)
        until = self._clock() + self._seconds
        pause = FIRST
        try:
            while True:
                self._pause(min(pause, until - self._clock()))
                try:
                    return attempt()
                except StorageFullError:
                    if self._over() or self._clock() >= until:
                        raise
                pause = min(2 * pause, LONGEST)
        finally:
            waiting(False)

    def _pause(self, seconds: float) -> None:
        end = self._clock() + seconds
        while not self._over() and (left := end - self._clock()) > 0:
            self._sleep(min(LOOK, left))
