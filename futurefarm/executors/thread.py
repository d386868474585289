"""Threads of this process: for functions that wait, or that let go of the interpreter lock."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any, ParamSpec, TypeVar

__all__ = ["ThreadExecutor", "make"]

P = ParamSpec("P")
T = TypeVar("T")

Call = tuple[Future[Any], Callable[..., Any], tuple[Any, ...], dict[str, Any]]


class ThreadExecutor(Executor):
    """Threads for which the end of the program does not wait.

    Those of the standard library's executor hold the program up until the last task has ended, though it was
    told to end at once: a thread that waits in a C function cannot be ended.
    """

    def __init__(self, max_workers: int) -> None:
        self._calls: queue.SimpleQueue[Call | None] = queue.SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._most = max_workers
        self._threads: list[threading.Thread] = []
        self._over = False

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        if self._over:
            raise RuntimeError("the executor was shut down")
        future: Future[T] = Future()
        self._calls.put((future, fn, args, kwargs))
        if not self._idle.acquire(blocking=False) and len(self._threads) < self._most:
            thread = threading.Thread(target=self._work, name=f"futurefarm-{len(self._threads)}", daemon=True)
            self._threads.append(thread)
            thread.start()
        return future

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            _run(*call)
            del call  # its arguments may be large
            self._idle.release()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the threads when what was submitted has run, or, when that is cancelled, what runs."""
        self._over = True
        while cancel_futures:
            try:
                call = self._calls.get_nowait()
            except queue.Empty:
                break
            if call is not None:
                call[0].cancel()
        for _ in self._threads:
            self._calls.put(None)
        if wait:
            for thread in self._threads:
                thread.join()


def _run(future: Future[T], fn: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(fn(*args, **kwargs))
    except BaseException as error:
        future.set_exception(error)


def make(max_workers: int) -> ThreadExecutor:
    return ThreadExecutor(max_workers)
