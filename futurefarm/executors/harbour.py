"""Where the fleets of an engine are made, and where their workers lie between two sweeps."""

from __future__ import annotations

import atexit
import os
import sys
import threading
from collections.abc import Callable, Hashable, Mapping
from concurrent.futures import Executor
from functools import partial

from ..cores import usable_cores
from .fleet import Fleet
from .ship import Ship, dismiss

__all__ = ["IDLE", "Harbour", "end_idle_workers"]

IDLE = 300.0
"""Seconds for which idle workers stay; loky's own 10 are short for simulators that take 7 to import."""


class Harbour:
    """The factory of an engine whose workers are processes of ours.

    Workers that a sweep hands back stay for the next one, with all that they have imported: in a fleet, they
    come before new ones. Each is in one fleet at a time, so sweeps at the same time have workers of their
    own. And only those come that were started as new ones would be now, in the same environment, working
    directory and search path, so that nobody can tell the difference.

    Args:
        build: makes an executor with one process, which has these environment variables from its first
            instruction on.
    """

    def __init__(self, build: Callable[[Mapping[str, str]], Executor]) -> None:
        self._build = build
        self._idle: list[Ship] = []
        self._inherited: list[Ship] = []
        self._begin()
        _harbours.append(self)

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None

    def begin_anew(self) -> None:
        """Leave alone, in a forked child, the workers of the parent; to drop them would close their pipes."""
        for ship in self._idle:
            ship.disown()
        self._inherited += self._idle
        self._idle = []
        self._begin()

    def __call__(self, max_workers: int, environment: Mapping[str, str] | None = None) -> Fleet:
        environment = dict(environment or {})
        kind = _kind(environment)
        with self._lock:
            idle = [ship for ship in self._idle if ship.is_warm]
            dead = [ship for ship in self._idle if ship not in idle]
            warm = [ship for ship in idle if ship.kind == kind][-max_workers:]
            self._idle = [ship for ship in idle if ship not in warm]
        dismiss(dead)
        return Fleet(
            warm + [Ship(partial(self._build, environment), kind) for _ in range(len(warm), max_workers)]
        )

    def take_back(self, fleet: Fleet, message: Callable[[], object]) -> None:
        """Take back the workers of a fleet, when all its calls have ended.

        Args:
            message: what each process calls at the end of its work.
        """
        ships = fleet.disband(message)
        if not _workers_may_stay():
            dismiss(ships)
            return
        with self._lock:
            most = max(usable_cores(), len(ships))
            idle = self._idle + ships
            gone, self._idle = idle[:-most], idle[-most:]
            self._end_at_last()
        dismiss(gone)

    def _end_at_last(self) -> None:
        """End the workers when no sweep has come for a while."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = threading.Timer(IDLE, self.end_idle)
        self._timer.daemon = True
        self._timer.start()

    def end_idle(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, []
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
        dismiss(idle)


def end_idle_workers() -> None:
    """End the worker processes that wait for the next sweep, and wait until they are gone.

    Between two sweeps, the workers of ``"loky"`` and ``"process"`` stay: the next `run_tasks` finds its
    modules imported. They leave by themselves after five minutes, and when the program ends. Call this to
    give their memory back earlier, or when they are to see a module that you have edited. Workers of sweeps
    that run at this moment are not touched.

    Example:
        >>> end_idle_workers()
    """
    for harbour in _harbours:
        harbour.end_idle()


def _kind(environment: Mapping[str, str]) -> Hashable:
    try:
        directory = os.getcwd()
    except FileNotFoundError:
        directory = ""
    return tuple(environment.items()), tuple(os.environ.items()), directory, tuple(sys.path), tuple(sys.argv)


_harbours: list[Harbour] = []
_program_ends: bool | None = None  # None: not asked to be told yet


def _workers_may_stay() -> bool:
    global _program_ends
    if _program_ends is None:
        # As loky and the standard library do it. Later than they, hence earlier at the end: they would wait
        # for ever for a process that does not leave, because of a thread of its task.
        ask_to_be_told = getattr(threading, "_register_atexit", atexit.register)
        try:
            ask_to_be_told(_note_end)
        except RuntimeError:  # it ends at this moment
            return False
        _program_ends = False
    return not _program_ends


def _note_end() -> None:
    global _program_ends
    _program_ends = True
    end_idle_workers()


def _begin_anew() -> None:
    for harbour in _harbours:
        harbour.begin_anew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)
