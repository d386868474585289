"""Processes that die alone."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from typing import Any, ParamSpec, TypeVar

from ..errors import WorkerDiedError
from .ship import UNNOTICED, Call, Ship, dismiss

__all__ = ["Fleet"]

P = ParamSpec("P")
T = TypeVar("T")

ANSWER = 3.0
"""Seconds for a process that waits to do what it is told at the end, which is to seal a file."""


class Fleet(Executor):
    """As many executors as there are workers, each with one process.

    In a pool of many processes, of loky as of the standard library, the death of one ends all: every pending
    call fails, and nobody knows whose fault it was. Here it ends one call, by `WorkerDiedError`; the others
    go on, and the dead process is replaced.

    A call waits here, and not with a worker, until a worker is free, or one that has been quick will be soon.

    Args:
        ships: the workers; the first ones are used first.
    """

    def __init__(self, ships: Sequence[Ship]) -> None:
        self._lock = threading.RLock()
        self._quiet = threading.Condition(self._lock)
        self._ships = list(ships)
        self._waiting: deque[Call] = deque()
        self._closed = False

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        future: Future[T] = Future()
        with self._lock:
            if self._closed:
                raise RuntimeError("cannot schedule new futures after shutdown")
            self._waiting.append(Call(future, lambda executor: executor.submit(fn, *args, **kwargs)))
        self._hand_out()
        return future

    def _hand_out(self) -> None:
        """Hand waiting calls to workers that are free, or will be in a moment."""
        while True:
            with self._lock:
                ship = self._ship_for_next()
                if not self._waiting or ship is None:
                    return
                call = self._waiting.popleft()
                if not call.future.set_running_or_notify_cancel():
                    continue
                ship.board(call)
            ship.run(call, self._ended, self._died)

    def _ship_for_next(self) -> Ship | None:
        """Return the worker that takes the next call, if any.

        A quick one takes a second call while it runs the first: to hand it over takes a millisecond, of four
        threads that wait for each other. That call would wait if the first one turned out to be slow.
        """
        ship = min(self._ships, key=lambda ship: len(ship.calls))
        most = 1 if all(ship.is_quick for ship in self._ships) else 0
        return ship if len(ship.calls) <= most else None

    def _ended(self, ship: Ship, call: Call, inner: Future[Any]) -> None:
        with self._lock:
            if call not in ship.calls:
                return  # it was given up before
            ship.lighten(call)
        self._hand_out()  # first: the worker must not stand idle while the answer is looked at
        error = inner.exception()
        if error is None:
            call.future.set_result(inner.result())
        else:
            call.future.set_exception(error)
        with self._lock:
            self._quiet.notify_all()

    def _died(self, ship: Ship, error: WorkerDiedError) -> None:
        """Answer the call that a dead process was running, and the one that it would have run next."""
        with self._lock:
            lost, ship.calls = ship.calls, []
        self._hand_out()
        for call in lost:
            call.future.set_exception(error)
        with self._lock:
            self._quiet.notify_all()

    def check(self) -> None:
        """Notice what an executor did not: its process is gone, and it waits for the rest of a message."""
        for ship in self._ships:
            if ship.calls and ship.died_unnoticed():
                self._died(ship, ship.bury())

    def kill_workers(self) -> None:
        """End all processes at once; calls that have not ended fail."""
        self._close(cancel=True)
        for ship in self._ships:
            ship.kill()
        self.shutdown()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls, and let go of the processes; those that run calls leave when these end."""
        self._close(cancel=cancel_futures)
        if not wait:
            threading.Thread(target=self.shutdown, name="fleet-shutdown", daemon=True).start()
            return
        self._finish()
        dismiss(self._ships)

    def disband(self, message: Callable[[], object]) -> list[Ship]:
        """Take no more calls; when all have ended, return the workers whose processes go on waiting for more.

        Args:
            message: what each process calls before. Those that fail, or take too long for it, are dismissed.
        """
        self._close(cancel=False)
        self._finish()
        answers = [(ship, ship.tell(message)) for ship in self._ships]
        deadline = time.monotonic() + ANSWER
        kept = [ship for ship, answer in answers if answer is not None and _comes(answer, deadline)]
        dismiss([ship for ship in self._ships if ship not in kept])
        return kept

    def _close(self, *, cancel: bool) -> None:
        with self._lock:
            self._closed = True
            cancelled = list(self._waiting) if cancel else []
            for call in cancelled:
                self._waiting.remove(call)
        for call in cancelled:
            call.future.cancel()

    def _finish(self) -> None:
        """Wait until all calls have ended."""
        with self._lock:
            while self._waiting or any(ship.calls for ship in self._ships):
                self._quiet.wait(UNNOTICED)
                self.check()


def _comes(answer: Future[object], deadline: float) -> bool:
    try:
        answer.result(max(0.0, deadline - time.monotonic()))
    except Exception:  # it took too long, failed, or died
        return False
    return True
