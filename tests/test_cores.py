"""Cores are counted as what may be used, and workers share them."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from futurefarm import DataManager, run_tasks
from futurefarm.cores import VARIABLES, _quotas, limits_of_threads, threads_limited_here, usable_cores
from futurefarm.errors import UsageError

from .companion import run


def test_usable_cores_are_those_of_this_process():
    assert 1 <= usable_cores() <= (os.cpu_count() or 1)


@pytest.mark.skipif("not hasattr(os, 'sched_setaffinity')", reason="processes cannot be bound to cores here")
def test_a_process_that_is_bound_to_one_core_uses_one():
    code = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); import futurefarm.cores as c"

    assert "1" == run(f"{code}; print(c.usable_cores())")


def groups(folder: Path, own: str, **files: str) -> list[float]:
    """Return the quotas that are seen in control groups of our making; in names, ``__`` stands for ``/``."""
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("_max", ".max").replace("_cfs", ".cfs")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (folder / "own").write_text(own)
    return sorted(_quotas(folder, folder / "own"))


def test_the_quota_of_a_container_counts(tmp_path):
    assert [1.5] == groups(tmp_path, "0::/\n", cpu_max="150000 100000\n")


def test_every_group_around_the_process_counts(tmp_path):
    files = {
        "slice__cpu_max": "300000 100000",
        "slice__job__cpu_max": "max 100000",
        "cpu_max": "50000 100000",
    }

    assert [0.5, 3.0] == groups(tmp_path, "0::/slice/job\n", **files)


def test_groups_of_version_1_count(tmp_path):
    files = {"cpu__job__cpu_cfs_quota_us": "250000\n", "cpu__job__cpu_cfs_period_us": "100000\n"}
    files |= {"cpu__cpu_cfs_quota_us": "-1\n", "cpu__cpu_cfs_period_us": "100000\n"}

    assert [2.5] == groups(tmp_path, "4:memory:/job\n3:cpu,cpuacct:/job\n0::/\n", **files)


def test_without_groups_there_is_no_quota(tmp_path):
    assert [] == groups(tmp_path, "0::/\n")
    assert [] == list(_quotas(tmp_path, tmp_path / "no Linux"))


@pytest.mark.parametrize(("quota", "cores"), [(0.1, 1), (1.4, 1), (1.5, 2), (3.9, 4)])
def test_parts_of_a_core_are_rounded(monkeypatch, quota, cores):
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(8)), raising=False)
    monkeypatch.setattr("os.process_cpu_count", lambda: 8, raising=False)
    monkeypatch.setattr("futurefarm.cores._quotas", lambda: [quota])

    assert cores == usable_cores()


@pytest.fixture
def eight_cores(monkeypatch):
    monkeypatch.setattr("futurefarm.cores.usable_cores", lambda: 8)
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(("workers", "share"), [(1, "8"), (3, "2"), (8, "1"), (20, "1")])
def test_workers_have_a_fair_share_of_threads(eight_cores, workers, share):
    assert dict.fromkeys(VARIABLES, share) == limits_of_threads(workers, None)


def test_what_the_user_has_set_is_left_unless_he_asks_for_a_number(eight_cores, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "5")

    assert set(VARIABLES) - {"OMP_NUM_THREADS"} == set(limits_of_threads(2, None))
    assert dict.fromkeys(VARIABLES, "3") == limits_of_threads(2, 3)


def threads_of_libraries(_):
    """Return the limits in the environment, and the threads of the linear algebra of numpy."""
    return {os.environ[name] for name in VARIABLES}, set(threads_here(_))


def threads_here(_):
    import numpy  # noqa: F401
    from threadpoolctl import threadpool_info

    return [pool["num_threads"] for pool in threadpool_info()]


@pytest.mark.parametrize("name", ["loky", "process"])
def test_libraries_in_workers_use_so_many_threads(dataman, name):
    before = dict(os.environ)
    run_tasks(dataman, threads_of_libraries, [0], name, workers=1, inner_threads=1, progress=False)

    assert [({"1"}, {1})] == list(dataman.values())
    assert before == dict(os.environ)


@pytest.mark.parametrize("name", ["loky", "process"])
@pytest.mark.slow
def test_a_script_that_has_loaded_its_libraries_already_limits_those_of_its_workers(tmp_path, name):
    script = tmp_path / "script.py"
    script.write_text(
        f"""
import sys
import numpy
import threadpoolctl
from futurefarm import DataManager, run_tasks

def threads(x):
    numpy.zeros(1)
    return sorted({{pool["num_threads"] for pool in threadpoolctl.threadpool_info()}})

if __name__ == "__main__":
    dataman = DataManager("farm", {str(tmp_path)!r})
    run_tasks(dataman, threads, [0], {name!r}, workers=1, inner_threads=1, progress=False)
    print(list(dataman.values()))
"""
    )

    assert "[[1]]" == run(f"import runpy; runpy.run_path({str(script)!r}, run_name='__main__')")


def test_threads_of_this_process_are_limited_while_the_sweep_runs(dataman):
    before = threads_here(0)
    run_tasks(dataman, threads_here, [0], "thread", inner_threads=1, progress=False)

    assert [[1] * len(before)] == list(dataman.values())
    assert before == threads_here(0)


def test_threads_that_cannot_be_limited_are_told_of(dataman, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "threadpoolctl", None)
    run_tasks(dataman, abs, [-1], "serial", inner_threads=1, progress=True)

    assert threads_limited_here(1) is None
    assert "pip install threadpoolctl" in capsys.readouterr().err


@pytest.mark.parametrize("threads", [0, -1, 1.5, True, "2"])
def test_a_number_of_threads_that_cannot_work_is_refused(tmp_path, threads):
    with pytest.raises(UsageError, match="inner_threads"):
        run_tasks(DataManager("farm", tmp_path), abs, [1], inner_threads=threads)
