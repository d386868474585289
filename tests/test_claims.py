"""Sweeps that run in one directory at the same time share their tasks."""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter

import psutil
import pytest

from futurefarm import DataManager, StopFlag, run_tasks
from futurefarm.claims import Claims, claim_of
from futurefarm.farm import sharing as room
from futurefarm.farm.sharing import SharingWarning
from futurefarm.task import Task

from .program import Gate, Program


def tasks(*numbers: int) -> list[Task]:
    return [Task(number, bytes([number] * 16), 0, 1, b"") for number in numbers]


def keys(*numbers: int) -> set[bytes]:
    return {claim_of(task.identity, task.replicate) for task in tasks(*numbers)}


@pytest.fixture
def one(dataman):
    claims = Claims(dataman.directory, "one")
    claims.begin()
    yield claims
    claims.end()


@pytest.fixture
def other(dataman, one):
    claims = Claims(dataman.directory, "other")
    claims.begin()
    yield claims
    claims.end()


def left(dataman: DataManager) -> list[str]:
    return [name for name in os.listdir(dataman.directory.claims) if not name.startswith("turn")]


def test_of_two_that_want_a_task_one_gets_it_whoever_comes_first(one, other):
    assert set() == other.take(tasks(1, 2))
    assert keys(1, 2) == one.take(tasks(0, 1, 2))
    assert keys(0) == other.take(tasks(0, 3))
    assert keys(3) == one.take(tasks(3, 4))


def test_a_sweep_that_was_alone_notices_that_another_one_has_come(dataman, one):
    assert set() == one.take(tasks(0, 1))
    other = Claims(dataman.directory, "other")
    other.begin()
    assert keys(0) == other.take(tasks(0, 7))

    assert keys(7) == one.take(tasks(7, 8))
    other.end()


def test_what_is_ours_may_be_claimed_again(one, other):
    for _ in range(2):
        assert set() == one.take(tasks(1))
    assert keys(1) == other.take(tasks(1))


def test_the_claims_of_one_that_has_ended_are_heeded_until_the_ledger_was_read(dataman, one, other):
    one.take(tasks(1))
    one.end()
    assert keys(1) == other.take(tasks(1)), "it may have done it"
    assert (["one"], False) == (other.owners(*keys(1)), other.is_alive("one"))

    other.forget("one")
    assert set() == other.take(tasks(1))


def test_the_last_one_leaves_nothing(dataman, one, other):
    one.take(tasks(1))
    one.end()
    assert {"one", "other"} <= set(left(dataman))
    other.end()

    assert [] == left(dataman)


def test_the_claims_of_a_killed_sweep_are_swept_up_by_the_next_one(dataman, one):
    stale = dataman.directory.claims / "stale"
    stale.write_bytes(b"".join(keys(1)))
    one.end()
    other = Claims(dataman.directory, "other")
    stale.write_bytes(b"".join(keys(1)))
    other.begin()

    assert set() == other.take(tasks(1))
    other.end()
    assert [] == left(dataman)


# -- whole sweeps


class Stage:
    """Where tasks are counted, and where one waits."""

    def __init__(self) -> None:
        self.reached, self.open = threading.Event(), threading.Event()
        self.calls: Counter[int] = Counter()


STAGE = Stage()


@pytest.fixture
def stage(monkeypatch) -> Stage:
    stage = Stage()
    monkeypatch.setitem(globals(), "STAGE", stage)
    return stage


def act(number: int) -> int:
    STAGE.calls[number] += 1
    if number == 0:
        STAGE.reached.set()
        STAGE.open.wait(30)
    return number


class Run(threading.Thread):
    """A sweep in a thread of its own."""

    def __init__(self, dataman: DataManager, number: int = 20, **options: object) -> None:
        super().__init__()
        self.arguments = dataman, act, range(number), "serial"
        self.options = {"resume": True, "progress": False, "on_error": "record", **options}
        self.start()

    def run(self) -> None:
        self.summary = run_tasks(*self.arguments, **self.options)


