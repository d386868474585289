"""Results that cannot be stored, because the disk is full or the directory cannot be written any more."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..errors import SessionError, StorageFullError, UnstoredError
from ..task import Outcome
from ..worker import Patience, commit

if TYPE_CHECKING:
    from .sweep import Sweep

__all__ = ["Shortage"]

NAMED = 10
"""Tasks that the text of the error names; its attribute has all of them."""


class Shortage:
    """Remembers what could not be stored, and ends the sweep when it is clear that it cannot be.

    A worker waits for space itself, with what it has computed. Here is what remains when it waited in vain,
    and the waiting for what only this process can commit.
    """

    def __init__(self, sweep: Sweep) -> None:
        self._sweep = sweep
        self._tasks: list[int] = []
        self._cause: SessionError | None = None

    def commit(self, outcomes: Sequence[Outcome]) -> bool:
        """Commit through the session of this process, waiting while the disk is full; say whether it did."""
        sweep = self._sweep
        patience = Patience(sweep.plan.job.full_wait, sweep.stop.is_set)

        def tell(waiting: bool) -> None:
            if waiting:
                sweep.progress.say_that_the_disk_is_full(len(outcomes))

        try:
            left = list(outcomes)
            sweep.sessions.add(patience.store(lambda: commit(sweep.payload, left), tell))
        except SessionError as error:
            self.note([outcome.task.number for outcome in outcomes], error)
            return False
        return True

    def note(self, tasks: Sequence[int], cause: SessionError | None = None) -> None:
        """Note tasks that ended and are not stored; no task is begun any more, and nobody waits longer."""
        self._tasks += tasks
        self._cause = self._cause or cause
        self._sweep.scheduler.stop()
        self._sweep.stop.tell_workers()

    @property
    def error(self) -> UnstoredError | None:
        """The error with which the sweep ends, if anything could not be stored."""
        if not self._tasks:
            return None
        path = self._sweep.plan.dataman.basepath
        tasks = tuple(sorted(self._tasks))
        some = ", ".join(map(str, tasks[:NAMED])) + (", ..." if len(tasks) > NAMED else "")
        full = self._cause is None or isinstance(self._cause, StorageFullError)
        why = "the disk or the quota is full" if full else self._cause
        error = (StorageFullError if full else UnstoredError)(
            f"the results of {len(tasks)} tasks could not be stored in {path}: {why}. They are tasks {some}. "
            f"All that was stored before is intact. {'Free space' if full else 'Mend that'} and make the "
            f"same call with resume=True: it runs these tasks again, and what is missing.",
            path=path,
            errno=getattr(self._cause, "errno", None) or (errno.ENOSPC if full else None),
            tasks=tasks,
        )
        error.__cause__ = self._cause
        return error
