"""Named parameter spaces, lazy: each point is a `Params`, which a task gets as keyword arguments."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from typing import Any

from .errors import UsageError, UsageTypeError

__all__ = ["Params", "Space", "cases", "grid", "sample", "zipped"]


class Params(dict[str, Any]):
    """Keyword arguments of one task.

    Example:
        >>> Params(k=1, tau=5.0)
        Params(k=1, tau=5.0)
    """

    def __futurefarm_keywords__(self) -> dict[str, Any]:
        return dict(self)

    def __repr__(self) -> str:
        return f"Params({', '.join(f'{name}={value!r}' for name, value in self.items())})"


class Space(Iterable[Params]):
    """Points of a parameter space; iterable again and again, with a length."""

    def __init__(self, points: Any, length: int) -> None:
        self._points = points
        self._length = length

    def __iter__(self) -> Iterator[Params]:
        return iter(self._points())

    def __len__(self) -> int:
        return self._length


def grid(**axes: Iterable[Any]) -> Space:
    """Return every combination of the axes' values, the last axis fastest.

    Example:
        >>> list(grid(k=[1, 2], tau=[5]))
        [Params(k=1, tau=5), Params(k=2, tau=5)]
    """
    values = [_list(name, axis) for name, axis in axes.items()]
    length = 1
    for axis in values:
        length *= len(axis)
    return Space(lambda: (Params(zip(axes, point)) for point in itertools.product(*values)), length)


def zipped(**axes: Iterable[Any]) -> Space:
    """Return the first values of all axes, then the second ones, and so on; the axes are equally long.

    Example:
        >>> list(zipped(k=[1, 2], tau=[5, 6]))
        [Params(k=1, tau=5), Params(k=2, tau=6)]
    """
    values = [_list(name, axis) for name, axis in axes.items()]
    lengths = {name: len(axis) for name, axis in zip(axes, values)}
    if len(set(lengths.values())) > 1:
        raise UsageError(f"the axes of zipped() must be equally long, but their lengths are {lengths}.")
    return Space(
        lambda: (Params(zip(axes, point)) for point in zip(*values)), max(lengths.values(), default=0)
    )


def cases(points: Iterable[Mapping[str, Any]]) -> Iterable[Params]:
    """Return points given one by one, as mappings of names to values.

    Example:
        >>> list(cases([{"k": 1}, {"k": 7}]))
        [Params(k=1), Params(k=7)]
    """
    if not isinstance(points, Iterable):
        raise UsageTypeError(f"cases() needs an iterable of mappings, not {points!r}.")
    if isinstance(points, Sized):
        return Space(lambda: map(_case, points), len(points))
    return map(_case, points)


def _case(point: Any) -> Params:
    if not isinstance(point, Mapping) or not all(isinstance(name, str) for name in point):
        raise UsageTypeError(f"each case must be a mapping of names to values, not {point!r}.")
    return Params(point)


def _list(name: str, axis: Any) -> list[Any]:
    if not isinstance(axis, Iterable):
        raise UsageTypeError(f"the axis {name} must be an iterable of values, not {axis!r}.")
    return list(axis)


def sample(number: int, seed: int, **axes: tuple[float, float] | list[Any] | Callable[[Any], Any]) -> Space:
    """Return random points: the same ones for the same seed, so that a sweep over them can be resumed.

    Args:
        number: of points. More points of the same seed begin with the same ones.
        seed: of the random numbers.
        axes: a tuple ``(low, high)`` is drawn from uniformly, low included; of a list an element is chosen;
            a function is called with a `numpy.random.Generator`.

    Example:
        >>> axes = {"k": (0.0, 1.0), "mode": ["fast", "slow"]}
        >>> points = list(sample(2, seed=1, **axes))
        >>> [0 <= point["k"] < 1 for point in points], points == list(sample(3, seed=1, **axes))[:2]
        ([True, True], True)
    """
    if isinstance(number, bool) or not isinstance(number, int) or number < 0:
        raise UsageError(f"the number of points must be a whole number of at least 0, not {number!r}.")
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise UsageError(f"seed must be a whole number of at least 0, not {seed!r}.")
    for name, axis in axes.items():
        if not callable(axis) and not _can_be_drawn_from(axis):
            raise UsageTypeError(
                f"the axis {name} must be a tuple (low, high) of numbers, a list that is not empty, or a "
                f"function, not {axis!r}."
            )

    def draw(rng: Any, axis: Any) -> Any:
        if callable(axis):
            return axis(rng)
        if isinstance(axis, tuple):
            low, high = axis
            return float(rng.uniform(low, high))
        return axis[rng.integers(len(axis))]

    def points() -> Iterator[Params]:
        import numpy as np

        rng = np.random.default_rng(seed)
        for _ in range(number):
            yield Params((name, draw(rng, axis)) for name, axis in axes.items())

    return Space(points, number)


def _can_be_drawn_from(axis: Any) -> bool:
    if isinstance(axis, tuple):
        return len(axis) == 2 and all(isinstance(end, int | float) and math.isfinite(end) for end in axis)
    return isinstance(axis, list) and len(axis) > 0
