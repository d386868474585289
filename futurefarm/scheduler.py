"""What to submit next: a state machine without input or output.

It pulls tasks from an iterator only as they are needed, packs small ones into chunks, tries failed ones
again, and runs suspects alone after a worker died, so that only the culprit is blamed.
"""

from __future__ import annotations

import heapq
from collections import Counter, deque
from collections.abc import Collection, Container, Iterator, Mapping
from itertools import islice
from typing import NamedTuple

from .task import Receipt, Task

__all__ = ["Ended", "Lost", "Scheduler"]

AIM = 0.1
"""Seconds of work in a chunk: what it costs, 2 ms of computing and 2 of waiting, is little beside that."""

MAX_CHUNK = 4096

EVIDENCE = 4
"""Tasks that must have ended for each task in a chunk: a slow one among them keeps the others waiting."""

MAX_BACKOFF = 60.0
"""Seconds that a task waits at most before it is tried again."""


class Ended(NamedTuple):
    """What an event adds to the sweep's counts."""

    done: int = 0
    failed: int = 0


class Lost(NamedTuple):
    """What became of tasks for which no receipt will come.

    ``blamed`` each killed its worker, and ``late`` were ended because of their time limit. That has to be
    recorded, and then be told by `Scheduler.crashed` and `Scheduler.timed_out`.
    """

    ended: Ended
    blamed: list[Task]
    late: list[Task]


