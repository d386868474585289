"""Processes of loky: robust, and able to run what notebooks and ``__main__`` define."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from loky import ProcessPoolExecutor
from loky.backend import resource_tracker

from ..status import this_process
from ..worker import prepare_process, signals_held

__all__ = ["LokyExecutor", "make"]

IDLE = 300
"""Seconds after which idle workers leave; loky's own 10 are short for simulators that take 7 to import."""


class LokyExecutor(ProcessPoolExecutor):  # type: ignore[misc]
    """loky's executor, with the method by which Python 3.14's can end running tasks."""

    def submit(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Future[Any]:
        with signals_held():  # this is where workers are started
            future: Future[Any] = super().submit(fn, *args, **kwargs)
            return future

    def kill_workers(self) -> None:
        self.shutdown(wait=True, kill_workers=True)


def make(max_workers: int) -> LokyExecutor:
    # When it starts the first time it lets signals through again, which `signals_held` has to hold.
    resource_tracker.ensure_running()
    return LokyExecutor(max_workers, timeout=IDLE, initializer=prepare_process, initargs=(this_process(),))
