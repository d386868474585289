"""The scheduler decides without input or output, so every case can be played through by hand."""

from __future__ import annotations

import itertools

import pytest

from futurefarm.scheduler import MAX_CHUNK, Ended, Scheduler
from futurefarm.task import Receipt, Task


def tasks(number: int):
    return (Task(n, bytes([n % 256]), 0, 1, b"") for n in range(number))


def receipt(ended: int, failed: tuple[int, ...] = (), seconds: float = 0.001) -> Receipt:
    return Receipt(ended, failed, seconds, "session")


class Play:
    """A scheduler with an engine that answers when it is told to."""

    def __init__(self, tasks, **options):
        self.scheduler = Scheduler(tasks, **{"window": 4, **options})
        self.tickets = itertools.count(1)
        self.running: dict[int, list[int]] = {}

    def submit(self) -> list[list[int]]:
        """Submit all that may be; return the numbers of the tasks of each chunk."""
        chunks = []
        while (chunk := self.scheduler.next_chunk()) is not None:
            ticket = next(self.tickets)
            self.scheduler.submitted(ticket, chunk)
            self.running[ticket] = [task.number for task in chunk]
            chunks.append(self.running[ticket])
        return chunks

    def end_first(
        self, failed: tuple[int, ...] = (), seconds: float = 0.001, ended: int | None = None
    ) -> Ended:
        ticket = next(iter(self.running))
        chunk = self.running.pop(ticket)
        return self.scheduler.ended(ticket, receipt(len(chunk) if ended is None else ended, failed, seconds))

    def lose(self, begun=None, statuses=None):
        self.running.clear()
        return self.scheduler.lost(statuses or {}, begun)


def test_as_many_chunks_are_in_flight_as_the_window_takes():
    play = Play(tasks(100))

    assert [[0], [1], [2], [3]] == play.submit()
    assert [] == play.submit()


def test_items_are_pulled_only_when_they_are_submitted():
    pulled = []
    play = Play(task for task in tasks(100) if not pulled.append(task.number))
    play.submit()

    assert [0, 1, 2, 3] == pulled


def test_quick_tasks_travel_in_ever_larger_chunks():
    play = Play(tasks(10_000_000))
    sizes = []
    for _ in range(300):
        play.submit()
        sizes.append(len(next(iter(play.running.values()))))
        play.end_first(seconds=1e-5 * sizes[-1])

    assert [1] * 16 == sizes[:16], "a few quick tasks prove nothing about the next ones"
    assert sorted(sizes) == sizes
    assert MAX_CHUNK == max(sizes)


def test_slow_tasks_travel_alone():
    play = Play(tasks(100))
    for _ in range(10):
        play.submit()
        play.end_first(seconds=1.0)

    assert {1} == {len(chunk) for chunk in play.running.values()}


def test_chunks_shrink_at_once_when_tasks_become_slow():
    play = Play(tasks(10_000_000))
    for _ in range(100):
        play.submit()
        play.end_first(seconds=1e-4)
    play.submit()
    play.end_first(seconds=3600.0)

    assert [1] == [len(chunk) for chunk in play.submit()]


def test_the_last_tasks_are_shared_among_the_workers():
    play = Play(tasks(1000), total=1000)
    while play.submit():
        play.end_first(seconds=1e-6)
        remaining = [len(chunk) for chunk in play.running.values()]

    assert 1 == remaining[-1]


def test_counts_are_what_receipts_say():
    play = Play(tasks(4))
    play.submit()

    assert Ended(1, 0) == play.end_first()
    assert Ended(0, 1) == play.end_first(failed=(0,))


def test_what_a_worker_did_not_begin_comes_again_first():
    play = Play(tasks(1000))
    for _ in range(100):
        play.submit()
        play.end_first(seconds=1e-4)
    play.submit()
    chunk = next(iter(play.running.values()))
    play.end_first(ended=1)

    assert chunk[1] == play.submit()[0][0]


def test_failed_tasks_are_tried_again_as_often_as_asked():
    play = Play(tasks(1), retries=2)
    ends = []
    while play.submit():
        ends.append(play.end_first(failed=(0,)))

    assert [Ended(0, 0), Ended(0, 0), Ended(0, 1)] == ends
    assert play.scheduler.finished


def test_a_failure_can_stop_everything():
    play = Play(tasks(100), stop_on_failure=True)
    play.submit()
    play.end_first(failed=(0,))

    assert [] == play.submit()
    assert not play.scheduler.finished
    while play.running:
        play.end_first()
    assert play.scheduler.finished


def test_a_stop_lets_running_chunks_end():
    play = Play(tasks(100))
    play.submit()
    play.scheduler.stop()

    assert [] == play.submit()
    assert Ended(1, 0) == play.end_first()


def test_after_a_breakdown_only_tasks_that_were_running_are_suspect():
    play = Play(tasks(8))
    play.submit()
    ended, given_up = play.lose(begun={0, 1})

    assert (Ended(0, 0), []) == (ended, given_up)
    assert [[0]] == play.submit(), "a suspect runs alone"
    play.end_first(seconds=1)
    assert [[1]] == play.submit(), "and so does the next one"
    play.end_first(seconds=1)
    assert [[2], [3], [4], [5]] == play.submit()


def test_after_a_breakdown_committed_tasks_count_and_do_not_run_again():
    play = Play(tasks(4))
    play.submit()
    ended, _ = play.lose(begun={3}, statuses={(0, 1): "ok", (1, 1): "error"})

    assert Ended(1, 1) == ended
    assert [[3]] == play.submit()
    play.end_first()
    assert [[2]] == play.submit()


def test_where_nobody_knows_what_ran_everything_in_flight_is_suspect():
    play = Play(tasks(4))
    play.submit()
    play.lose(begun=None)

    assert [[0]] == play.submit()


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_a_culprit_is_given_up_when_it_has_killed_its_workers(limit):
    play = Play(tasks(3), crash_limit=limit)
    play.submit()
    deaths = 0
    given_up = []
    while not given_up:
        _, given_up = play.lose(begun={1})
        deaths += 1
        play.submit()

    assert (limit, [1]) == (deaths, [task.number for task in given_up])
    while play.running:
        play.end_first()
        play.submit()
    assert play.scheduler.finished


def test_the_innocent_are_cleared():
    play = Play(tasks(4))
    play.submit()
    play.lose(begun={0, 1})
    play.submit()
    play.end_first()  # task 0, alone, does no harm
    play.submit()
    _, given_up = play.lose(begun={1})

    assert [] == given_up, "one death alone; the first one may have been task 0's doing"
    play.submit()
    _, given_up = play.lose(begun={1})
    assert [1] == [task.number for task in given_up]


def test_a_single_lost_chunk_leaves_the_others_running():
    play = Play(tasks(4))
    play.submit()
    ticket = next(iter(play.running))
    del play.running[ticket]
    play.scheduler.lost_one(ticket, {}, {0})

    assert 3 == len(play.scheduler.running)
    assert [] == play.submit(), "the suspect waits until it is alone"
    for _ in range(3):
        play.end_first()
    assert [[0]] == play.submit()
