"""The executor of one sweep: made when it is first needed, made again when it breaks."""

from __future__ import annotations

import queue
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future
from typing import Any, NamedTuple

from ..errors import BrokenExecutorError
from ..worker import run_chunk
from .fleet import Fleet
from .harbour import Harbour
from .registry import Engine

__all__ = ["Event", "Pool"]


class Event(NamedTuple):
    """A future is done: its result, or the error of the engine."""

    ticket: int
    receipt: bytes | None
    error: BaseException | None


class Pool:
    """Submits chunks and hands back what becomes of them, in the order in which they end.

    Futures are collected by callback into a queue. ``wait``, ``as_completed``, ``map`` and ``cancel`` were
    rejected: they drain generators, hang after a cancel on some engines, or drop finished work.
    """

    def __init__(self, engine: Engine, workers: int, environment: Mapping[str, str]) -> None:
        self.engine = engine
        self.workers = workers
        self._environment = environment
        self._executor: Executor | None = engine.instance
        self._events: queue.SimpleQueue[tuple[int, Future[bytes]]] = queue.SimpleQueue()
        self._tickets = 0
        self._void = 0  # tickets up to this one belong to an executor that was given up

    @property
    def can_be_remade(self) -> bool:
        return self.engine.factory is not None

    @property
    def has_environment(self) -> bool:
        """Whether the workers have the environment that is asked for."""
        return isinstance(self.engine.factory, Harbour)

    def submit(self, chunk: bytes) -> int:
        """Submit a chunk; return the ticket under which its event will come.

        Raises:
            BrokenExecutorError: the executor takes no more.
        """
        try:
            if self._executor is None:
                self._executor = self._make()
            future = self._executor.submit(run_chunk, chunk)
        except Exception as error:
            raise BrokenExecutorError(
                f"the executor {self.engine.name} takes no more tasks ({type(error).__name__}: {error})."
            ) from error
        self._tickets += 1
        ticket = self._tickets
        future.add_done_callback(lambda done: self._events.put((ticket, done)))
        return ticket

    def _make(self) -> Executor:
        factory = self.engine.factory
        if isinstance(factory, Harbour):
            return factory(self.workers, self._environment)
        assert factory is not None  # an instance is never given up
        return _checked(factory(self.workers))

    def next_event(self, timeout: float) -> Event | None:
        """Return the next event, or None when none came within ``timeout`` seconds."""
        try:
            ticket, future = self._events.get(timeout=timeout)
        except queue.Empty:
            return None
        if ticket <= self._void:
            return None
        if future.cancelled():
            return Event(ticket, None, BrokenExecutorError("the engine cancelled the task"))
        error = future.exception()
        return Event(ticket, None if error else future.result(), error)

    def check(self) -> bool:
        """Let an executor that can do so notice dead workers by itself; return whether it can."""
        check = getattr(self._executor, "check", None)
        if check is None:
            return False
        check()
        return True

    def accepts(self) -> bool:
        """Whether the executor still takes tasks: a broken pool refuses, a healthy one runs this."""
        if self._executor is None:
            return True
        try:
            self._executor.submit(_nothing)
        except Exception:  # each engine has an exception of its own for this
            return False
        return True

    def give_up(self) -> None:
        """Kill the workers and forget the executor; the next `submit` makes a new one."""
        executor, self._executor = self._executor, None
        self._void = self._tickets
        if executor is not None and self.engine.factory is not None:
            _kill(executor)

    def close(self, message: Callable[[], object], *, kill: bool = False) -> None:
        """Shut down an executor that was made here, and wait until its workers are gone, or wait for more.

        Args:
            message: what workers that stay call at the end.
            kill: end them at once.
        """
        executor, self._executor = self._executor, None
        if executor is None or self.engine.factory is None:
            return
        if kill:
            _kill(executor)
        elif isinstance(self.engine.factory, Harbour) and isinstance(executor, Fleet):
            self.engine.factory.take_back(executor, message)
        else:
            executor.shutdown(wait=True)


def _checked(made: Any) -> Executor:
    if not callable(getattr(made, "submit", None)) or not callable(getattr(made, "shutdown", None)):
        raise TypeError(f"the factory made {made!r}, which is no concurrent.futures.Executor")
    return made  # type: ignore[no-any-return]


def _kill(executor: Executor) -> None:
    kill = getattr(executor, "kill_workers", None)
    if kill is not None:
        kill()
    else:
        executor.shutdown(wait=False, cancel_futures=True)


def _nothing() -> None:
    pass
