"""What to do when an engine breaks: find out what was committed, who is to blame, and go on."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from ..errors import BrokenExecutorError
from ..scheduler import Ended
from ..status import clear, this_process
from ..stop import kill
from ..task import Outcome, Task

if TYPE_CHECKING:
    from .sweep import Sweep

__all__ = ["Rescue"]

MAX_BREAKDOWNS = 3
"""Times in a row that an engine may break without a single task ending."""

UNNOTICED = 1.5
"""Seconds after which a worker's death that its engine did not notice counts as a breakdown."""

GRACE = 0.5
"""Seconds for receipts that are on their way when the engine breaks."""


class Rescue:
    """Looks after the engine of a sweep."""

    def __init__(self, sweep: Sweep) -> None:
        self._sweep = sweep
        self._breakdowns = 0
        self._death_seen: float | None = None

    def forget_breakdowns(self) -> None:
        """A task has ended: the engine works."""
        self._breakdowns = 0

    def engine_failed(self, ticket: int, error: BaseException) -> None:
        """A future ended by an exception, always the engine's: go on without that chunk, or remake."""
        if not self._sweep.pool.accepts():
            self.remake(error, ticket)
            return
        statuses, begun = self._left_by_the_dead()
        self._judge(*self._sweep.scheduler.lost_one(ticket, statuses, begun), error)

    def look_for_silent_death(self) -> None:
        """A worker may die so that its engine waits for ever, while it takes or sends what is large."""
        if not any(worker.task is not None and not worker.alive for worker in self._sweep.workers()):
            self._death_seen = None
        elif self._death_seen is None:
            self._death_seen = time.monotonic()
        elif time.monotonic() - self._death_seen > UNNOTICED:
            self.remake(BrokenExecutorError("a worker died, and its engine did not notice"))

    def remake(self, error: BaseException, ticket: int | None = None) -> None:
        """Make the engine again. What dead workers had committed counts; what they were running is suspect.

        Raises:
            BrokenExecutorError: it was passed as an instance, or breaks again and again.
        """
        sweep, engine = self._sweep, self._sweep.plan.engine.name
        self._take_receipts(GRACE, {ticket})
        self._breakdowns += 1
        if sweep.pool.can_be_remade:
            self._kill_workers()
            sweep.pool.give_up()
        statuses, begun = self._left_by_the_dead()
        clear(sweep.pages)
        self._death_seen = None
        self._judge(*sweep.scheduler.lost(statuses, begun), error)
        if not sweep.pool.can_be_remade:
            raise BrokenExecutorError(
                f"the executor broke, and as it was passed as an instance it cannot be made again ({error}). "
                f"What had finished is stored. Pass a factory, for example lambda n: {engine}(n), and make "
                f"the same call with resume=True."
            ) from error
        if self._breakdowns > MAX_BREAKDOWNS:
            raise BrokenExecutorError(
                f"the executor {engine!r} broke {self._breakdowns} times in a row, and no task ended in "
                f"between ({error}). What had finished is stored; the same call with resume=True goes on "
                f"from there."
            ) from error

    def end_workers(self) -> None:
        """End running tasks at once; what has been committed will be counted."""
        self._take_receipts(0.0, set())
        if self._sweep.pool.can_be_remade:
            self._kill_workers()

    def count_unacknowledged(self) -> None:
        """Count what workers had committed and nobody was told of, after they were ended."""
        statuses, _ = self._left_by_the_dead()
        ended, _ = self._sweep.scheduler.lost(statuses, ())
        self._sweep.count(ended)

    def _take_receipts(self, seconds: float, failed: set[int | None]) -> None:
        """Take the receipts that have come, or come within some seconds; no longer than any can come."""
        sweep = self._sweep
        deadline = time.monotonic() + seconds
        while not failed.issuperset(sweep.scheduler.running):
            event = sweep.pool.next_event(max(0.0, deadline - time.monotonic()))
            if event is None:
                return
            if event.receipt is not None:
                sweep.take(event.ticket, event.receipt)
            else:
                failed.add(event.ticket)

    def _left_by_the_dead(self) -> tuple[dict[tuple[int, int], str], set[int] | None]:
        """Return what was committed and not acknowledged, and which tasks the dead were running, if known."""
        sweep = self._sweep
        # From the first row on: a session that threads share has unanswered rows below answered ones.
        running = sweep.scheduler.numbers
        statuses = {}
        for session, number, attempt, status in sweep.plan.dataman.ended(sweep.name):
            sweep.sessions.add(session)
            if number in running:
                statuses[number, attempt] = status
        begun = {worker.task for worker in sweep.workers() if worker.task is not None and not worker.alive}
        return statuses, begun or None

    def _judge(self, ended: Ended, given_up: list[Task], error: BaseException) -> None:
        self._sweep.count(ended)
        if given_up:
            host, pid, _ = this_process()
            text = f"the worker died while it ran this task ({type(error).__name__}: {error})"[:2000]
            crashed = [
                Outcome(task, "crashed", None, text, None, host, pid, time.time(), 0.0, None)
                for task in given_up
            ]
            self._sweep.commit(crashed)
            self._sweep.count(Ended(0, len(given_up)))
            self._breakdowns = 0

    def _kill_workers(self) -> None:
        """Kill the processes that this one's engine has made; those of other engines are not ours to kill."""
        for worker in self._sweep.workers():
            if worker.leashed and worker.local and worker.pid != os.getpid():
                kill(worker.pid)
        deadline = time.monotonic() + 1.0
        while time.monotonic() < deadline and any(w.leashed and w.alive for w in self._sweep.workers()):
            time.sleep(0.005)
