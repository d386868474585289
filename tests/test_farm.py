"""What `run_tasks` promises, whatever the executor; what each executor has to do is in the suite."""

from __future__ import annotations

import errno
import io
import os
import sqlite3
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import pytest

from futurefarm import DataManager, StopFlag, TasksFailedError, run_tasks
from futurefarm.errors import (
    BrokenExecutorError,
    DirectoryError,
    NewerSessionError,
    StorageFullError,
    UnstoredError,
    UsageError,
    UsageTypeError,
)
from futurefarm.executors.serial import SerialExecutor
from futurefarm.farm import plan
from futurefarm.store import Header
from futurefarm.testing import ManualExecutor
from futurefarm.testing.tasks import keep, misbehave, square


def sweep_in_thread(
    dataman: DataManager, executor: ManualExecutor, args, **options
) -> tuple[threading.Thread, list]:
    """Start a sweep that goes on only as the executor is stepped."""
    outcome: list = []

    def run() -> None:
        try:
            outcome.append(
                run_tasks(dataman, keep, args, executor, **{"progress": False, "workers": 2, **options})
            )
        except Exception as error:
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, outcome


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"fn": 3}, UsageTypeError, "fn must be a function"),
        ({"fn": threading.Lock().acquire}, UsageTypeError, "cannot be sent to workers"),
        ({"args": 3}, UsageTypeError, r"args must be iterable.*\[3\]"),
        ({"args": np.array(3)}, UsageTypeError, "args must be iterable"),
        ({"workers": 0}, UsageError, "workers must be a whole number of at least 1, not 0"),
        ({"workers": 1.5}, UsageError, "workers"),
        ({"retries": -1}, UsageError, "retries"),
        ({"total": "many"}, UsageError, "total"),
        ({"timeout": 0}, UsageError, "5x median"),
        ({"timeout": "soon"}, UsageError, "5x median"),
        ({"retry_on": ValueError("x")}, UsageTypeError, "retry_on must be an exception class"),
        ({"retry_on": (OSError, int)}, UsageTypeError, "retry_on"),
        ({"backoff": -1}, UsageError, "backoff"),
        ({"backoff": float("inf")}, UsageError, "backoff"),
        ({"crash_limit": 0}, UsageError, "crash_limit"),
        ({"crash_limit": None}, UsageError, "crash_limit"),
        ({"retries": None}, UsageError, "retries"),
        ({"max_failures": 0}, UsageError, "max_failures"),
        ({"on_error": "ignore"}, UsageError, "'raise', 'record' or 'stop'"),
        ({"stop": True}, UsageTypeError, "StopFlag"),
        ({"initargs": (1,)}, UsageError, "task class"),
        ({"dataman": "name"}, UsageTypeError, "DataManager"),
    ],
)
def test_bad_input_is_one_clear_error_and_nothing_is_written(dataman, change, error, text):
    given = {"dataman": dataman, "fn": keep, "args": [1], "executor": "serial", **change}
    before = sorted(Path(dataman.basepath).rglob("*"))
    with pytest.raises(error, match=text):
        run_tasks(**given)

    assert before == sorted(Path(dataman.basepath).rglob("*"))


