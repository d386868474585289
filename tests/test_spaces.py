"""Named parameter spaces: lazy, iterable again and again, with a length where there is one."""

from __future__ import annotations

import copy
import itertools
import math
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from futurefarm.errors import UsageError
from futurefarm.spaces import Params, cases, grid, sample, zipped
from futurefarm.task import call_of


@given(st.dictionaries(st.sampled_from("abcd"), st.lists(st.integers(), max_size=4)))
def test_a_grid_holds_every_combination_once(axes):
    space = grid(**axes)

    assert math.prod(map(len, axes.values())) == len(space)
    assert list(itertools.product(*axes.values())) == [tuple(point.values()) for point in space]
    assert list(space) == list(space)


def test_the_last_axis_of_a_grid_is_the_fastest():
    assert [(1, 5), (1, 6), (2, 5), (2, 6)] == [(p["k"], p["tau"]) for p in grid(k=[1, 2], tau=[5, 6])]


def test_a_grid_takes_axes_that_can_be_read_once():
    space = grid(k=(x for x in [1, 2]), tau=range(2))

    assert 4 == len(space) == len(list(space)) == len(list(space))


def test_a_huge_grid_costs_nothing_until_it_is_walked():
    space = grid(a=range(10**4), b=range(10**4), c=range(10**4))

    assert 10**12 == len(space)
    assert Params(a=0, b=0, c=0) == next(iter(space))


def test_zipped_goes_along_its_axes_together():
    space = zipped(k=[1, 2], tau=(x for x in [5, 6]))

    assert [Params(k=1, tau=5), Params(k=2, tau=6)] == list(space) == list(space)
    assert 2 == len(space)
    assert [] == list(zipped())


def test_zipped_refuses_axes_of_different_lengths_and_names_them():
    with pytest.raises(UsageError, match=r"'k': 2, 'tau': 3"):
        zipped(k=[1, 2], tau=[1, 2, 3])


def test_cases_are_taken_as_they_come():
    points = [{"k": 1}, {"k": 7, "tau": 2}]

    assert [Params(k=1), Params(k=7, tau=2)] == list(cases(points)) == list(cases(iter(points)))
    assert 2 == len(cases(points))


def test_cases_may_be_endless():
    assert [0, 1, 2] == [p["k"] for p in itertools.islice(cases({"k": k} for k in itertools.count()), 3)]


def test_params_become_keywords_wherever_they_have_been():
    point = Params(k=1, tau=5.0)

    for same in (point, pickle.loads(pickle.dumps(point)), copy.deepcopy(point)):
        assert ((), {"k": 1, "tau": 5.0}) == call_of(same)
        assert "Params(k=1, tau=5.0)" == repr(same)


def test_a_sample_is_the_same_for_the_same_seed():
    axes = {"k": (1.0, 2.0), "mode": ["a", "b"], "n": lambda rng: int(rng.poisson(3))}

    assert list(sample(20, seed=7, **axes)) == list(sample(20, seed=7, **axes))
    assert list(sample(20, seed=7, **axes)) != list(sample(20, seed=8, **axes))


def test_a_larger_sample_begins_with_the_smaller_one():
    assert list(sample(5, seed=7, k=(0, 1))) == list(sample(50, seed=7, k=(0, 1)))[:5]


def test_a_sample_stays_within_its_axes():
    points = list(sample(200, seed=7, k=(1.0, 2.0), mode=["a", "b"]))

    assert all(1 <= point["k"] < 2 for point in points)
    assert {"a", "b"} == {point["mode"] for point in points}
    assert 200 == len(sample(200, seed=7))
