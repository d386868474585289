"""Ending a task that runs in a thread of this process, and nothing but the task.

An exception must never be delivered inside a commit. Therefore threads note when they are in the user's code,
and only then are they interrupted. Code that waits inside a C function is interrupted when it returns.
"""

from __future__ import annotations

import ctypes
import threading
import time
from types import TracebackType

from .leash import end_descendants

__all__ = ["TaskInterrupted", "interrupt_running", "interruptible"]

SETTLE = 0.1
"""Seconds for which a thread waits for an interrupt that was sent but has not arrived."""


class TaskInterrupted(BaseException):
    """Ends a running task; no Exception, so that a task that catches those ends all the same."""


_running: dict[int, int] = {}
"""The threads that are in the user's code, and the numbers that the system gives them."""

_struck: set[int] = set()
_lock = threading.RLock()  # re-entrant: a signal handler may interrupt its own thread


class interruptible:  # noqa: N801 - reads like a statement: `with interruptible():`
    """Mark the user's code: `interrupt_running` reaches a thread only inside this block.

    Made in the thread that will use it, as often as it likes.
    """

    def __init__(self) -> None:
        self._thread = threading.get_ident()
        self._native = threading.get_native_id()

    def __enter__(self) -> None:
        _running[self._thread] = self._native

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with _lock:
            _running.pop(self._thread, None)
            struck = self._thread in _struck
            _struck.discard(self._thread)
        if struck and kind is not TaskInterrupted:
            _settle()


def _settle() -> None:
    """Take an interrupt that arrives after the task has ended, before our own code goes on."""
    deadline = time.monotonic() + SETTLE
    try:
        while time.monotonic() < deadline:  # the task may have swallowed it: not for ever
            time.sleep(0.001)
    except TaskInterrupted:
        return


def interrupt_running() -> None:
    """Raise TaskInterrupted in every task that runs in a thread of this process, this one last.

    The processes that such a task has started end at once: it may be waiting for them, in a C function.
    """
    here = threading.get_ident()
    for native in list(_running.values()):
        end_descendants(native)
    with _lock:
        for ident in _running.keys() - {here}:
            _struck.add(ident)
            ctypes.pythonapi.PyThreadState_SetAsyncExc(
                ctypes.c_ulong(ident), ctypes.py_object(TaskInterrupted)
            )
    if here in _running:
        raise TaskInterrupted
