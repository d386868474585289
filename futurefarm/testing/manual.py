"""An executor under the control of a test."""

from __future__ import annotations

import queue
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any, NamedTuple, ParamSpec, TypeVar

__all__ = ["ManualExecutor"]

P = ParamSpec("P")
T = TypeVar("T")


class _Call(NamedTuple):
    future: Future[Any]
    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class ManualExecutor(Executor):
    """Holds what is submitted until `step`, `fail` or `break_down` is called from another thread.

    Args:
        timeout: seconds after which a step that waits for work gives up.

    Example:
        >>> executor = ManualExecutor()
        >>> future = executor.submit(pow, 2, 3)
        >>> future.done()
        False
        >>> executor.step()
        >>> future.result()
        8
    """

    def __init__(self, timeout: float = 30.0) -> None:
        self._calls: queue.SimpleQueue[_Call] = queue.SimpleQueue()
        self._timeout = timeout
        self.broken: BaseException | None = None

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        if self.broken is not None:
            raise RuntimeError(f"the executor is broken: {self.broken}")
        future: Future[Any] = Future()
        self._calls.put(_Call(future, fn, args, kwargs))
        return future

    @property
    def pending(self) -> int:
        """How many calls wait."""
        return self._calls.qsize()

    def step(self, number: int = 1) -> None:
        """Run the next calls, waiting until there are so many."""
        for _ in range(number):
            call = self._next()
            try:
                call.future.set_result(call.function(*call.args, **call.kwargs))
            except BaseException as error:
                call.future.set_exception(error)

    def fail(self, error: BaseException) -> None:
        """Let the next call fail as if the engine had lost it; the others go on."""
        self._next().future.set_exception(error)

    def break_down(self, error: BaseException) -> None:
        """Break: every waiting call fails and nothing more is accepted."""
        self.broken = error
        while self.pending:
            self.fail(error)

    def _next(self) -> _Call:
        try:
            call = self._calls.get(timeout=self._timeout)
        except queue.Empty:
            raise TimeoutError(f"nothing was submitted for {self._timeout} seconds") from None
        call.future.set_running_or_notify_cancel()
        return call