def as_nobody(action) -> str:
    """Call ``action`` in a child that is another user; return what it returns."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setuid(65534)
            text = action()
        except BaseException as error:
            text = f"{type(error).__name__}: {error}"
        os.write(writer, text.encode())
        os._exit(0)
    os.close(writer)
    with open(reader) as file:
        told = file.read()
    os.waitpid(child, 0)
    return told


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs to become another user")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_directory_that_is_not_writable_is_refused_before_anything_runs(dataman, tmp_path):
    run_tasks(dataman, keep, [1], "serial", progress=False)
    for path in (tmp_path, *tmp_path.parents[:2], *Path(dataman.basepath).rglob("*"), Path(dataman.basepath)):
        path.chmod(0o755)
    ran = tmp_path / "ran"
    told = as_nobody(lambda: str(run_tasks(dataman, ran.touch, [()], "serial", progress=False)))

    assert "DirectoryError: " in told
    assert "Nothing was run" in told
    assert not ran.exists()


def test_a_file_in_the_place_of_the_directory_is_named(tmp_path):
    (tmp_path / "farm.data").write_text("mine")
    with pytest.raises(DirectoryError, match=r"farm\.data is a file"):
        DataManager("farm", tmp_path)

    assert "mine" == (tmp_path / "farm.data").read_text()


def test_a_session_of_a_newer_version_is_refused_before_anything_runs(dataman):
    run_tasks(dataman, keep, [1], "serial", progress=False)
    (path,) = dataman.session_filenames()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 200")
    connection.close()
    ran = []
    with pytest.raises(NewerSessionError, match="later version"):
        run_tasks(dataman, ran.append, [1], "serial", progress=False)

    assert [] == ran
    assert 200 == Header.read(Path(path)).version


def test_a_summary_reads_as_a_sentence(dataman):
    summary = run_tasks(dataman, keep, [1, 2], "serial", progress=False)

    assert str(summary).startswith("2 done, 0 skipped, 0 failed in ")


def test_the_error_of_failed_tasks_tells_which_and_what_now(dataman):
    with pytest.raises(TasksFailedError) as caught:
        run_tasks(dataman, misbehave, ["fine", "value"], "serial", progress=False)
    text = str(caught.value)

    assert "1 of 2 tasks failed" in text
    assert "The first: task 1, ValueError: bad value. All other" in text
    assert "resume=True" in text
    assert "in misbehave" in caught.value.__notes__[0]
    assert [1] == [failure.number for failure in caught.value.failures]


def test_resuming_runs_failed_tasks_again(dataman):
    run_tasks(dataman, misbehave, ["fine", "value"], "serial", on_error="record", progress=False)
    summary = run_tasks(
        dataman, misbehave, ["fine", "value"], "serial", on_error="record", resume=True, progress=False
    )

    assert (1, 1) == (summary.skipped, summary.failed)
    assert 1 == len(list(dataman.failures()))


def test_resuming_works_after_a_merge(tmp_path):
    first, second = DataManager("first", tmp_path), DataManager("second", tmp_path)
    run_tasks(first, square, [1, 2], "serial", progress=False)
    run_tasks(second, square, [2, 3], "serial", progress=False)
    first.merge(second)
    summary = run_tasks(first, square, [1, 2, 3, 4], "serial", resume=True, progress=False)

    assert (3, 1) == (summary.skipped, summary.done)


def test_resume_by_count_is_the_loop_of_brian(dataman):
    def add(number):
        run_tasks(dataman, keep, range(number - dataman.itemcount()), "serial", progress=False)

    add(3)
    add(10)
    add(10)

    assert 10 == dataman.itemcount()


def test_two_functions_do_not_take_each_other_for_done(dataman):
    run_tasks(dataman, keep, [1, 2], "serial", progress=False)
    summary = run_tasks(dataman, square, [1, 2], "serial", resume=True, progress=False)

    assert 2 == summary.done


def test_tasks_in_threads_share_the_memory_of_the_caller(dataman):
    seen = []
    run_tasks(dataman, seen.append, [1, 2, 3], "thread", progress=False)

    assert [1, 2, 3] == sorted(seen)


def test_a_task_may_set_the_flag_that_stops_its_sweep(dataman):
    flag = StopFlag()
    summary = run_tasks(
        dataman,
        lambda x: flag.set("enough") if x == 5 else x,
        range(100),
        "serial",
        stop=flag,
        progress=False,
    )

    assert "enough" == summary.stopped
    assert 6 <= summary.done < 100


def test_what_is_in_flight_is_bounded(dataman):
    executor = ManualExecutor()
    pulled = []
    thread, outcome = sweep_in_thread(dataman, executor, (pulled.append(x) or x for x in range(11)))
    executor.step(7)
    in_flight = len(pulled) - 7
    executor.step(4)
    thread.join()

    assert 4 >= in_flight
    assert 11 == outcome[0].done


def test_a_result_is_stored_before_it_is_counted(dataman):
    executor = ManualExecutor()
    thread, _ = sweep_in_thread(dataman, executor, range(3))
    counts = []
    for _ in range(3):
        executor.step()
        counts.append(dataman.itemcount())
    thread.join()

    assert [1, 2, 3] == counts


def test_an_instance_that_breaks_ends_the_sweep_with_advice_and_keeps_what_is_done(dataman):
    executor = ManualExecutor()
    thread, outcome = sweep_in_thread(dataman, executor, range(10))
    executor.step(3)
    executor.break_down(RuntimeError("the cluster is gone"))
    thread.join()

    assert isinstance(outcome[0], BrokenExecutorError)
    assert "Pass a factory" in str(outcome[0])
    assert 3 <= dataman.itemcount()


def test_a_factory_is_asked_again_when_its_executor_breaks(dataman):
    made = []

    def factory(max_workers):
        made.append(ManualExecutor())
        return made[-1]

    thread, outcome = sweep_in_thread(dataman, factory, range(6))
    while not made:
        threading.Event().wait(0.001)
    made[0].step(2)
    made[0].break_down(RuntimeError("gone"))
    while len(made) < 2:
        threading.Event().wait(0.001)
    while thread.is_alive():
        try:
            made[1]._timeout = 0.05
            made[1].step()
        except TimeoutError:
            continue
    thread.join()

    assert (6, 0) == (outcome[0].done, outcome[0].failed)
    assert list(range(6)) == sorted(dataman.values())


def test_an_engine_that_only_breaks_is_given_up(dataman):
    class Broken(ManualExecutor):
        def submit(self, fn, /, *args, **kwargs):
            raise RuntimeError("no licence")

    with pytest.raises(BrokenExecutorError, match=r"broke 4 times in a row.*no licence"):
        run_tasks(dataman, keep, [1], lambda n: Broken(), progress=False)


class Grudging(SerialExecutor):
    """Runs what it is given, and raises as if it had not taken it."""

    def submit(self, fn, /, *args, **kwargs):
        super().submit(fn, *args, **kwargs)
        raise RuntimeError("no more threads")


def test_what_an_engine_has_run_and_refused_is_not_run_again(dataman):
    executors = [Grudging()]
    summary = run_tasks(
        dataman,
        keep,
        range(6),
        lambda n: executors.pop() if executors else SerialExecutor(),
        workers=1,
        progress=False,
    )

    assert 6 == summary.done
    assert list(range(6)) == sorted(dataman.values())


def test_one_chunk_that_the_engine_loses_is_run_again(dataman):
    executor = ManualExecutor()
    thread, outcome = sweep_in_thread(dataman, executor, range(4))
    executor.fail(RuntimeError("worker lost"))
    executor._timeout = 0.2
    while thread.is_alive():
        try:
            executor.step()
        except TimeoutError:
            continue
    thread.join()

    assert (4, 0) == (outcome[0].done, outcome[0].failed)


class Forgetful(SerialExecutor):
    """Runs the first chunk without ever answering, answers to the second, and breaks at the third."""

    def __init__(self) -> None:
        self.submitted = 0

    def submit(self, fn, /, *args, **kwargs):
        self.submitted += 1
        if self.submitted > 2:
            raise RuntimeError("broken")
        answered = super().submit(fn, *args, **kwargs)
        return Future() if self.submitted == 1 else answered


def test_what_was_committed_without_an_answer_is_not_run_again(dataman):
    """Also when its session has acknowledged later rows: threads share one."""
    executors = [Forgetful()]
    summary = run_tasks(
        dataman,
        keep,
        range(6),
        lambda n: executors.pop() if executors else SerialExecutor(),
        workers=2,
        progress=False,
    )

    assert 6 == summary.done
    assert list(range(6)) == sorted(dataman.values())


def interrupted_by(error):
    def fails(path):
        with open(path, "a") as file:
            file.write("x")
        raise error

    return fails


@pytest.mark.parametrize(
    ("retry_on", "tries"), [(Exception, 3), (OSError, 3), ((KeyError, OSError), 3), (KeyError, 1)]
)
def test_only_the_errors_that_were_named_are_tried_again(dataman, tmp_path, retry_on, tries):
    run_tasks(
        dataman,
        interrupted_by(ConnectionError("busy")),
        [str(tmp_path / "tries")],
        "serial",
        retries=2,
        retry_on=retry_on,
        backoff=0,
        on_error="record",
        progress=False,
    )

    assert "x" * tries == (tmp_path / "tries").read_text()
    assert list(range(1, tries + 1)) == [record.attempt for record in dataman.records()]


def test_an_exit_is_not_tried_again_unless_that_is_asked(dataman, tmp_path):
    run_tasks(
        dataman,
        interrupted_by(SystemExit(1)),
        [str(tmp_path / "tries")],
        "serial",
        retries=2,
        backoff=0,
        on_error="record",
        progress=False,
    )

    assert "x" == (tmp_path / "tries").read_text()


def test_a_sweep_whose_first_tasks_all_fail_is_ended(dataman):
    with pytest.raises(TasksFailedError) as caught:
        run_tasks(dataman, misbehave, ["value"] * 1000, "serial", max_failures=5, progress=False)
    summary = caught.value.summary

    assert (5, "5 failed tasks") == (summary.failed, summary.stopped)
    assert 995 == summary.left


def test_what_comes_after_the_time_limit_is_refused_where_tasks_cannot_be_ended(dataman, capsys):
    def asks(report):
        while not report.should_stop:
            pass
        return "half a result"

    summary = run_tasks(dataman, asks, [()], "serial", timeout=0.05, on_error="record", progress={})
    (record,) = dataman.records()

    assert (0, 1) == (summary.done, summary.failed)
    assert "timeout" == record.status
    assert "timeout is 0.05 s" in str(record.error)
    assert 1 == capsys.readouterr().err.count("cannot be ended from here")


def test_a_late_task_is_tried_again_as_a_timeout(dataman):
    def asks(report):
        while not report.should_stop:
            pass

    run_tasks(
        dataman,
        asks,
        [()],
        "serial",
        timeout=0.02,
        retries=1,
        retry_on=TimeoutError,
        backoff=0,
        on_error="record",
        progress=False,
    )

    assert [(1, "timeout"), (2, "timeout")] == [(r.attempt, r.status) for r in dataman.records()]


def test_threads_are_told_of_their_time_limit(dataman):
    def asks(number, report):
        while number == 1 and not report.should_stop:
            pass
        return number

    run_tasks(dataman, asks, range(3), "thread", workers=2, timeout=0.2, on_error="record", progress=False)

    assert [0, 2] == sorted(dataman.values())
    assert ["timeout"] == [record.status for record in dataman.failures()]


# -- a full disk


def zeros(number: int, size: int) -> tuple[int, bytes]:
    return number, bytes(size)


def stored(dataman: DataManager) -> list[int]:
    return sorted(number for number, _ in dataman.values())


class Screen(io.StringIO):
    """A stream that lets something happen when a text is written to it."""

    def __init__(self, text: str, happens: Callable[[], None]) -> None:
        super().__init__()
        self.text, self.happens = text, happens

    def write(self, text: str) -> int:
        if self.text in text:
            self.text = "\0"
            self.happens()
        return super().write(text)


LARGE = [(number, 100_000) for number in range(20)]


@pytest.mark.parametrize("executor", ["serial", "thread", "loky"])
def test_a_sweep_waits_for_space_says_so_and_goes_on_by_itself(executor, disk, monkeypatch):
    dataman = DataManager("farm", disk.path)
    disk.fill(free=700_000)
    monkeypatch.setattr(sys, "stderr", Screen("the disk is full", disk.grow))
    summary = run_tasks(dataman, zeros, LARGE, executor, workers=1)

    assert "the disk is full" in sys.stderr.getvalue()
    assert (20, 0) == (summary.done, summary.failed)
    assert list(range(20)) == stored(dataman)
    assert 20 == len(list(dataman.records())), "a task was run twice"


@pytest.mark.parametrize("executor", ["serial", "thread", pytest.param("loky", marks=pytest.mark.slow)])
def test_a_sweep_that_waited_in_vain_names_the_tasks_which_resume_runs_again(executor, disk, monkeypatch):
    monkeypatch.setattr(plan, "FULL_WAIT", 0.3)
    dataman = DataManager("farm", disk.path)
    disk.fill(free=700_000)
    with pytest.raises(StorageFullError, match="Free space") as caught:
        run_tasks(dataman, zeros, LARGE, executor, workers=2, progress=False)
    before = stored(dataman)
    disk.grow()
    summary = run_tasks(dataman, zeros, LARGE, executor, workers=2, progress=False, resume=True)

    assert (dataman.basepath, errno.ENOSPC) == (caught.value.path, caught.value.errno)
    assert caught.value.tasks
    assert not set(before) & set(caught.value.tasks)
    assert (len(before), 20 - len(before)) == (summary.skipped, summary.done)
    assert list(range(20)) == stored(dataman)


def test_a_stop_ends_the_wait_for_space(disk, monkeypatch):
    dataman = DataManager("farm", disk.path)
    disk.fill(free=700_000)
    flag = StopFlag()
    screen = Screen("wait", flag.set)
    monkeypatch.setattr(sys, "stderr", screen)
    with pytest.raises(StorageFullError):
        run_tasks(dataman, zeros, LARGE, "thread", workers=2, stop=flag)

    assert "the disk is full" in screen.getvalue()


def test_nothing_is_run_on_a_disk_that_is_full_from_the_start(disk):
    dataman = DataManager("farm", disk.path)
    disk.fill()
    with pytest.raises(DirectoryError, match=r"No space left on device.*Nothing was run"):
        run_tasks(dataman, zeros, LARGE, "thread", progress=False)


@pytest.mark.parametrize("executor", ["serial", "thread", "loky"])
def test_a_directory_that_is_moved_while_a_sweep_runs_ends_it(executor, dataman, tmp_path):
    moved = str(tmp_path / "moved.data")

    def task(x):
        if x == 1:
            os.rename(dataman.basepath, moved)
        return x

    with pytest.raises(UnstoredError, match="moved or deleted") as caught:
        run_tasks(dataman, task, range(100), executor, workers=1, progress=False)

    assert 1 in caught.value.tasks
    assert not os.path.exists(dataman.basepath)
