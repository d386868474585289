"""Where the fleets of an engine are made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from functools import partial

from .fleet import Fleet

__all__ = ["Harbour"]


class Harbour:
    """The factory of an engine whose workers are processes of ours.

    Args:
        build: makes an executor with one process, which has these environment variables from its first
            instruction on.
    """

    def __init__(self, build: Callable[[Mapping[str, str]], Executor]) -> None:
        self._build = build

    def __call__(self, max_workers: int, environment: Mapping[str, str] | None = None) -> Fleet:
        return Fleet(partial(self._build, environment or {}), max_workers)
