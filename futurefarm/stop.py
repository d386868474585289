"""Stopping a sweep: by code, Ctrl-C, a signal, or a file."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

from .directory import Directory, stop_mark

__all__ = ["Listener", "StopFlag"]

LOOK = 0.05
"""Seconds between two looks at the stop file."""


class StopFlag:
    """A flag that a sweep looks at between tasks: ``run_tasks(..., stop=flag)``.

    Once it is set no task is begun; the running ones finish and are committed. Setting is safe from any
    thread and from a signal handler.

    Example:
        >>> flag = StopFlag()
        >>> flag.is_set()
        False
        >>> flag.set()
        >>> flag.is_set(), flag.reason
        (True, 'StopFlag.set()')
    """

    def __init__(self) -> None:
        self.reason: str | None = None
        self.now = False

    def set(self, reason: str = "StopFlag.set()", *, now: bool = False) -> None:
        """Ask the sweep to stop.

        Args:
            reason: what the summary will say.
            now: end the running tasks, too; what is finished is kept.
        """
        if self.reason is None or (now and not self.now):
            self.reason = reason
        self.now |= now

    def is_set(self) -> bool:
        """Whether the sweep was asked to stop."""
        return self.reason is not None


class Listener:
    """Sets a flag when the user asks for it in any way; a context manager for the time of a sweep.

    Signals only set flags, so nothing is cut off in the middle of a commit. In the main thread, Ctrl-C and
    SIGTERM stop the sweep, a second one ends running tasks at once, and a third one is KeyboardInterrupt.

    Args:
        flag: what is set.
        directory: whose stop file is looked at.
        sweep: its id; workers see that it is being stopped by a file of this name.
        seen: the stop file that lay there before the sweep began, which does not count.
        end_now: called when running tasks are to end at once; in a signal handler, too.
        clock: seconds that increase.
    """

    def __init__(
        self,
        flag: StopFlag,
        directory: Directory,
        sweep: str,
        seen: tuple[int, int] | None,
        *,
        end_now: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.flag = flag
        self._directory = directory
        self._mark = directory.stop_of(sweep)
        self._end_now = end_now
        self._clock = clock
        self._seen = seen
        self._looked = -LOOK
        self._told = False
        self._signals = 0
        self._handlers: dict[int, Any] = {}
        self._waiting = False

    def __enter__(self) -> Listener:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._handlers[number] = signal.signal(number, self._handle)
        return self

    def _stay_in_charge(self) -> None:
        """Take the handlers back: a task that runs in this process may import a simulator that takes them."""
        for number in self._handlers:
            if signal.getsignal(number) != self._handle:
                signal.signal(number, self._handle)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def is_set(self) -> bool:
        """Whether the sweep is to stop; tells the workers when it is."""
        self._stay_in_charge()
        if not self.flag.is_set() and self._clock() - self._looked >= LOOK:
            self._looked = self._clock()
            mark = stop_mark(self._directory.stop)
            if mark is not None and mark != self._seen:
                self.flag.set("the file .farm/stop")
        if self.flag.is_set() and not self._told:
            self._told = True
            self.tell_workers()
        return self.flag.is_set()

    def tell_workers(self) -> None:
        """Leave the file at which the workers of this sweep look."""
        self._mark.touch(mode=0o600)

    def forget(self) -> None:
        """Remove that file; the workers are gone."""
        self._mark.unlink(missing_ok=True)

    @contextmanager
    def waiting_for_user(self) -> Iterator[None]:
        """In this block, a signal interrupts: the user's iterable may take hours for its next item."""
        self._waiting = True
        try:
            yield
        finally:
            self._waiting = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._signals += 1
        name = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
        self.flag.set(name if self._signals == 1 else f"{name} twice", now=self._signals > 1)
        self.tell_workers()  # at once: the loop may look around only when the next task has begun
        if self._waiting:
            self._waiting = False
            raise KeyboardInterrupt
        if self._signals == 2:
            self._end_now()
        elif self._signals > 2:
            raise KeyboardInterrupt
