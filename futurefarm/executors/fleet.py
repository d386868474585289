"""Processes that die alone."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import BrokenExecutor, Executor, Future
from functools import partial
from typing import Any, NamedTuple, ParamSpec, TypeVar

from ..errors import WorkerDiedError
from ..worker import kill

__all__ = ["Fleet"]

P = ParamSpec("P")
T = TypeVar("T")

MAX_STARTS = 3
"""Times in a row that a call is handed to a worker which turns out to be dead already."""

UNNOTICED = 1.0
"""Seconds after which the death of a process counts although its executor has not noticed it."""

SETTLE = 1.0
"""Seconds to wait for the exit code of a process that is known to be dead."""


LEAVE = 3.0
"""Seconds for a process to leave when it may; a thread that a task has left behind would keep it for ever."""


class Fleet(Executor):
    """As many executors as there are workers, each with one process.

    In a pool of many processes, of loky as of the standard library, the death of one ends all: every pending
    call fails, and nobody knows whose fault it was. Here it ends one call, by `WorkerDiedError`; the others
    go on, and the dead process is replaced.

    A call waits here, and not with a worker, until a worker is free: none stands behind a slow one.

    Args:
        make: makes an executor with one process.
        max_workers: how many there are at most; each is made when it is first needed.
    """

    def __init__(self, make: Callable[[], Executor], max_workers: int) -> None:
        self._lock = threading.RLock()
        self._quiet = threading.Condition(self._lock)
        self._ships = [_Ship(make) for _ in range(max_workers)]
        self._free = self._ships[::-1]
        self._waiting: deque[_Call] = deque()
        self._closed = False

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        future: Future[T] = Future()
        with self._lock:
            if self._closed:
                raise RuntimeError("cannot schedule new futures after shutdown")
            self._waiting.append(_Call(future, lambda executor: executor.submit(fn, *args, **kwargs)))
        self._hand_out()
        return future

    def _hand_out(self) -> None:
        """Hand waiting calls to free workers."""
        while True:
            with self._lock:
                if not (self._waiting and self._free):
                    return
                call = self._waiting.popleft()
                if not call.future.set_running_or_notify_cancel():
                    continue
                ship = self._free.pop()
                ship.call = call
            ship.run(call, self._ended)

    def _ended(self, ship: _Ship, call: _Call, answer: Callable[[], None]) -> None:
        with self._lock:
            if ship.call is not call:
                return  # it was given up before
            ship.call = None
            self._free.append(ship)
        self._hand_out()  # first: the worker must not stand idle while the answer is looked at
        answer()
        with self._lock:
            self._quiet.notify_all()

    def check(self) -> None:
        """Notice what an executor did not: its process is gone, and it waits for the rest of a message."""
        for ship in self._ships:
            call = ship.call
            if call is not None and ship.died_unnoticed():
                self._ended(ship, call, partial(call.future.set_exception, ship.bury()))

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
        with self._lock:
            while self._waiting or any(ship.call for ship in self._ships):
                self._quiet.wait(UNNOTICED)
                self.check()
        # All at once: each takes the time that an interpreter needs to end.
        threads = [threading.Thread(target=ship.shut_down) for ship in self._ships]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _close(self, *, cancel: bool) -> None:
        with self._lock:
            self._closed = True
            cancelled = list(self._waiting) if cancel else []
            for call in cancelled:
                self._waiting.remove(call)
        for call in cancelled:
            call.future.cancel()


class _Call(NamedTuple):
    future: Future[Any]
    submit_to: Callable[[Executor], Future[Any]]


class _Ship:
    """One worker: an executor with one process, made when it is needed, and made again when it dies."""

    def __init__(self, make: Callable[[], Executor]) -> None:
        self._make = make
        self._executor: Executor | None = None
        self._processes: dict[int, Any] = {}
        self._dead_since: float | None = None
        self.call: _Call | None = None
        """What it runs."""

    def run(self, call: _Call, ended: Callable[[_Ship, _Call, Callable[[], None]], None]) -> None:
        """Start a call; ``ended`` is called when its future may be answered."""
        try:
            inner = self._start(call)
        except WorkerDiedError as error:
            ended(self, call, partial(call.future.set_exception, error))
            return
        inner.add_done_callback(lambda inner: ended(self, call, self._answer(call, inner)))

    def _start(self, call: _Call) -> Future[Any]:
        starts = 0
        while True:
            if self._is_dead:  # while nothing ran on it
                self.bury()
            if self._executor is None:
                self._executor = self._make()
            try:
                inner = call.submit_to(self._executor)
            except BrokenExecutor:
                died = self.bury()
                starts += 1
                if starts == MAX_STARTS:
                    raise died from None
                continue
            except Exception as error:
                # No process could be started, say; but the call is in its queue, and nobody may run it now.
                self._note_processes()
                self.kill()
                self.bury()
                problem = f"a worker could not be started ({type(error).__name__}: {error})."
                raise WorkerDiedError(problem, pid=None, exitcode=None) from error
            self._note_processes()
            return inner

    def _note_processes(self) -> None:
        # They have no public name: both loky and the standard library keep {pid: process} here.
        found = getattr(self._executor, "_processes", None)
        if isinstance(found, Mapping) and found:
            self._processes = dict(found)
        self._dead_since = None

    def _answer(self, call: _Call, inner: Future[Any]) -> Callable[[], None]:
        error = inner.exception()
        if error is None:
            return partial(call.future.set_result, inner.result())
        if isinstance(error, BrokenExecutor):
            error = self.bury()
        return partial(call.future.set_exception, error)

    def bury(self) -> WorkerDiedError:
        """Forget a dead process and its executor; return how it ended."""
        pid = exitcode = None
        for process in self._processes.values():
            process.join(SETTLE)
            pid, exitcode = process.pid, process.exitcode
        executor, self._executor, self._processes = self._executor, None, {}
        if executor is not None:
            getattr(executor, "let_go", lambda: executor.shutdown(wait=False))()
        return WorkerDiedError.of(pid, exitcode)

    def died_unnoticed(self) -> bool:
        """Whether the process has been dead for a while; to be asked again and again."""
        if not self._is_dead:
            self._dead_since = None
            return False
        if self._dead_since is None:
            self._dead_since = time.monotonic()
        return time.monotonic() - self._dead_since > UNNOTICED

    @property
    def _is_dead(self) -> bool:
        return bool(self._processes) and not any(process.is_alive() for process in self._processes.values())

    def kill(self) -> None:
        for pid in self._processes:
            kill(pid)

    def shut_down(self) -> None:
        executor, self._executor = self._executor, None
        if executor is not None:
            impatience = threading.Timer(LEAVE, self.kill)
            impatience.start()
            executor.shutdown(wait=True)
            impatience.cancel()
        self._processes = {}
