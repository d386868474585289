"""A sweep is stopped by code, a signal, or a file."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from futurefarm import DataManager, StopFlag, run_tasks
from futurefarm.directory import stop_mark
from futurefarm.stop import Listener
from futurefarm.testing.tasks import keep


class Clock:
    """Time that passes when it is told to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ended() -> list[str]:
    return []


@pytest.fixture
def listener(dataman: DataManager, clock: Clock, ended: list[str]):
    directory = dataman.directory
    seen = stop_mark(directory.stop)
    with Listener(
        StopFlag(), directory, "sweep", seen, end_now=lambda: ended.append("ended"), clock=clock
    ) as listener:
        yield listener
    listener.forget()


def test_a_flag_keeps_its_first_reason():
    flag = StopFlag()
    flag.set("lunch")
    flag.set("dinner")

    assert (True, "lunch", False) == (flag.is_set(), flag.reason, flag.now)


def test_a_flag_can_be_set_harder():
    flag = StopFlag()
    flag.set("lunch")
    flag.set("fire", now=True)

    assert ("fire", True) == (flag.reason, flag.now)


def test_a_touched_file_stops(listener, dataman, clock):
    assert not listener.is_set()
    dataman.directory.stop.touch()
    clock.now += 1

    assert listener.is_set()
    assert "the file .farm/stop" == listener.flag.reason


def test_a_stop_file_of_an_earlier_run_does_not_count(dataman, clock):
    dataman.directory.stop.touch()
    with Listener(
        StopFlag(), dataman.directory, "s", stop_mark(dataman.directory.stop), end_now=list, clock=clock
    ) as listener:
        assert not listener.is_set()
        os.utime(dataman.directory.stop, ns=(1, 1))
        clock.now += 1
        assert listener.is_set(), "touched again"
        listener.forget()


def test_the_file_is_not_looked_at_all_the_time(listener, dataman, clock):
    assert not listener.is_set()
    dataman.directory.stop.touch()

    assert not listener.is_set(), "no time has passed since the last look"


def test_workers_are_told_by_a_file(listener, dataman):
    mark = dataman.directory.stop_of("sweep")
    assert not mark.exists()
    listener.flag.set()
    listener.is_set()

    assert mark.exists()


def test_ctrl_c_stops_and_the_second_one_ends_running_tasks(listener, ended):
    signal.raise_signal(signal.SIGINT)
    assert ("Ctrl-C", False, []) == (listener.flag.reason, listener.flag.now, ended)

    signal.raise_signal(signal.SIGINT)
    assert ("Ctrl-C twice", True, ["ended"]) == (listener.flag.reason, listener.flag.now, ended)

    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


@pytest.fixture(params=[signal.SIGTERM, signal.SIGHUP], ids=["SIGTERM", "SIGHUP"])
def deadly(request):
    """A signal that asks a program to end; it is handled in the test in some way and not afterwards."""
    before = signal.getsignal(request.param)
    yield request.param
    signal.signal(request.param, before)


def test_a_signal_to_end_ends_running_tasks_and_then_reaches_the_users_handler(dataman, deadly):
    heard = []
    signal.signal(deadly, lambda number, frame: heard.append(number))

    def task(x):
        if x == 3:
            signal.raise_signal(deadly)
            pytest.fail("the task went on")
        return x, list(heard)

    summary = run_tasks(dataman, task, range(6), "serial", progress=False, on_error="record")

    assert [deadly] == heard
    assert (3, 3, signal.Signals(deadly).name) == (summary.done, summary.left, summary.stopped)
    assert [(0, []), (1, []), (2, [])] == sorted(dataman.values())


def test_a_signal_that_is_ignored_stays_ignored(dataman, deadly):
    signal.signal(deadly, signal.SIG_IGN)
    run_tasks(dataman, lambda x: signal.raise_signal(deadly), [1, 2], "serial", progress=False)

    assert 2 == dataman.itemcount()
    assert signal.SIG_IGN == signal.getsignal(deadly)


def test_a_signal_interrupts_the_wait_for_an_item(listener):
    with pytest.raises(KeyboardInterrupt), listener.waiting_for_user():
        signal.raise_signal(signal.SIGINT)

    assert "Ctrl-C" == listener.flag.reason


def test_workers_are_told_of_a_signal_at_once(listener, dataman):
    signal.raise_signal(signal.SIGINT)

    assert dataman.directory.stop_of("sweep").exists()


def test_a_handler_that_a_task_installs_does_not_stay(dataman):
    """Brian 2 takes Ctrl-C for itself when it is imported."""
    taken = []

    def task(x):
        if x == 0:
            signal.signal(signal.SIGINT, lambda *_: taken.append("Ctrl-C"))
        if x == 1:
            signal.raise_signal(signal.SIGINT)
        return x

    summary = run_tasks(dataman, task, range(10), "serial", progress=False)

    assert ("Ctrl-C", [], [0, 1]) == (summary.stopped, taken, sorted(dataman.values()))


def test_handlers_are_put_back(dataman):
    numbers = signal.SIGINT, signal.SIGTERM, signal.SIGHUP
    before = [signal.getsignal(number) for number in numbers]
    run_tasks(dataman, keep, [1], "serial", progress=False)

    assert before == [signal.getsignal(number) for number in numbers]


def test_sweeps_run_in_threads_where_no_signal_can_be_handled(dataman):
    thread = threading.Thread(
        target=run_tasks, args=(dataman, keep, [1, 2], "serial"), kwargs={"progress": False}
    )
    thread.start()
    thread.join()

    assert 2 == dataman.itemcount()


def test_a_flag_that_is_set_lets_nothing_begin(dataman):
    flag = StopFlag()
    flag.set("no")
    summary = run_tasks(dataman, keep, [1, 2], "serial", stop=flag, progress=False)

    assert (0, 2, "no") == (summary.done, summary.left, summary.stopped)
    assert "resume=True" in str(summary)


def test_a_third_interrupt_does_not_cut_the_second_one_short(dataman):
    """It comes while the processes of tasks are being ended."""
    done = []

    def end_now():
        signal.raise_signal(signal.SIGINT)
        done.append("ended")

    with Listener(StopFlag(), dataman.directory, "sweep", None, end_now=end_now) as listener:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        assert ["ended"] == done
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    listener.forget()
