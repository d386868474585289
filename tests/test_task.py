"""What travels to a worker and back is small, opaque, and arrives as it was sent."""

from __future__ import annotations

import pickle
import sqlite3
import sys
import threading

import numpy as np
import pytest

from futurefarm.errors import UnstorableError
from futurefarm.spaces import Params
from futurefarm.task import (
    LARGEST,
    MAX_FAILED,
    PROTOCOL,
    RECEIPT_SIZE,
    Chunk,
    Outcome,
    Receipt,
    Task,
    call_of,
    dumps_function,
    dumps_item,
    dumps_result,
)

from .companion import run

TASK = Task(7, b"i" * 16, 0, 1, pickle.dumps(3))
OUTCOME = Outcome(TASK, "ok", pickle.dumps(9), None, None, "host", 1, 2.5, 0.5, None)


def test_a_chunk_arrives_as_it_was_sent():
    job, tasks, shared = Chunk.loads(Chunk.dumps(b"job", [TASK, TASK._replace(number=8)]))

    assert (b"job", [7, 8], None) == (job, [task.number for task in tasks], shared)
    assert TASK == tasks[0]
    assert Task is type(tasks[0])


def test_a_receipt_arrives_as_it_was_sent():
    for receipt in (
        Receipt(3, (0, 2), (), 0.1, "session"),
        Receipt(1, (), (), 0.1, None, 3, outcomes=(OUTCOME, OUTCOME._replace(value=None))),
    ):
        assert receipt == Receipt.loads(receipt.dumps())
        assert all(isinstance(outcome.task, Task) for outcome in Receipt.loads(receipt.dumps()).outcomes)


def test_the_longest_receipt_crosses_a_pipe_in_one_piece():
    most = tuple(range(10**9, 10**9 + MAX_FAILED))
    receipt = Receipt(10**9, most, (), 1e300, "u" * 100)

    assert len(receipt.dumps()) <= RECEIPT_SIZE


@pytest.mark.parametrize(
    ("item", "call"),
    [
        (1, ((1,), {})),
        ((1, 2), ((1, 2), {})),
        ((), ((), {})),
        (((1, 2),), (((1, 2),), {})),
        ([1, 2], (([1, 2],), {})),
        ({"a": 1}, (({"a": 1},), {})),
        (Params(a=1, b=2), ((), {"a": 1, "b": 2})),
        (Params, ((Params,), {})),
        (None, ((None,), {})),
        ("ab", (("ab",), {})),
    ],
)
def test_an_item_stands_for_a_call(item, call):
    assert call == call_of(item)


def test_a_row_of_an_array_is_one_argument():
    row = np.arange(6).reshape(3, 2)[1]
    args, kwargs = call_of(row)

    assert ([row], {}) == (list(args), kwargs)


def test_plain_items_are_pickled_without_cloudpickle():
    program = """
        import pickle, sys
        from futurefarm.task import dumps_item

        for item in [1, (1, 2.5), "a", None, (True, b"x")]:
            assert item == pickle.loads(dumps_item(item))
        assert "cloudpickle" not in sys.modules
    """
    assert "" == run(program)


def test_items_of_main_are_pickled_by_value():
    """A worker need not be able to import the script."""
    program = """
        import subprocess, sys
        from futurefarm.task import dumps_item

        class Local:
            def __init__(self, x): self.x = x

        code = "import pickle, sys; print(pickle.load(sys.stdin.buffer)[0].x)"
        subprocess.run([sys.executable, "-c", code], input=dumps_item((Local(5), 1)), check=True)
    """
    assert "5" == run(program)


@pytest.mark.parametrize("item", [np.arange(3), (np.float64(2), np.arange(2)), np.array([{}], object)])
def test_arrays_are_items(item):
    np.testing.assert_equal(item, pickle.loads(dumps_item(item)))


def test_functions_travel_with_what_they_close_over():
    n = 3
    function, bound = pickle.loads(dumps_function(lambda x: x + n, (1,)))

    assert (4, (1,)) == (function(1), bound)


def test_functions_remember_the_file_that_they_were_written_in():
    """Or the traceback in the worker would show no line of it."""
    namespace = {"__name__": "__main__"}
    exec(
        compile("def f():\n    return [lambda: 1 for _ in range(1)]", "/home/user/script.py", "exec"),
        namespace,
    )
    (function,) = pickle.loads(dumps_function(namespace["f"]))

    assert "/home/user/script.py" == function.__code__.co_filename == function()[0].__code__.co_filename


def test_a_result_is_read_by_pickle_alone():
    value = {"a": [1, 2.5], "b": np.arange(3)}
    data = dumps_result(value)

    np.testing.assert_equal(value, pickle.loads(data))
    assert data == pickle.dumps(value, PROTOCOL)


def test_a_result_of_a_local_class_is_stored_by_value():
    class Local:
        def __init__(self, x):
            self.x = x

    assert 7 == pickle.loads(dumps_result(Local(7))).x


@pytest.mark.parametrize("value", [threading.Lock(), sys.stdout, sys, [threading.Lock()], sys._getframe()])
def test_a_result_that_holds_more_than_data_is_refused(value):
    with pytest.raises(UnstorableError, match=r"cannot be stored.*Return plain values"):
        dumps_result(value)


def test_a_generator_as_a_result_is_refused_with_a_hint():
    with pytest.raises(UnstorableError, match=r"list\(\.\.\.\)"):
        dumps_result(x for x in [1])


def test_an_argument_that_is_larger_than_sqlite_takes_is_refused_by_size(monkeypatch):
    monkeypatch.setattr("futurefarm.task.LARGEST", 1000)

    assert dumps_item(bytes(900))
    with pytest.raises(UnstorableError, match=r"an argument of 1,\d\d\d bytes .* up to 1,000"):
        dumps_item(bytes(1000))


def test_a_row_of_sqlite_takes_the_largest_argument():
    connection = sqlite3.connect(":memory:")
    limit = connection.getlimit(sqlite3.SQLITE_LIMIT_LENGTH)
    connection.close()

    assert limit > LARGEST
