"""What to submit next: a state machine without input or output.

It pulls tasks from an iterator only as they are needed, packs small ones into chunks, tries failed ones
again, and runs suspects alone after a worker died, so that only the culprit is blamed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Container, Iterator, Mapping
from typing import NamedTuple

from .task import Receipt, Task

__all__ = ["Ended", "Scheduler"]

AIM = 0.05
"""Seconds of work in a chunk: enough that a future's cost vanishes, little enough to lose in a crash."""

MAX_CHUNK = 4096

EVIDENCE = 16
"""Tasks that must have ended for each task in a chunk: a slow one among them keeps the others waiting."""


class Ended(NamedTuple):
    """What an event adds to the sweep's counts."""

    done: int = 0
    failed: int = 0


class Scheduler:
    """Decides what is submitted.

    Args:
        tasks: the tasks of the sweep, lazily.
        window: how many chunks are submitted at a time.
        total: the number of tasks, if it is known; then the last chunks are made small enough to share.
        retries: how often a failed task is tried again.
        crash_limit: how many workers a task may kill before it is given up.
        stop_on_failure: submit nothing more once a task has failed for good.
    """

    def __init__(
        self,
        tasks: Iterator[Task],
        *,
        window: int,
        total: int | None = None,
        retries: int = 0,
        crash_limit: int = 2,
        stop_on_failure: bool = False,
    ) -> None:
        self._tasks = tasks
        self._total = total
        self._retries = retries
        self._crash_limit = crash_limit
        self._stop_on_failure = stop_on_failure
        self._window = window
        self._again: deque[Task] = deque()
        self._suspects: deque[Task] = deque()
        self._deaths: dict[int, int] = {}
        self._size = 1
        self._pulled = 0
        self._ended = 0
        self._running: dict[int, list[Task]] = {}
        self._alone = False
        self.exhausted = False
        self.stopped = False

    @property
    def running(self) -> Collection[int]:
        """The tickets of the chunks that are submitted."""
        return self._running.keys()

    @property
    def numbers(self) -> set[int]:
        """The numbers of the tasks that are submitted."""
        return {task.number for chunk in self._running.values() for task in chunk}

    @property
    def waiting(self) -> int:
        """The number of tasks that were pulled and are not submitted."""
        return len(self._again) + len(self._suspects)

    @property
    def finished(self) -> bool:
        """Whether nothing runs and nothing more will be submitted."""
        return not self._running and (self.stopped or (self.exhausted and not self.waiting))

    def stop(self) -> None:
        """Submit nothing more."""
        self.stopped = True

    def next_chunk(self) -> list[Task] | None:
        """Return what to submit now, or None if that has to wait for an event."""
        if self.stopped or len(self._running) >= self._window or self._alone:
            return None
        if self._suspects:
            return [self._suspects.popleft()] if not self._running else None
        chunk = self._pull(self._chunk_size())
        return chunk or None

    def _chunk_size(self) -> int:
        if self._total is None:
            return self._size
        left = max(0, self._total - self._pulled) + len(self._again)
        return max(1, min(self._size, -(-left // self._window)))

    def _pull(self, size: int) -> list[Task]:
        chunk: list[Task] = []
        while self._again and len(chunk) < size:
            chunk.append(self._again.popleft())
        while not self.exhausted and len(chunk) < size:
            task = next(self._tasks, None)
            if task is None:
                self.exhausted = True
                break
            self._pulled += 1
            chunk.append(task)
        return chunk

    def submitted(self, ticket: int, chunk: list[Task]) -> None:
        """Note that a chunk from `next_chunk` was submitted."""
        self._running[ticket] = chunk
        self._alone = chunk[0].number in self._deaths

    def refused(self, chunk: list[Task]) -> None:
        """Note that a chunk could not be submitted; it comes again."""
        if chunk[0].number in self._deaths:
            self._suspects.appendleft(chunk[0])
        else:
            self._again.extendleft(reversed(chunk))

    def ended(self, ticket: int, receipt: Receipt) -> Ended:
        """Note a receipt: count, try again what failed, and put back what was not begun."""
        chunk = self._running.pop(ticket)
        self._alone = False
        self._again.extendleft(reversed(chunk[receipt.ended :]))
        self._adapt(receipt)
        failed = sum(self._failed(chunk[offset]) for offset in receipt.failed)
        return Ended(receipt.ended - len(receipt.failed), failed)

    def _failed(self, task: Task) -> bool:
        if task.attempt <= self._retries:
            self._again.append(task._replace(attempt=task.attempt + 1))
            return False
        if self._stop_on_failure:
            self.stop()
        return True

    def _adapt(self, receipt: Receipt) -> None:
        if receipt.ended:
            self._ended += receipt.ended
            fitting = int(AIM * receipt.ended / max(receipt.seconds, 1e-9))
            self._size = max(1, min(fitting, self._ended // EVIDENCE, MAX_CHUNK))

    def lost(
        self, statuses: Mapping[tuple[int, int], str], begun: Container[int] | None
    ) -> tuple[Ended, list[Task]]:
        """Note that the engine broke: no receipt will come for anything that runs.

        Args:
            statuses: how tasks ended that were committed all the same, by (number, attempt).
            begun: numbers of the tasks that dead workers were running, or None if that is not known.

        Returns:
            What was committed, and the tasks that are given up, because each killed too many workers.
        """
        alone = self._alone
        done = failed = 0
        suspects: list[Task] = []
        for chunk in self._running.values():
            for task in chunk:
                status = statuses.get((task.number, task.attempt))
                if status == "ok":
                    done += 1
                elif status is not None:
                    failed += self._failed(task)
                elif begun is None or task.number in begun or alone:
                    suspects.append(task)
                else:
                    self._again.append(task)
        self._running.clear()
        self._alone = False
        self._size = 1
        return Ended(done, failed), self._judge(suspects)

    def lost_one(
        self, ticket: int, statuses: Mapping[tuple[int, int], str], begun: Container[int] | None
    ) -> tuple[Ended, list[Task]]:
        """Note that the engine failed to run one chunk and goes on with the others."""
        others = {other: chunk for other, chunk in self._running.items() if other != ticket}
        self._running = {ticket: self._running[ticket]}
        result = self.lost(statuses, begun)
        self._running.update(others)
        return result

    def _judge(self, suspects: list[Task]) -> list[Task]:
        """A single suspect is the culprit; several run again one at a time, until one of them is."""
        given_up = []
        for task in suspects:
            deaths = self._deaths.get(task.number, 0) + (len(suspects) == 1)
            self._deaths[task.number] = deaths
            if deaths >= self._crash_limit:
                given_up.append(task)
                if self._stop_on_failure:
                    self.stop()
            else:
                self._suspects.append(task)
        return given_up
