"""Arguments that misbehave: each costs only itself, and nothing that had begun is lost."""

from __future__ import annotations

import math
import os
import threading

import numpy as np
import pytest

from futurefarm import DataManager, StopFlag, TasksFailedError, run_tasks
from futurefarm.spaces import grid
from futurefarm.testing.tasks import keep, square


def raises_after(number, error):
    yield from range(number)
    raise error


@pytest.mark.parametrize("executor", [pytest.param("loky", marks=pytest.mark.slow), "thread", "serial"])
@pytest.mark.parametrize("kind", [LookupError, KeyboardInterrupt, SystemExit, GeneratorExit, MemoryError])
def test_whatever_the_iterable_raises_comes_after_all_that_had_begun(dataman, kind, executor):
    error = kind("no more")
    with pytest.raises(kind) as caught:
        run_tasks(dataman, keep, raises_after(7, error), executor, workers=1, progress=False)

    assert error is caught.value
    assert any("after 7 items" in note for note in error.__notes__)
    assert list(range(7)) == sorted(dataman.values())


def test_an_iterable_that_sets_the_flag_and_raises_only_stops(dataman):
    flag = StopFlag()

    def items():
        yield 1
        flag.set()
        raise KeyboardInterrupt

    summary = run_tasks(dataman, keep, items(), "serial", stop=flag, progress=False)

    assert (1, "StopFlag.set()") == (summary.done, summary.stopped)


class Next:
    """An iterator by hand."""

    def __init__(self):
        self.left = [1, 2]

    def __iter__(self):
        return self

    def __next__(self):
        if not self.left:
            raise OSError("the file of arguments is gone")
        return self.left.pop()


def test_an_iterator_of_the_users_own_may_raise(dataman):
    with pytest.raises(OSError, match="is gone"):
        run_tasks(dataman, keep, Next(), "serial", progress=False)

    assert [1, 2] == sorted(dataman.values())


class BadIterable:
    def __iter__(self):
        raise TypeError("in my own __iter__")


def test_an_iterable_that_cannot_be_begun_tells_its_own_error(dataman):
    with pytest.raises(TypeError, match="in my own __iter__"):
        run_tasks(dataman, keep, BadIterable(), "serial")

    assert [] == dataman.session_filenames()


class Uncounted(list):
    def __len__(self):
        raise OverflowError("too many")


def test_a_length_that_is_not_known_is_no_error(dataman):
    summary = run_tasks(dataman, keep, Uncounted([1, 2]), "serial", progress=False)

    assert (2, None) == (summary.done, summary.left)


def test_a_space_of_more_points_than_can_be_counted_is_begun(dataman):
    flag = StopFlag()
    space = grid(**{f"x{number}": range(10) for number in range(20)})

    def task(**point):
        flag.set()

    summary = run_tasks(dataman, task, space, "serial", stop=flag, progress=False)

    assert (1, None) == (summary.done, summary.left)


class Raises:
    """Raises when it is compared, hashed or shown; it is a good argument all the same."""

    def __init__(self, x):
        self.x = x

    def __eq__(self, other):
        raise SystemExit("of __eq__")

    def __hash__(self):
        raise SystemExit("of __hash__")

    def __repr__(self):
        raise SystemExit("of __repr__")


class Anything:
    """Has every attribute."""

    def __getattr__(self, name):
        if name.startswith("__") and name != "__futurefarm_keywords__":
            raise AttributeError(name)
        return lambda: {"not": "keywords"}


def x_of(item):
    return item.x if isinstance(item, Raises) else type(item).__name__


@pytest.mark.parametrize("executor", ["loky", "thread"])
def test_an_item_is_neither_compared_nor_hashed_nor_shown(dataman, executor):
    run_tasks(
        dataman, x_of, [Raises(1), Raises(2), Raises(1), Anything()], executor, workers=1, progress=False
    )

    assert [1, 1, 2, "Anything"] == sorted(dataman.values(), key=str)


class Unpicklable:
    def __init__(self, error):
        self.error = error

    def __reduce__(self):
        raise self.error

    def __repr__(self):
        raise SystemExit("of __repr__")


class SpeechlessError(Exception):
    def __str__(self):
        raise SystemExit("of an error")


BAD = {
    "LookupError: no": LookupError("no"),
    "SystemExit: 3": SystemExit(3),
    "KeyboardInterrupt": KeyboardInterrupt(),
    "SystemExit: of an error": SpeechlessError(),
    "udce9": ValueError("caf\udce9"),
}


