"""What to do when workers die: find out what was committed, who is to blame, and go on."""

from __future__ import annotations

import os
import time
from collections.abc import Container, Sequence
from typing import TYPE_CHECKING, Literal

from ..errors import BrokenExecutorError, WorkerDiedError
from ..scheduler import Ended, Lost
from ..status import Worker, bury, this_process
from ..task import Outcome, Task
from ..worker import kill, output_of

if TYPE_CHECKING:
    from .sweep import Sweep

__all__ = ["UNSENT", "Rescue"]

UNSENT = -1
"""The ticket of a chunk that the engine refused. It may have begun it all the same; nobody is to blame."""

MAX_BREAKDOWNS = 3
"""Times in a row that workers may die without a single task ending, or being to blame."""

UNNOTICED = 1.5
"""Seconds after which a worker's death that its engine did not notice counts as a breakdown."""

GRACE = 0.5
"""Seconds for receipts that are on their way when the engine breaks."""


class Rescue:
    """Looks after the workers of a sweep."""

    def __init__(self, sweep: Sweep) -> None:
        self._sweep = sweep
        self._breakdowns = 0
        self._death_seen: float | None = None

    def forget_breakdowns(self) -> None:
        """A task has ended: the engine works."""
        self._breakdowns = 0

    # -- an engine loses something

    def engine_failed(self, ticket: int, error: BaseException) -> None:
        """A future ended by an exception, always the engine's: go on without that chunk, or remake."""
        if isinstance(error, WorkerDiedError):
            self._lose(ticket, error, [w for w in self._sweep.workers() if w.local and w.pid == error.pid])
        elif self._sweep.pool.accepts():
            self._lose(ticket, error, [worker for worker in self._sweep.workers() if not worker.alive])
        else:
            self.remake(error, ticket)

    def _lose(self, ticket: int, error: BaseException, dead: list[Worker]) -> None:
        """One chunk is lost with its worker."""
        sweep = self._sweep
        self._breakdowns += 1
        begun, late = self._what_ran(dead)
        if isinstance(error, WorkerDiedError) and not any(worker.began for worker in dead):
            begun = ()  # it died while it started, or loaded the function, so no task is to blame
        lost = sweep.scheduler.lost_one(ticket, self._committed(), begun, late, time.monotonic())
        self._book(lost, error, dead)
        if self._breakdowns > MAX_BREAKDOWNS:
            raise self._broken(error, dead)
        bury(sweep.pages, dead)

    def look_around(self) -> None:
        """A worker may die so that its engine waits for ever, while it takes or sends what is large."""
        if self._sweep.pool.check():
            return
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
        sweep = self._sweep
        self._take_receipts(GRACE, {ticket})
        self._breakdowns += 1
        if sweep.pool.can_be_remade:
            self._kill_workers()
            sweep.pool.give_up()
        if ticket == UNSENT:
            sweep.count(sweep.scheduler.lost_one(ticket, self._committed(), ()).ended)
        dead = [worker for worker in sweep.workers() if not worker.alive]
        begun, late = self._what_ran(dead)
        lost = sweep.scheduler.lost_all(self._committed(), begun, late, time.monotonic())
        self._death_seen = None
        self._book(lost, error, dead)
        bury(sweep.pages, dead)
        if not sweep.pool.can_be_remade:
            raise BrokenExecutorError(
                f"the executor broke, and as it was passed as an instance it cannot be made again ({error}). "
                f"What had finished is stored. Pass a factory, for example lambda n: "
                f"{sweep.plan.engine.name}(n), and make the same call with resume=True."
            ) from error
        if self._breakdowns > MAX_BREAKDOWNS:
            raise self._broken(error, dead)

    def _broken(self, error: BaseException, dead: Sequence[Worker]) -> BrokenExecutorError:
        broken = BrokenExecutorError(
            f"the executor {self._sweep.plan.engine.name!r} broke {self._breakdowns} times in a row, and no "
            f"task ended in between ({error}). What had finished is stored; the same call with resume=True "
            f"goes on from there."
        )
        broken.__cause__ = error
        if not dead:  # none left a page
            broken.add_note(
                "No worker came as far as a task; what they wrote to standard error says why. Workers import "
                "the script that starts them: put what it does under: if __name__ == '__main__':"
            )
        for printed in filter(None, (output_of(self._sweep.pages, worker.number) for worker in dead)):
            broken.add_note(f"The worker printed:\n{printed}")
        return broken

    # -- the end of a sweep

    def end_workers(self) -> None:
        """End running tasks at once; what has been committed will be counted."""
        self._take_receipts(0.0, set())
        if self._sweep.pool.can_be_remade:
            self._kill_workers()

    def count_unacknowledged(self) -> None:
        """Count what workers had committed and nobody was told of, after they were ended."""
        self._sweep.count(self._sweep.scheduler.lost_all(self._committed(), ()).ended)

    # -- what is known

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

    def _committed(self) -> dict[tuple[int, int], str]:
        """Return how tasks ended that are in flight and yet committed, by (number, attempt)."""
        sweep = self._sweep
        running = sweep.scheduler.numbers
        statuses = {}
        for session, number, attempt, status in sweep.plan.dataman.ended(sweep.name, running):
            sweep.sessions.add(session)
            statuses[number, attempt] = status
        return statuses

    def _what_ran(self, dead: Sequence[Worker]) -> tuple[Container[int] | None, set[int]]:
        """Return the numbers of the tasks that dead workers were running, and of those that were too late.

        The first is None if it is not known: there is no page, or one that shows a worker between two
        tasks, which may have died of storing what it had.
        """
        struck = self._sweep.deadline.struck
        late = {worker.task for worker in dead if worker.task is not None and struck(worker) == worker.task}
        begun = {worker.task for worker in dead if worker.task is not None and struck(worker) is None}
        if not begun and not any(struck(worker) is not None for worker in dead):
            return None, late
        return begun, late

    # -- what is recorded

    def _book(self, lost: Lost, error: BaseException, dead: Sequence[Worker]) -> None:
        """Count what was committed, record who crashed or was too late, and count that."""
        sweep, now = self._sweep, time.monotonic()
        sweep.count(lost.ended)
        pages = {worker.task: worker for worker in dead}
        text = f"it ran longer than timeout={sweep.plan.job.timeout!r} allows, and was ended"
        crashed = [self._outcome(task, "crashed", _cause(error), pages) for task in lost.blamed]
        late = [self._outcome(task, "timeout", text, pages) for task in lost.late]
        if not crashed and not late:
            return
        self.forget_breakdowns()
        if not sweep.shortage.commit(crashed + late):
            return
        for task in lost.blamed:
            sweep.count(sweep.scheduler.crashed(task))
        for task in lost.late:
            sweep.count(Ended(0, sweep.scheduler.timed_out(task, now).failed))

    def _outcome(
        self,
        task: Task,
        status: Literal["crashed", "timeout"],
        text: str,
        pages: dict[int | None, Worker],
    ) -> Outcome:
        """Return the outcome of a task whose worker is gone; its page still tells of it."""
        page = pages.get(task.number)
        if page is None:
            host, pid, _ = this_process()
            return Outcome(task, status, None, text, None, host, pid, time.time(), 0.0, None)
        if page.memory is not None:
            text = f"{text.rstrip('.')}. It had used {page.memory / 1e6:,.0f} MB of memory at most."
        seconds = max(0.0, time.time() - page.since)
        printed = output_of(self._sweep.pages, page.number)
        return Outcome(task, status, None, text, None, page.host, page.pid, page.since, seconds, printed)

    def _kill_workers(self) -> None:
        """Kill the processes that this one's engine has made; those of other engines are not ours to kill."""
        for worker in self._sweep.workers():
            if worker.leashed and worker.local and worker.pid != os.getpid():
                kill(worker.pid)
        deadline = time.monotonic() + 1.0
        while time.monotonic() < deadline and any(w.leashed and w.alive for w in self._sweep.workers()):
            time.sleep(0.005)


def _cause(error: BaseException) -> str:
    if isinstance(error, WorkerDiedError):
        return error.message
    return f"the worker died while it ran this task ({type(error).__name__}: {error})"[:2000]