def test_two_sweeps_do_each_task_once_and_count_what_the_other_did_as_skipped(dataman, stage):
    first = Run(dataman)
    stage.reached.wait(30)
    flag = StopFlag()
    second = Run(dataman, stop=flag)
    while dataman.itemcount() < 19:
        second.join(0.01)
    assert second.is_alive(), "it waits for what the first one has begun"
    stage.open.set()
    first.join()
    second.join()

    assert Counter(range(20)) == stage.calls
    assert (1, 19, 19, 1) == (
        first.summary.done,
        first.summary.skipped,
        second.summary.done,
        second.summary.skipped,
    )
    assert [] == left(dataman)


def test_a_sweep_that_waits_for_another_one_can_be_stopped(dataman, stage):
    first = Run(dataman, 1)
    stage.reached.wait(30)
    flag = StopFlag()
    second = Run(dataman, 1, stop=flag)
    flag.set("enough")
    second.join()
    stage.open.set()
    first.join()

    assert (0, 1, "enough") == (second.summary.done, second.summary.left, second.summary.stopped)


def test_without_resume_nobody_waits_and_every_task_is_added(dataman, stage):
    first = Run(dataman, 1)
    stage.reached.wait(30)
    stage.open.set()
    second = Run(dataman, 1, resume=False)
    first.join()
    second.join()

    assert 2 == dataman.itemcount()


@pytest.mark.slow
def test_what_a_stopped_sweep_had_claimed_is_done_by_the_other(dataman, stage, monkeypatch):
    flag = StopFlag()
    first = Run(dataman, 3, stop=flag)
    stage.reached.wait(30)
    second = Run(dataman, 3)
    while dataman.itemcount() < 2:
        second.join(0.01)
    monkeypatch.setattr(room.Claims, "is_stopped", lambda self, sweep: True)
    monkeypatch.setattr(room, "STOPPED", 0.0)
    while stage.calls[0] < 2:
        second.join(0.01)
    stage.open.set()
    second.join()
    first.join()

    assert (3, 0) == (second.summary.done, second.summary.skipped)


def test_where_no_locks_work_all_is_done_here_and_a_warning_says_so(dataman, monkeypatch):
    def no_locks(self, **_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(room.Claims, "begin", no_locks)
    with pytest.warns(SharingWarning, match="No locks available"):
        summary = run_tasks(dataman, abs, range(3), "serial", resume=True, progress=False)

    assert 3 == summary.done


KILLED = """
    import sys
    from futurefarm import DataManager, run_tasks

    def task(number, gate):
        if gate:
            with open(gate) as file:
                file.read()
        return number

    if __name__ == "__main__":
        executor, gate = sys.argv[1:]
        args = [(0, gate), (1, ""), (2, "")]
        dataman = DataManager("shared")
        summary = run_tasks(dataman, task, args, executor, workers=1, progress=False, resume=True)
        print(summary.done, summary.skipped, flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("executor", ["serial", pytest.param("loky", marks=pytest.mark.slow)])
def test_the_tasks_of_a_killed_sweep_are_taken_over(tmp_path, executor):
    folders = tmp_path / "one", tmp_path / "other"
    for folder in folders:
        folder.mkdir()
        (folder / "shared.data").symlink_to(tmp_path / "shared.data")
    DataManager("shared", tmp_path)
    gate = Gate(tmp_path / "gate")
    with (
        Program(folders[0], KILLED, executor, gate.path) as first,
        Program(folders[1], KILLED, executor, gate.path, gates=[gate]) as second,
    ):
        gate.reached()
        dataman = DataManager("shared", tmp_path)
        while dataman.itemcount() < 1:  # more than it can have begun beside the one at the gate
            assert second.process.poll() is None
        family = psutil.Process(first.process.pid).children(recursive=True)
        os.kill(first.process.pid, signal.SIGKILL)
        first.process.wait()
        psutil.wait_procs(family, timeout=5)  # before the gate opens: nobody may go on there
        gate.open()
        gate.reached()
        gate.open()
        line = second.line()

    assert "3" == str(sum(map(int, line.split())))
    assert [0, 1, 2] == sorted(dataman.values())
