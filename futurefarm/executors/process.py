"""Processes of the standard library."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import resource_tracker
from typing import ParamSpec, TypeVar

from ..status import this_process
from ..worker import prepare_process, signals_held
from .fleet import Fleet

__all__ = ["Process", "make"]

P = ParamSpec("P")
T = TypeVar("T")


class Process(ProcessPoolExecutor):
    """One process of the standard library's executor."""

    def __init__(self) -> None:
        # Never fork: it copies locks that other threads hold, and random generators in their state.
        methods = multiprocessing.get_all_start_methods()
        context = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
        super().__init__(1, mp_context=context, initializer=prepare_process, initargs=(this_process(),))

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        with signals_held():  # this is where the process is started
            return super().submit(fn, *args, **kwargs)


def make(max_workers: int) -> Fleet:
    # When it starts the first time it lets signals through again, which `signals_held` has to hold.
    resource_tracker.ensure_running()
    return Fleet(Process, max_workers)
