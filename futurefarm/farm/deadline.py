"""Ending tasks that are past their time limit."""

from __future__ import annotations

import os
import threading
import time
from types import TracebackType
from typing import TYPE_CHECKING

from ..limit import Limit
from ..status import Worker
from ..worker import kill

if TYPE_CHECKING:
    from .sweep import Sweep

__all__ = ["Deadline"]

LOOK = 0.1
"""Seconds between two looks at what runs."""

Run = tuple[int, int, int, float]
"""Process, worker, task and start: one attempt."""


class Deadline:
    """Ends the workers of tasks that are past the limit while the block runs; the engine replaces them.

    A thread looks, as the loop may wait for the user's next item. How long a task has run is measured from
    when it was first seen here, and not by the worker's clock, which may be set anew.
    """

    def __init__(self, sweep: Sweep, timeout: float | str | None) -> None:
        self._sweep = sweep
        self.limit = Limit(timeout)
        self._first_seen: dict[Run, float] = {}
        self._struck: dict[tuple[int, int], int] = {}
        self._told = False
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Deadline:
        if self.limit.timeout is not None:
            if self._sweep.plan.engine.name == "serial":  # nobody will look while a task runs
                self._say_that_it_cannot_be_ended()
            self._thread = threading.Thread(target=self._watch, name="futurefarm-deadline", daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(LOOK):
            self._look()

    def struck(self, worker: Worker) -> int | None:
        """Return the task because of which this worker was ended, or None if it was not."""
        return self._struck.get((worker.pid, worker.started))

    def _look(self) -> None:
        """End what is past the limit."""
        limit = self.limit.seconds
        if limit is None:
            return
        now = time.monotonic()
        running: dict[Run, float] = {}
        for worker in self._sweep.workers():
            if worker.task is None:
                continue
            run = worker.pid, worker.number, worker.task, worker.since
            running[run] = self._first_seen.get(run, now)
            if now - running[run] > limit and self.struck(worker) is None:
                self._strike(worker)
        self._first_seen = running

    def _strike(self, worker: Worker) -> None:
        if worker.leashed and worker.local and worker.pid != os.getpid():
            # If it is on to another task by now, its page says so when it is dead, and nobody is blamed.
            self._struck[worker.pid, worker.started] = worker.task if worker.task is not None else -1
            kill(worker.pid)
        else:
            self._say_that_it_cannot_be_ended()

    def _say_that_it_cannot_be_ended(self) -> None:
        if not self._told:
            self._told = True
            self._sweep.progress.say(
                "timeout: tasks of this executor cannot be ended from here; report.should_stop tells them "
                "when they are late, and what comes too late is refused"
            )
