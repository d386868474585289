"""A time limit is a number of seconds, or follows the median."""

from __future__ import annotations

import pytest

from futurefarm.errors import UsageError
from futurefarm.limit import FLOOR, Limit


def test_a_limit_by_the_median_holds_once_ten_tasks_have_ended():
    limit = Limit("3x median")
    for _ in range(9):
        limit.note(2.0)
    assert limit.seconds is None
    limit.note(50.0)

    assert 6.0 == limit.seconds


def test_a_limit_by_the_median_follows_the_tasks():
    limit = Limit("2.5 x median")
    for _ in range(10):
        limit.note(2.0)
    for _ in range(1000):
        limit.note(4.0)

    assert 10.0 == limit.seconds


def test_a_limit_by_the_median_is_never_shorter_than_a_second():
    limit = Limit("2x median")
    for _ in range(10):
        limit.note(1e-6)

    assert FLOOR == limit.seconds == 1.0


@pytest.mark.parametrize(
    "timeout", [0, -1, True, "soon", "x median", "0x median", "-2x median", [1], float("nan")]
)
def test_what_is_no_time_is_refused(timeout):
    with pytest.raises(UsageError, match="5x median"):
        Limit(timeout)
