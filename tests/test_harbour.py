"""Worker processes stay warm between two sweeps, and nobody can tell that they did."""

from __future__ import annotations

import os
import signal
from functools import partial

import psutil
import pytest

from futurefarm import DataManager, run_tasks
from futurefarm.executors import end_idle_workers, harbour, resolve
from futurefarm.store import Header

from .companion import Companion, run
from .program import DEADLINE

pytestmark = pytest.mark.usefixtures("by_value")


def pid_of_worker(_):
    return os.getpid()


def workers_of(dataman: DataManager, executor: str = "loky", **options: object) -> set[int]:
    """Run a sweep, and return the processes that ran its tasks."""
    options = {"workers": 1, "inner_threads": 1, "progress": False} | options
    sweep = run_tasks(dataman, pid_of_worker, range(4), executor, **options).sweep
    return {record.pid for record in dataman.records() if record.sweep == sweep}


def living(pids: set[int]) -> set[int]:
    return {pid for pid in pids if psutil.pid_exists(pid)}


def gone(pid: int) -> bool:
    """Wait until a process is gone."""
    try:
        psutil.Process(pid).wait(DEADLINE)
    except psutil.NoSuchProcess:
        return True
    return not psutil.pid_exists(pid)


@pytest.mark.parametrize("executor", ["loky", "process"])
def test_the_next_sweep_finds_its_workers_warm(dataman, executor):
    first = workers_of(dataman, executor)

    assert first == workers_of(dataman, executor)
    assert first == living(first)
    end_idle_workers()
    assert set() == living(first)


def test_between_two_sweeps_workers_hold_no_session(dataman):
    workers = workers_of(dataman)

    assert workers == living(workers)
    assert not any(Header.read(path).writing for path in dataman.directory.sessions())
    assert [] == list((dataman.directory.farm / "workers").iterdir())


@pytest.fixture
def make():
    return resolve("loky").factory


def pid_of(fleet) -> int:
    return fleet.submit(os.getpid).result(DEADLINE)


def pid_behind(gate):
    gate.read_text()
    return os.getpid()


def test_workers_are_in_one_fleet_at_a_time_and_come_before_new_ones(make, tmp_path, by_value):
    one, other = make(1), make(1)
    two = {pid_of(one), pid_of(other)}
    assert 2 == len(two)

    make.take_back(one, os.getpid)
    make.take_back(other, os.getpid)
    gates = [tmp_path / str(number) for number in range(3)]
    for gate in gates:
        os.mkfifo(gate)
    three = make(3)
    calls = [three.submit(pid_behind, gate) for gate in gates]
    for gate in gates:
        gate.write_text("open")
    assert two < {call.result(DEADLINE) for call in calls}
    make.take_back(three, os.getpid)


def test_workers_are_told_how_many_threads_they_have_when_they_start(dataman):
    assert workers_of(dataman).isdisjoint(workers_of(dataman, inner_threads=2))


def test_workers_that_would_start_otherwise_now_are_not_used(dataman, monkeypatch, tmp_path):
    first = workers_of(dataman)
    monkeypatch.setenv("SOMETHING", "changed")
    second = workers_of(dataman)
    monkeypatch.delenv("SOMETHING")
    monkeypatch.chdir(tmp_path)
    third = workers_of(dataman)

    assert 3 == len(first | second | third)


def test_a_worker_that_dies_while_it_waits_is_replaced(dataman):
    (first,) = workers_of(dataman)
    os.kill(first, signal.SIGKILL)
    assert gone(first)

    assert first not in workers_of(dataman)


def test_a_worker_that_cannot_end_its_work_does_not_stay(make):
    fleet = make(1)
    before = {pid_of(fleet)}
    make.take_back(fleet, partial(int, "no number"))

    assert set() == living(before)


def test_workers_of_a_fleet_that_was_killed_do_not_come_back(make):
    fleet = make(1)
    before = {pid_of(fleet)}
    fleet.kill_workers()
    make.take_back(fleet, os.getpid)

    assert set() == living(before)


def test_workers_that_wait_for_long_leave(dataman, monkeypatch):
    monkeypatch.setattr(harbour, "IDLE", 0.01)
    (worker,) = workers_of(dataman, "process")

    assert gone(worker)
    assert worker not in workers_of(dataman, "process")


PROGRAM = """
    import os, sys
    from futurefarm import DataManager, run_tasks

    dataman = DataManager("farm", sys.argv[1])

    def workers(executor=sys.argv[2], tasks=range(2)):
        done = run_tasks(dataman, lambda x: os.getpid(), tasks, executor, workers=1, progress=False)
        return [record.pid for record in dataman.records() if record.sweep == done.sweep][0]

    if __name__ == "__main__":
"""


def program(body: str) -> str:
    return PROGRAM + "\n".join(f"        {line}" for line in body.splitlines())


@pytest.mark.parametrize("executor", ["loky", "process"])
def test_workers_leave_when_the_program_ends(tmp_path, executor):
    assert gone(int(run(program("print(workers())"), tmp_path, executor)))


@pytest.mark.parametrize("executor", ["loky", "process"])
def test_a_worker_that_does_not_leave_when_the_program_ends_is_ended(tmp_path, executor):
    body = """
import threading
import futurefarm.executors.ship

def leave_a_thread(x):
    threading.Thread(target=threading.Event().wait).start()

futurefarm.executors.ship.LEAVE = 0.2
run_tasks(dataman, leave_a_thread, [1], sys.argv[2], workers=1, progress=False)
print(workers())
"""
    assert gone(int(run(program(body.strip("\n")), tmp_path, executor)))


@pytest.mark.slow
@pytest.mark.parametrize("executor", ["loky", "process"])
def test_workers_leave_when_the_program_is_killed(tmp_path, executor):
    body = "print(workers(), flush=True)\ninput()"
    with Companion(program(body), tmp_path, executor) as started:
        worker = int(started.hear())
        started.process.kill()

        assert gone(worker)


def test_a_forked_child_has_workers_of_its_own(tmp_path):
    body = """
import warnings
before = workers()
warnings.simplefilter("ignore")
child = os.fork()
print("child" if child == 0 else "parent", workers() == before, flush=True)
if child:
    os.waitpid(child, 0)
    print("again", workers() == before)
"""
    said = run(program(body.strip("\n")), tmp_path, "loky").splitlines()

    assert {"child False", "parent True", "again True"} == set(said)


def test_a_function_that_was_edited_is_run_as_it_is_now(dataman):
    for factor in (2, 3):
        scope = {"__name__": "__main__", "factor": factor}
        exec("def times(x): return factor * x", scope)
        run_tasks(dataman, scope["times"], [1], "loky", workers=1, inner_threads=1, progress=False)

    assert [2, 3] == sorted(dataman.values())


def test_no_more_workers_stay_than_the_last_sweep_had_or_there_are_cores(dataman, monkeypatch):
    monkeypatch.setattr(harbour, "usable_cores", lambda: 1)
    first = workers_of(dataman)
    second = workers_of(dataman, inner_threads=2)

    assert second == living(first | second)
