"""The scheduler decides without input or output, so every case can be played through by hand."""

from __future__ import annotations

import itertools

import pytest

from futurefarm.scheduler import MAX_CHUNK, Ended, Scheduler
from futurefarm.task import Receipt, Task


def tasks(number: int):
    return (Task(n, bytes([n % 256]), 0, 1, b"") for n in range(number))


def receipt(ended: int, failed: tuple[int, ...] = (), seconds: float = 0.001) -> Receipt:
    return Receipt(ended, failed, (), seconds, "session")


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

    def lose(self, begun=None, statuses=None, late=()):
        """The engine breaks; return what was committed, and the tasks that are given up."""
        self.running.clear()
        return self.book(self.scheduler.lost_all(statuses or {}, begun, late))

    def lose_first(self, begun=None, statuses=None, late=()):
        """The engine loses the first chunk and goes on."""
        ticket = next(iter(self.running))
        del self.running[ticket]
        return self.book(self.scheduler.lost_one(ticket, statuses or {}, begun, late))

    def book(self, lost) -> tuple[Ended, list[int]]:
        given_up = [task.number for task in lost.blamed if self.scheduler.crashed(task).failed]
        given_up += [task.number for task in lost.late if self.scheduler.timed_out(task).failed]
        return lost.ended, given_up


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
    for _ in range(150):
        play.submit()
        sizes.append(len(next(iter(play.running.values()))))
        play.end_first(seconds=1e-5 * sizes[-1])

    assert [1] * 4 == sizes[:4], "a few quick tasks prove nothing about the next ones"
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
    play = big_chunks(100_000)
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
    play = Play(tasks(100), max_failures=1)
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

    assert (limit, [1]) == (deaths, given_up)
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
    assert [1] == given_up


def test_a_single_lost_chunk_leaves_the_others_running():
    play = Play(tasks(4))
    play.submit()
    play.lose_first(begun={0})

    assert 3 == len(play.scheduler.running)
    assert [[0]] == play.submit(), "where workers die alone, the suspect need not wait for the others"


def test_a_task_that_killed_its_worker_is_another_attempt_when_it_runs_again():
    play = Play(tasks(4))
    play.submit()
    play.lose_first(begun={0})
    (again,) = play.scheduler.next_chunk()

    assert (0, 2) == (again.number, again.attempt)


def big_chunks(number: int, **options) -> Play:
    play = Play(tasks(number), **options)
    for _ in range(50):
        play.submit()
        play.end_first(seconds=1e-4)
    play.submit()
    return play


def test_of_a_lost_chunk_only_the_task_that_ran_is_to_blame():
    play = big_chunks(100_000)
    lost = next(iter(play.running.values()))
    play.lose_first(begun={lost[2]}, statuses={(lost[0], 1): "ok", (lost[1], 1): "ok"})

    assert [[lost[2]]] == play.submit()
    play.end_first()
    play.submit()
    assert any(set(lost[3:]) <= set(chunk) for chunk in play.running.values()), "the innocent run on together"


def test_of_a_lost_chunk_of_which_nothing_is_known_each_task_runs_in_a_chunk_of_its_own():
    play = big_chunks(100_000)
    lost = next(iter(play.running.values()))
    play.lose_first(begun=None)
    alone = []
    while len(alone) < len(lost):
        alone += play.submit()
        play.end_first()

    assert [[number] for number in lost] == alone[: len(lost)]


def test_nobody_is_to_blame_for_a_worker_that_died_before_it_began():
    play = Play(tasks(2), crash_limit=1)
    play.submit()

    assert (Ended(0, 0), []) == play.lose_first(begun=())


def test_a_task_that_was_ended_for_its_time_is_tried_again_like_a_failed_one():
    play = Play(tasks(1), retries=1)
    play.submit()
    assert (Ended(0, 0), []) == play.lose_first(begun=(), late={0})
    assert [[0]] == play.submit()

    assert (Ended(0, 0), [0]) == play.lose_first(begun=(), late={0})
    assert play.scheduler.finished


def test_a_task_waits_before_it_is_tried_again_and_twice_as_long_each_time():
    scheduler = Scheduler(tasks(1), window=4, retries=3, backoff=1.0)
    now = 100.0
    for number, wait in enumerate([1.0, 2.0, 4.0]):
        chunk = scheduler.next_chunk(now)
        scheduler.submitted(number, chunk)
        scheduler.ended(number, receipt(1, (0,)), now)
        assert scheduler.next_chunk(now + wait - 0.01) is None
        assert not scheduler.finished
        now += wait

    assert 4 == scheduler.next_chunk(now)[0].attempt


def test_a_failure_of_another_kind_is_final():
    scheduler = Scheduler(tasks(1), window=4, retries=3)
    scheduler.submitted(0, scheduler.next_chunk())

    assert Ended(0, 1) == scheduler.ended(0, Receipt(1, (), (0,), 0.1, "session"))
    assert scheduler.next_chunk() is None
    assert scheduler.finished


def test_so_many_failures_end_the_sweep():
    play = Play(tasks(100), max_failures=3)
    ended = Ended()
    while play.submit() or play.running:
        ended = Ended(*map(sum, zip(ended, play.end_first(failed=(0,)))))

    assert play.scheduler.gave_up
    assert 3 <= ended.failed <= 3 + 3, "those that ran with the third one end, too"
