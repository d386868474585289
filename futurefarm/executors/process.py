"""Processes of the standard library."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import resource_tracker
from typing import ParamSpec, TypeVar

from ..status import this_process
from ..worker import prepare_process, signals_held

__all__ = ["ProcessExecutor", "make"]


P = ParamSpec("P")
T = TypeVar("T")


class ProcessExecutor(ProcessPoolExecutor):
    """The standard library's executor, with the method by which Python 3.14's ends running tasks."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        with signals_held():  # this is where workers are started
            return super().submit(fn, *args, **kwargs)

    def kill_workers(self) -> None:
        processes = list((getattr(self, "_processes", None) or {}).values())
        self.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.kill()
        for process in processes:
            process.join(5)


def make(max_workers: int) -> ProcessExecutor:
    # When it starts the first time it lets signals through again, which `signals_held` has to hold.
    resource_tracker.ensure_running()
    # Never fork: it copies locks that other threads hold, and random generators in their state.
    methods = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    return ProcessExecutor(
        max_workers, mp_context=context, initializer=prepare_process, initargs=(this_process(),)
    )
