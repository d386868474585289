"""What every executor has to do right."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from .. import DataManager, StopFlag, TasksFailedError, run_tasks
from ..spaces import Params, grid
from . import tasks

__all__ = ["ExecutorSuite"]


class ExecutorSuite:
    """Tests of an executor; inherit them and say which executor is meant.

    Example of a test file::

        from futurefarm.testing import ExecutorSuite

        class TestMyExecutor(ExecutorSuite):
            executor = staticmethod(make_my_executor)   # a name, a factory, or an executor
    """

    executor: Any = None

    @pytest.fixture
    def dataman(self, tmp_path: Path) -> DataManager:
        return DataManager("suite", tmp_path)

    def run(self, dataman: DataManager, fn: Any, args: Any, **options: Any) -> Any:
        return run_tasks(dataman, fn, args, self.executor, **{"workers": 2, "progress": False, **options})

    def test_every_result_is_stored_once(self, dataman: DataManager) -> None:
        """All results of a sweep are in the directory, each once."""
        summary = self.run(dataman, tasks.square, range(300))

        assert (300, 0, 0, None) == (summary.done, summary.skipped, summary.failed, summary.stopped)
        assert [(x, x * x) for x in range(300)] == sorted(dataman.values())

    def test_each_result_has_a_record(self, dataman: DataManager) -> None:
        """The ledger tells arguments, place and end of each task, and leads to its result."""
        self.run(dataman, tasks.square, [3, 4])
        records = sorted(dataman.records(), key=lambda record: record.number)

        assert [3, 4] == [record.args for record in records]
        assert ["ok", "ok"] == [record.status for record in records]
        assert [(3, 9), (4, 16)] == [dataman[str(record.key)] for record in records]
        assert {"futurefarm.testing.tasks:square"} == {record.function for record in records}
        assert all(record.seconds >= 0 and record.pid > 0 and record.host for record in records)

    def test_tuples_are_unpacked_and_all_else_is_one_argument(self, dataman: DataManager) -> None:
        """A tuple is several arguments; a list, a dict and a row of an array are one."""
        self.run(dataman, tasks.add, [(1, 2)])
        self.run(dataman, tasks.keep, [[1, 2], {"a": 1}, ((1, 2),)])
        self.run(dataman, np.ndarray.tolist, np.arange(4.0).reshape(2, 2))
        values = list(dataman.values())

        assert 6 == len(values)
        assert all(expected in values for expected in (3, [1, 2], {"a": 1}, (1, 2), [0.0, 1.0], [2.0, 3.0]))

    def test_named_parameters_become_keywords(self, dataman: DataManager) -> None:
        """The points of a parameter space arrive as keyword arguments."""
        self.run(dataman, tasks.named, grid(k=[1, 2], tau=[0.5]))
        self.run(dataman, tasks.named, [Params(k=3)])

        assert [(1, 0.5), (2, 0.5), (3, 1.0)] == sorted(dataman.values())

    def test_lambdas_closures_and_partials_run(self, dataman: DataManager) -> None:
        """A function need not be importable."""
        factor = 3
        self.run(dataman, lambda x: factor * x, [1])
        self.run(dataman, functools.partial(tasks.add, 10), [5])

        assert [3, 15] == sorted(dataman.values())

    def test_failing_tasks_cost_no_other_one(self, dataman: DataManager) -> None:
        """However tasks fail, the others run, and each end is recorded with a traceback."""
        good = [f"good {number}" for number in range(len(tasks.BAD_KINDS))]
        mixed = [kind for pair in zip(good, tasks.BAD_KINDS) for kind in pair]
        with pytest.raises(TasksFailedError) as caught:
            self.run(dataman, tasks.misbehave, mixed)
        failures = {failure.args: failure for failure in dataman.failures()}

        assert sorted(good) == sorted(dataman.values())
        assert (len(good), len(good)) == (caught.value.summary.failed, caught.value.summary.done)
        assert set(tasks.BAD_KINDS) == set(failures)
        for kind, text in tasks.BAD_KINDS.items():
            assert text in str(failures[kind].error)
            assert ("error", True) == (failures[kind].status, bool(failures[kind].traceback))

    def test_any_value_is_stored_as_it_is(self, dataman: DataManager) -> None:
        """A returned exception is no failure, and nothing, not-a-number and half a surrogate are values."""
        values = tasks.odd_values()
        summary = self.run(dataman, tasks.odd, range(len(values)))
        found = {record.args: dataman[str(record.key)] for record in dataman.records()}

        assert (len(values), 0) == (summary.done, summary.failed)
        for number, value in enumerate(values):
            assert (type(value), repr(value)) == (type(found[number]), repr(found[number]))

    def test_what_a_task_prints_is_on_record(self, dataman: DataManager) -> None:
        """The record of an attempt has what the task printed, and nothing of another one's."""
        self.run(dataman, tasks.prints, ["one", "two", ""])

        assert {"one": "one\n", "two": "two\n", "": None} == {r.args: r.output for r in dataman.records()}

    def test_failures_can_be_only_recorded(self, dataman: DataManager) -> None:
        """With ``on_error="record"`` the summary counts them and nothing is raised."""
        summary = self.run(dataman, tasks.misbehave, ["value", "fine"], on_error="record")

        assert (1, 1) == (summary.done, summary.failed)

    def test_the_first_failure_can_stop_the_sweep(self, dataman: DataManager) -> None:
        """With ``on_error="stop"`` no task is begun after the failure is known."""
        pulled = [0]
        kinds = ("value" if number == 1 else "fine" for number in tasks.numbers(pulled))
        with pytest.raises(TasksFailedError):
            self.run(dataman, tasks.misbehave, kinds, on_error="stop")

        assert pulled[0] < 10_000

    def test_failed_tasks_are_tried_again(self, dataman: DataManager, tmp_path: Path) -> None:
        """``retries`` tries a failed task again; every attempt is in the ledger."""
        summary = self.run(dataman, tasks.fails_until, [(str(tmp_path / "mark"), 2)], retries=2)

        assert ["at last"] == list(dataman.values())
        assert (1, 0) == (summary.done, summary.failed)
        assert [(1, "error"), (2, "error"), (3, "ok")] == sorted(
            (r.attempt, r.status) for r in dataman.records()
        )
        assert [] == list(dataman.failures())

    def test_an_endless_generator_is_pulled_only_as_needed(self, dataman: DataManager) -> None:
        """Items are pulled as they are run, and what is pulled ahead is bounded."""
        pulled, flag = [0], StopFlag()

        def items() -> Iterator[int]:
            for number in tasks.numbers(pulled):
                if number == 2000:
                    flag.set()
                yield number

        summary = self.run(dataman, tasks.keep, items(), stop=flag)

        assert 2000 <= pulled[0] <= 2000 + 4096
        assert summary.done == len(dataman) <= pulled[0]
        assert "StopFlag.set()" == summary.stopped

    def test_a_stopped_sweep_goes_on_where_it_was(self, dataman: DataManager) -> None:
        """What was done before the stop is stored, and resuming runs exactly the rest."""
        flag = StopFlag()

        def items() -> Iterator[int]:
            for x in range(100):
                if x == 40:
                    flag.set()
                yield x

        first = self.run(dataman, tasks.square, items(), stop=flag)
        stored = len(dataman)
        second = self.run(dataman, tasks.square, range(100), resume=True)

        assert first.done == stored < 100
        assert (stored, 100 - stored) == (second.skipped, second.done)
        assert [(x, x * x) for x in range(100)] == sorted(dataman.values())

    def test_resuming_counts_replicates(self, dataman: DataManager) -> None:
        """``[x] * 3`` is three tasks; equal numbers of any type are the same argument."""
        self.run(dataman, tasks.square, [1, 2, 2])
        summary = self.run(dataman, tasks.square, [1.0, np.int64(2), 2, 2, 1], resume=True)

        assert (3, 2) == (summary.skipped, summary.done)
        assert 5 == len(dataman)

    def test_without_resume_tasks_are_added(self, dataman: DataManager) -> None:
        """The default adds, as Brian 1 did, and numbers the replicates on."""
        for _ in range(2):
            self.run(dataman, tasks.square, [1, 2])

        assert 4 == dataman.itemcount()
        assert [0, 0, 1, 1] == sorted(record.replicate for record in dataman.records())

    def test_a_task_class_is_made_once_per_worker(self, dataman: DataManager) -> None:
        """It gets its arguments and its worker's number, and its instance is called for each task."""
        self.run(dataman, tasks.Counter, range(50), initargs=(100,), initkwds={"step": 2})
        values = list(dataman.values())
        calls: dict[tuple[int, int], list[int]] = {}
        for _, _, call, made_in in values:
            calls.setdefault(made_in, []).append(call)

        assert [100 + 2 * x for x in range(50)] == sorted(value for value, *_ in values)
        assert all(sorted(each) == list(range(1, len(each) + 1)) for each in calls.values())
        assert {number for _, number, *_ in values} <= set(range(len(calls)))

    def test_a_task_can_report(self, dataman: DataManager) -> None:
        """A parameter named ``report`` gets a reporter."""
        self.run(dataman, tasks.reports, [()])

        assert [False] == list(dataman.values())

    def test_an_item_that_cannot_be_sent_fails_alone(self, dataman: DataManager) -> None:
        """An item that cannot be pickled is a failed task; the others run."""
        summary = self.run(dataman, tasks.keep, [1, iter(tasks.numbers([0])), 2], on_error="record")

        assert (2, 1) == (summary.done, summary.failed)
        assert [1, 2] == sorted(dataman.values())

    def test_an_iterable_that_raises_ends_the_sweep_but_loses_nothing(self, dataman: DataManager) -> None:
        """What was submitted is finished and stored; then the iterable's error is raised."""

        def items() -> Iterator[int]:
            yield from range(10)
            raise LookupError("no more items")

        with pytest.raises(LookupError, match="no more items"):
            self.run(dataman, tasks.keep, items())

        assert list(range(10)) == sorted(dataman.values())

    def test_nothing_to_do_is_done(self, dataman: DataManager) -> None:
        """A sweep without tasks ends at once."""
        summary = self.run(dataman, tasks.keep, [])

        assert (0, 0, 0) == (summary.done, summary.skipped, summary.failed)

    def test_sessions_are_sealed_at_the_end(self, dataman: DataManager) -> None:
        """When ``run_tasks`` returns, every session is one plain file."""
        self.run(dataman, tasks.keep, range(10))
        names = [path.name for path in Path(dataman.basepath).iterdir() if path.name != ".farm"]

        assert sorted(names) == sorted(Path(name).name for name in dataman.session_filenames())
