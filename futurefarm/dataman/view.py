"""What ``keys()``, ``values()`` and ``items()`` return."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

__all__ = ["View"]

T = TypeVar("T")


class View(Iterable[T]):
    """What ``keys()``, ``values()`` and ``items()`` return: iterable again and again, read as it goes."""

    def __init__(
        self,
        count: Callable[[], int],
        iterate: Callable[[], Iterator[T]],
        contains: Callable[[object], bool] | None = None,
    ) -> None:
        self._count = count
        self._iterate = iterate
        self._contains = contains

    def __iter__(self) -> Iterator[T]:
        return self._iterate()

    def __len__(self) -> int:
        return self._count()

    def __contains__(self, part: object) -> bool:
        return self._contains(part) if self._contains else any(part == other for other in self)
