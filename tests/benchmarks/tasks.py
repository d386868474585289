"""The tasks of the cases; in a module of their own, which workers of every kind can import."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["Task", "add_nothing", "sleep", "spin"]

Task = Callable[..., tuple[int, float]]


def add_nothing(number: int) -> tuple[int, float]:
    """Do as little as a task that has a result can do."""
    return number, number * 0.5


def spin(number: int, seconds: float) -> tuple[int, float]:
    """Compute for ``seconds`` of this thread's own time: a core that others use makes it longer."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass
    return number, seconds


def sleep(number: int, seconds: float) -> tuple[int, float]:
    time.sleep(seconds)
    return number, seconds
