"""Stopping a sweep: by code, Ctrl-C, a signal, or a file."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType, TracebackType
from typing import Any

from .directory import Directory, stop_mark
from .smallfile import touch

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
            self.reason = str(reason)
        self.now |= bool(now)

    def is_set(self) -> bool:
        """Whether the sweep was asked to stop."""
        return self.reason is not None


class Listener:
    """Sets a flag when the user asks for it in any way; a context manager for the time of a sweep.

    Signals only set flags, so nothing is cut off in the middle of a commit. In the main thread

    * Ctrl-C stops the sweep, a second one ends running tasks at once, a third one is KeyboardInterrupt;
    * SIGTERM and SIGHUP end running tasks at once, and when all is put in order they are sent again, for
      whoever handled them before: by default the program dies by them, as its shell or batch system expects.

    A signal that is ignored (``nohup``) stays ignored. In another thread, the end of the program counts.

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
        self._ready = self._mark.with_name(f"{self._mark.name}.ready")
        self._end_now = end_now
        self._clock = clock
        self._seen = seen
        self._looked = -LOOK
        self._told = False
        self._presses = 0
        self._handlers: dict[int, Any] = {}
        self._waiting = False
        self._ending = False
        self.owed: int | None = None
        """The signal that is sent again when the sweep is over."""

    def __enter__(self) -> Listener:
        touch(self._ready)
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                before = signal.getsignal(number)
                if before not in (signal.SIG_IGN, None):  # None: handled by what is not Python
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
        if self.owed is not None:
            signal.raise_signal(self.owed)

    def is_set(self) -> bool:
        """Whether the sweep is to stop; tells the workers when it is."""
        self._stay_in_charge()
        if not self.flag.is_set() and self._clock() - self._looked >= LOOK:
            self._looked = self._clock()
            self._look()
        if self.flag.is_set() and not self._told:
            self._told = True
            self.tell_workers()
        return self.flag.is_set()

    def _look(self) -> None:
        mark = stop_mark(self._directory.stop)
        if mark is not None and mark != self._seen:
            self.flag.set("the file .farm/stop")
        if _program_ends():
            self.flag.set("the end of the program", now=threading.current_thread().daemon)

    def tell_workers(self) -> None:
        """Leave the file at which the workers of this sweep look.

        It was made in advance, as this may have to be done on a full disk, and in a signal handler.
        """
        with suppress(OSError):  # told already; or the directory is gone, and nobody can be told
            os.replace(self._ready, self._mark)

    def forget(self) -> None:
        """Remove that file; the workers are gone."""
        with suppress(OSError):
            self._ready.unlink(missing_ok=True)
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
        self._note(number)
        self.tell_workers()  # at once: the loop may look around only when the next task has begun
        if self._waiting:
            self._waiting = False
            raise KeyboardInterrupt
        if self._ending:  # the second one is being obeyed at this moment, and is not to be cut short
            return
        if self._presses > 2:
            raise KeyboardInterrupt
        if self.flag.now:
            self._ending = True
            try:
                self._end_now()
            finally:
                self._ending = False

    def _note(self, number: int) -> None:
        if number == signal.SIGINT:
            self._presses += 1
            self.flag.set("Ctrl-C twice" if self._presses > 1 else "Ctrl-C", now=self._presses > 1)
        else:
            self.owed = self.owed or number
            self.flag.set(signal.Signals(number).name, now=True)


def _program_ends() -> bool:
    """Whether Python is about to end: engines then take no more tasks, and it waits for what they run.

    Python says so publicly only after that wait.
    """
    return getattr(threading, "_SHUTTING_DOWN", False) or not threading.main_thread().is_alive()


_SIGNALS = [signal.SIGINT, signal.SIGTERM] + ([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])