@pytest.mark.parametrize("executor", ["loky", "thread"])
def test_an_item_that_cannot_be_sent_fails_alone(dataman, executor):
    items = [1, *map(Unpicklable, BAD.values()), threading.Lock(), (x for x in ()), 2]
    with pytest.raises(TasksFailedError) as caught:
        run_tasks(dataman, keep, items, executor, workers=1, progress=False)
    failures = sorted(dataman.failures(), key=lambda failure: failure.number)

    assert (2, 7) == (caught.value.summary.done, caught.value.summary.failed)
    assert [1, 2] == sorted(dataman.values())
    assert list(range(1, 8)) == [failure.number for failure in failures]
    for text, failure in zip(BAD, failures):
        assert text in failure.error
        assert "Unpicklable" in failure.args


def load(folder):
    os.kill(os.getpid(), 9) if folder is None else sys_exit()


def sys_exit():
    raise SystemExit("when it is loaded")


class LoadsBadly:
    def __reduce__(self):
        return load, ("",)


@pytest.mark.parametrize("executor", ["loky", "thread"])
def test_an_item_that_cannot_be_loaded_fails_alone(dataman, executor):
    with pytest.raises(TasksFailedError):
        run_tasks(dataman, keep, [1, LoadsBadly(), 2], executor, workers=1, progress=False)
    (failure,) = dataman.failures()

    assert (1, "SystemExit: when it is loaded") == (failure.number, failure.error)
    assert [1, 2] == sorted(dataman.values())


ODD = [
    math.nan,
    math.nan,
    -0.0,
    0.0,
    None,
    {},
    {"a": [1]},
    [],
    {1, 2},
    {(1, 2): {3}},
    "caf\udce9",
    10**100,
    True,
    np.arange(3),
    np.arange(3.0),
    np.array(None),
    np.float32(0.1),
    np.array([math.nan]),
    2,
    2,
    b"",
    (),
    ((),),
    ...,
]


@pytest.mark.usefixtures("by_value")
def test_odd_items_are_skipped_when_they_were_done(dataman):
    """Not a number, unhashable, duplicated, empty: each has an identity that outlasts the process."""
    first = run_tasks(dataman, kinds, ODD, "loky", workers=1, progress=False)
    second = run_tasks(dataman, kinds, ODD, "thread", resume=True, progress=False)
    third = run_tasks(dataman, kinds, [*ODD, 2, math.nan, {"b"}], "thread", resume=True, progress=False)

    assert (len(ODD), 0) == (first.done, first.failed)
    assert (0, len(ODD)) == (second.done, second.skipped)
    assert (3, len(ODD)) == (third.done, third.skipped)


def kinds(*items):
    return [type(item).__name__ for item in items]


def changes(item):
    item.append("changed")
    return item


def test_a_task_that_changes_its_argument_changes_a_copy(dataman):
    """Its identity and what is on record are those of the argument that was given."""
    mine = ["given"]
    run_tasks(dataman, changes, [mine, mine], "thread", workers=2, progress=False)
    again = run_tasks(dataman, changes, [["given"]] * 2, "serial", resume=True, progress=False)

    assert ["given"] == mine
    assert [["given", "changed"]] * 2 == list(dataman.values())
    assert [["given"]] * 2 == [record.args for record in dataman.records()]
    assert 2 == again.skipped


def test_items_come_while_tasks_run(tmp_path):
    """A generator may wait for what a task of the same sweep does."""
    dataman = DataManager("farm", tmp_path)

    def items():
        yield 1
        while not len(dataman):
            threading.Event().wait(0.01)
        yield 2

    assert 2 == run_tasks(dataman, square, items(), "thread", workers=2, progress=False).done


def test_of_equal_items_as_many_are_skipped_as_were_done(dataman):
    run_tasks(dataman, abs, [1, 1, 2], "serial", progress=False)
    summary = run_tasks(dataman, abs, [1, 2, 1, 1, 2, 3, 1], "serial", resume=True, progress=False)
    replicates = sorted((record.args, record.replicate) for record in dataman.records())

    assert (4, 3) == (summary.done, summary.skipped)
    assert [(1, 0), (1, 1), (1, 2), (1, 3), (2, 0), (2, 1), (3, 0)] == replicates
