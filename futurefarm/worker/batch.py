"""The tasks of one chunk, from the first that runs to the receipt."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from ..bundle import NotSeenError
from ..errors import FutureFarmError, StorageFullError
from ..task import MAX_FAILED, Outcome, Receipt, Task
from .patience import Patience

if TYPE_CHECKING:
    from .crew import Crew
    from .seat import Seat

__all__ = ["Batch"]

COMMIT_AFTER = 0.15
"""Seconds of finished work after which a worker commits, in the middle of a chunk."""

LONG, WORTH = 0.01, 10
"""A task of so many seconds, and of so many commits, is committed while the next one runs: it is dear to
do again. To wait for each commit would take 9 % of the time at 10 ms a task."""

CHUNK_LIMIT = 0.5
"""Seconds after which a worker hands back the rest of a chunk, so that another one may take it."""


class Batch:
    """The finished tasks of a chunk that are not committed yet."""

    def __init__(self, crew: Crew, seat: Seat) -> None:
        self.crew = crew
        self._seat = seat
        self._outcomes: list[Outcome] = []
        self._unsent: list[Outcome] = []
        self._since = 0.0
        self._lock = threading.Lock()
        self._session: str | None = None

    def run(self, tasks: list[Task]) -> Receipt:
        begun = now = time.perf_counter()
        failed: list[int] = []
        final: list[int] = []
        ended = 0
        there_is_space, lacks = True, False
        crew, run = self.crew, self._seat.run
        for offset, task in enumerate(tasks):
            full = now - begun > CHUNK_LIMIT or len(failed) + len(final) == MAX_FAILED
            if crew.stopped(now) or (offset and full):
                break
            try:
                outcome = run(task)
            except NotSeenError:
                lacks = True
                break
            if not self._outcomes:
                self._since = now
            self._outcomes.append(outcome)
            if outcome.status == "stopped":  # its attempt is on record, but the task is still to be done
                break
            ended += 1
            if outcome.status != "ok":
                (failed if self._seat.may_try_again else final).append(offset)
            now = time.perf_counter()
            # Work that has waited is done again if the worker is killed.
            if now - self._since > COMMIT_AFTER:
                if not (there_is_space := self._store()):
                    break
            elif outcome.seconds > LONG and outcome.seconds > WORTH * crew.commit_seconds:
                crew.commit_soon()
        if there_is_space:
            self._store()
        seconds = time.perf_counter() - begun
        unstored = len(self._outcomes)
        stored = ended - unstored
        again, over = (tuple(n for n in offsets if n < stored) for offsets in (failed, final))
        return Receipt(stored, again, over, seconds, self._session, unstored, lacks, tuple(self._unsent))

    def _store(self) -> bool:
        """Commit what has finished, waiting while the disk is full; whether that succeeded."""
        self._seat.rest()
        patience = Patience(self.crew.job.full_wait, self.crew.stopped)
        try:
            patience.store(self.flush, self._note_waiting)
        except StorageFullError:
            return False
        return True

    def _note_waiting(self, waiting: bool) -> None:
        if self._seat.page is not None:
            self._seat.page.wait(len(self._outcomes) if waiting else 0)

    def flush(self) -> None:
        """Commit what has finished.

        Raises:
            StorageFullError: there is no space; what has finished is kept.
        """
        with self._lock:
            outcomes = list(self._outcomes)  # the next task may end meanwhile
            if not outcomes:
                return
            if self.crew.sees:
                try:
                    self._session = self.crew.commit(outcomes)
                except StorageFullError:
                    self._outcomes[: len(outcomes)] = outcomes  # what is large of them may be on disk already
                    raise
                except FutureFarmError:
                    # The parent commits through a session of its own, or reports why it cannot.
                    self._unsent += map(self.crew.whole, outcomes)
            else:
                self._unsent += outcomes
            del self._outcomes[: len(outcomes)]

    def flush_if_older(self, seconds: float) -> None:
        """Commit what has waited for so long, beside the task that runs; not while the disk is full."""
        if self._outcomes and time.perf_counter() - self._since > seconds:
            with suppress(StorageFullError):
                self.flush()
            self._since = time.perf_counter()
