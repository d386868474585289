"""Each sweep leaves a record of what ran, where and when."""

from __future__ import annotations

import functools
import json
import os
import platform
import time

from futurefarm.directory import computer_name
from futurefarm.provenance import new_sweep_id, sweep_record


def double(x):
    return 2 * x


def triple(x):
    return 3 * x


def record(function):
    return json.loads(sweep_record(function, "loky", 4, 20, {}))


def test_a_record_says_what_ran_where_and_when():
    before = time.time()
    said = record(double)

    assert f"{__name__}:double" == said["function"]
    assert ("loky", 4, 20) == (said["executor"], said["workers"], said["total"])
    assert (computer_name(), os.getpid(), os.getcwd()) == (said["by"], said["pid"], said["cwd"])
    assert platform.python_version() == said["python"]
    assert before <= said["started"] <= time.time()


def test_a_record_knows_one_source_from_another():
    @functools.wraps(double)
    def decorated(x):
        return double(x)

    assert record(double)["source"] == record(functools.partial(double, 1))["source"]
    assert record(double)["source"] == record(decorated)["source"]
    assert record(double)["source"] != record(triple)["source"]
    assert record(len)["source"] is None


def test_sweeps_are_named_uniquely_and_in_the_order_of_time():
    names = [new_sweep_id() for _ in range(100)]

    assert 100 == len(set(names))
    assert sorted(name[:15] for name in names) == [name[:15] for name in names]
