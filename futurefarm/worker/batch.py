"""The tasks of one chunk, from the first that runs to the receipt."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from ..errors import FutureFarmError
from ..task import MAX_FAILED, Outcome, Receipt, Task

if TYPE_CHECKING:
    from .crew import Crew
    from .seat import Seat

__all__ = ["Batch"]

COMMIT_AFTER = 0.05
"""Seconds of finished work after which a worker commits, in the middle of a chunk."""

CHUNK_LIMIT = 0.5
"""Seconds after which a worker hands back the rest of a chunk, so that another one may take it."""


class Batch:
    """The finished tasks of a chunk that are not committed yet."""

    def __init__(self, crew: Crew) -> None:
        self.crew = crew
        self._outcomes: list[Outcome] = []
        self._unsent: list[Outcome] = []
        self._since = 0.0
        self._lock = threading.Lock()
        self._session: str | None = None

    def run(self, seat: Seat, tasks: list[Task]) -> Receipt:
        begun = time.perf_counter()
        failed: list[int] = []
        final: list[int] = []
        ended = 0
        crew = self.crew
        crew.pending[id(self)] = self
        for offset, task in enumerate(tasks):
            now = time.perf_counter()
            full = now - begun > CHUNK_LIMIT or len(failed) + len(final) == MAX_FAILED
            if crew.stopped() or (offset and full):
                break
            if self._outcomes and now - self._since > COMMIT_AFTER:
                self.flush()
            outcome = seat.run(task)
            with self._lock:
                if not self._outcomes:
                    self._since = now
                self._outcomes.append(outcome)
            if outcome.status == "stopped":  # its attempt is on record, but the task is still to be done
                break
            ended += 1
            if outcome.status != "ok":
                (failed if seat.may_try_again else final).append(offset)
        self.flush()
        seconds = time.perf_counter() - begun
        return Receipt(ended, tuple(failed), tuple(final), seconds, self._session, tuple(self._unsent))

    def flush(self) -> None:
        """Commit what has finished."""
        with self._lock:
            outcomes, self._outcomes = self._outcomes, []
            if not outcomes:
                return
            if self.crew.sees:
                try:
                    self._session = self.crew.commit(outcomes)
                    return
                except FutureFarmError:
                    pass  # the parent commits through another session, or reports why it cannot
            self._unsent += outcomes

    def flush_if_older(self, seconds: float) -> None:
        if self._outcomes and time.perf_counter() - self._since > seconds:
            self.flush()
