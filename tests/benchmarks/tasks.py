"""The tasks of the cases; in a module of their own, which workers of every kind can import."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

__all__ = ["Task", "add_nothing", "array", "look_up", "make_arrays", "sleep", "spin"]

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


def array(number: int, megabytes: int) -> np.ndarray[Any, Any]:
    """Return an array with its number in front; it is made once, so that a task takes no time of its own."""
    made = _array(megabytes)
    made[0] = number
    return made


@functools.cache
def _array(megabytes: int) -> np.ndarray[Any, Any]:
    import numpy as np

    return np.full(megabytes * 1_000_000 // 8, 0.5)


def make_arrays(number: int, sizes: tuple[int, ...]) -> tuple[int, float]:
    """Make what `array` returns, and stay for long enough that each worker gets one of these tasks."""
    for size in sizes:
        _array(size)
    time.sleep(0.1)
    return number, 0.0


def look_up(number: int, weights: np.ndarray[Any, Any]) -> tuple[int, float]:
    return number, float(weights[number])
