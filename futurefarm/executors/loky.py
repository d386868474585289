"""Processes of loky: robust, and able to run what notebooks and ``__main__`` define."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

from loky import ProcessPoolExecutor
from loky.backend import resource_tracker

from ..status import this_process
from ..worker import prepare_process_of_loky, signals_held
from .harbour import IDLE, Harbour

__all__ = ["LokyProcess", "make"]


class LokyProcess(ProcessPoolExecutor):  # type: ignore[misc]
    """One process of loky."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        # When it starts the first time it lets signals through again, which `signals_held` has to hold.
        resource_tracker.ensure_running()
        super().__init__(
            1,
            timeout=IDLE,
            initializer=prepare_process_of_loky,
            initargs=(this_process(),),
            env=dict(environment),
        )

    def submit(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Future[Any]:
        with signals_held():  # this is where the process is started
            future: Future[Any] = super().submit(fn, *args, **kwargs)
            return future

    def let_go(self) -> None:
        """Close our copies of the pipes to a dead process: threads of loky would wait at them for ever.

        One sends it the rest of a large call (the standard library closes that end, loky does not), the
        other waits for the rest of an answer.
        """
        calls, results = self._call_queue, self._result_queue
        self.shutdown(wait=False)
        with suppress(AttributeError, OSError):
            calls._reader.close()
        with suppress(AttributeError, OSError):
            results._writer.close()


make = Harbour(LokyProcess)
