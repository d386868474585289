"""Processes of the standard library."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import resource_tracker
from typing import ParamSpec, TypeVar

from ..status import this_process
from ..worker import prepare_process, signals_held
from .harbour import Harbour

__all__ = ["Process", "make"]

P = ParamSpec("P")
T = TypeVar("T")


class Process(ProcessPoolExecutor):
    """One process of the standard library's executor.

    It is spawned. To fork was rejected: it copies locks that other threads hold, and random generators in
    their state. So was a fork server, whose children have the environment that it had when it started, and
    may find numpy loaded in it: then it is too late to tell how many threads that may use.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        # When it starts the first time it lets signals through again, which `signals_held` has to hold.
        resource_tracker.ensure_running()
        self._environment = environment
        super().__init__(
            1,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=prepare_process,
            initargs=(this_process(),),
        )

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        if self._processes:
            return super().submit(fn, *args, **kwargs)
        with signals_held(), _inherited(self._environment):  # this is where the process is started
            return super().submit(fn, *args, **kwargs)


_starting = threading.Lock()


@contextmanager
def _inherited(environment: Mapping[str, str]) -> Iterator[None]:
    """Let processes that start in this block inherit these variables, which cannot be passed to them."""
    with _starting:
        before = {name: os.environ.get(name) for name in environment}
        os.environ.update(environment)
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value


if hasattr(os, "register_at_fork"):  # no child gets the variables of a worker, nor a lock that nobody frees
    os.register_at_fork(
        before=_starting.acquire, after_in_parent=_starting.release, after_in_child=_starting.release
    )

make = Harbour(Process)