class Scheduler:
    """Decides what is submitted.

    Args:
        tasks: the tasks of the sweep, lazily.
        window: how many chunks are submitted at a time.
        total: the number of tasks, if it is known; then the last chunks are made small enough to share.
        retries: how often a failed task is tried again.
        backoff: seconds before a task is tried again; they double with each failure.
        crash_limit: how many workers a task may kill before it is given up.
        max_failures: submit nothing more once so many tasks have failed for good.
    """

    def __init__(
        self,
        tasks: Iterator[Task],
        *,
        window: int,
        total: int | None = None,
        retries: int = 0,
        backoff: float = 0.0,
        crash_limit: int = 2,
        max_failures: int | None = None,
    ) -> None:
        self._tasks = tasks
        self._total = total
        self._retries = retries
        self._backoff = backoff
        self._crash_limit = crash_limit
        self._max_failures = max_failures
        self._window = window
        self._again: deque[Task] = deque()
        self._later: list[tuple[float, int, Task]] = []
        self._singles: deque[Task] = deque()
        self._suspects: deque[Task] = deque()
        self._deaths: Counter[int] = Counter()
        self._errors: Counter[int] = Counter()
        self._failures = 0
        self._size = 1
        self._pulled = 0
        self._ended = 0
        self._running: dict[int, list[Task]] = {}
        self._alone = False
        self._share_fate = False
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

    def numbers_of(self, ticket: int, receipt: Receipt) -> list[int]:
        """Return the numbers of the tasks that ended and, as the receipt says, could not be stored."""
        chunk = self._running[ticket]
        return [task.number for task in chunk[receipt.ended : receipt.ended + receipt.unstored]]

    @property
    def waiting(self) -> int:
        """The number of tasks that were pulled and are not submitted."""
        return len(self._again) + len(self._later) + len(self._singles) + len(self._suspects)

    @property
    def finished(self) -> bool:
        """Whether nothing runs and nothing more will be submitted."""
        return not self._running and (self.stopped or (self.exhausted and not self.waiting))

    @property
    def gave_up(self) -> bool:
        """Whether so many tasks failed that the others are not begun."""
        return self._max_failures is not None and self._failures >= self._max_failures

    def stop(self) -> None:
        """Submit nothing more."""
        self.stopped = True

    # -- what to submit

    def next_chunk(self, now: float = 0.0) -> list[Task] | None:
        """Return what to submit at this time, in seconds, or None if that has to wait for an event."""
        if self.stopped or len(self._running) >= self._window or self._alone:
            return None
        while self._later and self._later[0][0] <= now:
            self._again.append(heapq.heappop(self._later)[-1])
        if self._suspects:
            return [self._suspects[0]] if not self._running else None
        if self._singles:
            return [self._singles[0]]
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
        if not self.exhausted and len(chunk) < size:
            wanted = size - len(chunk)
            pulled = list(islice(self._tasks, wanted))
            self.exhausted = len(pulled) < wanted
            self._pulled += len(pulled)
            chunk += pulled
        return chunk

    def submitted(self, ticket: int, chunk: list[Task]) -> None:
        """Note that a chunk from `next_chunk` was submitted."""
        self._running[ticket] = chunk
        if self._suspects and chunk[0] is self._suspects[0]:
            self._suspects.popleft()
            self._alone = True
        elif self._singles and chunk[0] is self._singles[0]:
            self._singles.popleft()

    def refused(self, chunk: list[Task]) -> None:
        """Note that a chunk could not be submitted; it comes again."""
        if not any(queue and chunk[0] is queue[0] for queue in (self._suspects, self._singles)):
            self._again.extendleft(reversed(chunk))

    def put_back(self, tasks: list[Task]) -> None:
        """Take tasks that were pulled and not submitted; they come again."""
        self._again.extend(tasks)

    # -- how it ended

    def ended(self, ticket: int, receipt: Receipt, now: float = 0.0) -> Ended:
        """Note a receipt: count, try again what failed, and put back what was not begun."""
        chunk = self._running.pop(ticket)
        self._alone = False
        self._again.extendleft(reversed(chunk[receipt.ended :]))
        self._adapt(receipt)
        failed = sum(self._failed(chunk[offset], now) for offset in receipt.failed)
        failed += self.failed(len(receipt.final))
        return Ended(receipt.ended - len(receipt.failed) - len(receipt.final), failed)

    def failed(self, number: int) -> int:
        """Note that so many tasks have failed for good."""
        self._failures += number
        if self.gave_up:
            self.stop()
        return number

    def timed_out(self, task: Task, now: float = 0.0) -> Ended:
        """Note that a task was ended because of its time limit, and that this is recorded."""
        return Ended(0, self._failed(task, now))

    def crashed(self, task: Task) -> Ended:
        """Note that a task killed its worker, and that this is recorded."""
        self._deaths[task.number] += 1
        if self._deaths[task.number] >= self._crash_limit:
            return Ended(0, self.failed(1))
        # Where one death ends all workers, it must not run beside others: they would be suspect again.
        queue = self._suspects if self._share_fate else self._singles
        queue.append(task._replace(attempt=task.attempt + 1))
        return Ended()

    def _failed(self, task: Task, now: float) -> int:
        self._errors[task.number] += 1
        errors = self._errors[task.number]
        if errors > self._retries:
            del self._errors[task.number]
            return self.failed(1)
        due = now + min(MAX_BACKOFF, self._backoff * 2.0 ** min(errors - 1, 30))
        heapq.heappush(self._later, (due, task.number, task._replace(attempt=task.attempt + 1)))
        return 0

    def _adapt(self, receipt: Receipt) -> None:
        if receipt.ended:
            self._ended += receipt.ended
            fitting = round(AIM * receipt.ended / max(receipt.seconds, 1e-9))
            self._size = max(1, min(fitting, self._ended // EVIDENCE, MAX_CHUNK))

    # -- what was lost

    def lost_one(
        self,
        ticket: int,
        statuses: Mapping[tuple[int, int], str],
        begun: Container[int] | None,
        late: Container[int] = (),
        now: float = 0.0,
    ) -> Lost:
        """Note that the engine lost one chunk and goes on with the others.

        Args:
            ticket: of the chunk.
            statuses: how tasks ended that were committed all the same, by (number, attempt).
            begun: numbers of the tasks that dead workers were running, or None if that is not known.
            late: numbers of the tasks that were ended because of their time limit.
            now: seconds.

        Returns:
            What is to be counted and recorded. Of a chunk of which nobody knows what ran, each task
            runs in a chunk of its own next time.
        """
        self._alone = False
        ended, rest = self._settle([self._running.pop(ticket)], statuses, now)
        blamed, overdue = [], []
        for task in rest:
            if task.number in late:
                overdue.append(task)
            elif begun is None and len(rest) > 1:
                self._singles.append(task)
            elif begun is None or task.number in begun:
                blamed.append(task)
            else:
                self._again.append(task)
        return Lost(ended, blamed, overdue)

    def lost_all(
        self,
        statuses: Mapping[tuple[int, int], str],
        begun: Container[int] | None,
        late: Container[int] = (),
        now: float = 0.0,
    ) -> Lost:
        """Note that the engine broke: no receipt will come for anything that runs.

        A pool kills all its workers when one of them dies, so all that ran is suspect, and runs again
        alone. Whoever then kills its worker is to blame.
        """
        alone, self._alone = self._alone, False
        self._share_fate = True
        ended, rest = self._settle(list(self._running.values()), statuses, now)
        self._running.clear()
        self._size = 1
        overdue, suspects = [], []
        for task in rest:
            if task.number in late:
                overdue.append(task)
            elif begun is None or task.number in begun or alone:
                suspects.append(task)
            else:
                self._again.append(task)
        if len(suspects) == 1:
            return Lost(ended, suspects, overdue)
        self._suspects.extend(suspects)
        return Lost(ended, [], overdue)

    def _settle(
        self, chunks: list[list[Task]], statuses: Mapping[tuple[int, int], str], now: float
    ) -> tuple[Ended, list[Task]]:
        """Count what was committed; return it, and the tasks that were not."""
        done = failed = 0
        rest = []
        for task in (task for chunk in chunks for task in chunk):
            status = statuses.get((task.number, task.attempt))
            if status is None:
                rest.append(task)
            elif status == "ok":
                done += 1
            else:
                failed += self._failed(task, now)
        return Ended(done, failed), rest
