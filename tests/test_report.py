"""The reporter understands every simulator, and covers the part of the task that it was made for."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from futurefarm.report import Reporter


class Recorder:
    def __init__(self):
        self.fractions = []
        self.texts = []
        self.stop = False
        self.report = Reporter(self.fractions.append, self.texts.append, lambda: self.stop)


@pytest.fixture
def seen():
    return Recorder()


@pytest.mark.parametrize(
    ("args", "fraction", "text"),
    [
        ((0.3,), [0.3], []),
        ((1,), [1.0], []),
        ((0.3, "epoch 3"), [0.3], ["epoch 3"]),
        (("loading",), [], ["loading"]),
        ((12.5, 0.4), [0.4], []),  # Brian 1: elapsed, complete
        ((12.5, 0.4, 0.0, 30.0), [0.4], []),  # Brian 2: elapsed, completed, start, duration
    ],
)
def test_it_is_called_in_every_way_that_simulators_know(args, fraction, text, seen):
    seen.report(*args)

    assert (fraction, text) == (seen.fractions, seen.texts)


@pytest.mark.parametrize("args", [(), (1, 2, 3), (1, 2, 3, 4, 5), ("a", "b", "c")])
def test_another_number_of_arguments_is_an_error(args, seen):
    with pytest.raises(TypeError, match="report takes"):
        seen.report(*args)

    assert [] == seen.fractions + seen.texts


@given(st.floats())
def test_a_fraction_stays_between_none_and_all(fraction):
    fractions = []
    Reporter(fractions.append, print, bool)(fraction)

    assert 0.0 <= fractions[0] <= 1.0


@given(st.integers(1, 50), st.integers(1, 5))
def test_parts_one_after_the_other_cover_the_whole(n, inner):
    """From 0 to 1, and never back."""
    fractions = []
    report = Reporter(fractions.append, print, bool)
    for i in range(n):
        for j in range(inner):
            part = report.subtask(i, n).subtask(j, inner)
            part(0.0)
            part(1.0)

    assert [0.0, 1.0] == pytest.approx([fractions[0], fractions[-1]])
    assert all(one <= next_ + 1e-12 for one, next_ in pairwise(fractions))


@pytest.mark.parametrize(("i", "n"), [(-1, 3), (3, 3), (0, 0)])
def test_a_part_that_does_not_exist_is_refused(i, n, seen):
    with pytest.raises(ValueError, match=f"no part {i} of {n}"):
        seen.report.subtask(i, n)


def test_a_task_can_ask_whether_to_stop(seen):
    part = seen.report.subtask(0, 2)
    before = part.should_stop
    seen.stop = True

    assert (False, True) == (before, part.should_stop)


def test_it_is_not_mistaken_for_a_stream(seen):
    """Brian writes to what has `write` and `flush`, instead of calling it."""
    assert not hasattr(seen.report, "write")
    assert callable(seen.report)
