"""What all tasks share is written once, mapped by every worker, and part of what tells calls apart."""

from __future__ import annotations

import json
import os
import pickle
import resource
import signal
import threading

import numpy as np
import pytest

from futurefarm import DataManager, Params, run_tasks
from futurefarm.bundle import Bundle, NotSeenError, unpack
from futurefarm.errors import DirectoryError, StorageFullError, UsageError, UsageTypeError
from futurefarm.spaces import grid
from futurefarm.task import Chunk, Job, Receipt
from futurefarm.worker import leave, run_chunk

from .companion import run
from .test_worker import Elsewhere, can_hide, make_job, make_tasks

pytestmark = pytest.mark.usefixtures("by_value")

QUIET = {"progress": False, "workers": 1}
BIG = np.arange(100_000, dtype=float)  # 800 kB


def look_up(number, weights):
    return float(weights[number]), bool(getattr(weights, "flags", None) is None or weights.flags.writeable)


class Scaled:
    def __init__(self, factor):
        self.factor = factor

    def __call__(self, x, *, weights):
        return self.factor * x + float(weights[x])


@pytest.mark.parametrize("executor", ["loky", "process"])
def test_other_processes_get_the_values_mapped_and_read_only(dataman, executor):
    run_tasks(dataman, look_up, range(5), executor, shared={"weights": BIG}, **QUIET)

    assert [(float(number), False) for number in range(5)] == sorted(dataman.values())
    assert [] == list((dataman.directory.farm / "bundles").iterdir())


def the_same(number, weights):
    return id(weights)


@pytest.mark.parametrize("executor", ["thread", "serial"])
def test_threads_get_the_very_objects(dataman, executor):
    run_tasks(dataman, the_same, range(3), executor, shared={"weights": BIG}, **QUIET)

    assert {id(BIG)} == set(dataman.values())
    assert not (dataman.directory.farm / "bundles").exists(), "nothing was written"


def test_small_values_and_objects_of_scripts_travel_too(dataman):
    def both(x, a, b):
        return x, a, b.factor

    scope = {"__name__": "__main__"}
    exec("class Own: factor = 7", scope)
    run_tasks(dataman, both, [1], "loky", shared={"a": [1, 2], "b": scope["Own"]()}, **QUIET)

    assert [(1, [1, 2], 7)] == list(dataman.values())


def test_task_classes_get_them_at_each_call(dataman):
    run_tasks(dataman, Scaled, [1, 2], "thread", initargs=(10,), shared={"weights": BIG}, **QUIET)

    assert [11.0, 22.0] == sorted(dataman.values())


def test_resume_compares_them(dataman):
    for weights in (BIG, BIG.copy(), BIG + 1, BIG.astype(">f8")):
        run_tasks(dataman, look_up, [1], "serial", shared={"weights": weights}, resume=True, **QUIET)

    assert [1.0, 2.0] == sorted(value for value, _ in dataman.values())


def test_the_sweep_records_their_names_and_fingerprints(dataman):
    seen = set()
    for weights in (BIG, BIG.copy(), BIG + 1):
        summary = run_tasks(dataman, look_up, [1], "serial", shared={"weights": weights}, **QUIET)
        (record,) = (json.loads(text) for name, text in sweeps(dataman) if name == summary.sweep)
        seen.add(record["shared"]["weights"])

    assert [32, 32] == [len(fingerprint) for fingerprint in seen]


def sweeps(dataman):
    import sqlite3

    for path in dataman.directory.sessions():
        with sqlite3.connect(path) as connection:
            yield from connection.execute("SELECT name, record FROM sweep")
        connection.close()


def test_a_worker_that_does_not_see_the_directory_says_so_and_gets_them_sent(dataman):
    shared = Bundle({"weights": BIG}, dataman.directory.farm / "bundles" / "sweep.1.1.host")
    blind = Job(*pickle.loads(make_job(dataman, look_up, directory_id="elsewhere")))
    job, tasks = pickle.dumps(tuple(blind._replace(shared=shared.write()))), make_tasks([3, 4])
    here_not, sent, kept = (
        Receipt.loads(run_chunk(Chunk.dumps(job, tasks, data))) for data in (None, shared.whole(), None)
    )
    leave("sweep")

    assert (True, 0) == (here_not.lacks, here_not.ended)
    assert [False, False] == [sent.lacks, kept.lacks]
    for receipt in (sent, kept):
        assert [3.0, 4.0] == [pickle.loads(outcome.value)[0] for outcome in receipt.outcomes]


@pytest.mark.slow
def test_a_process_that_sees_other_files_gets_them_sent(dataman, tmp_path, by_value):
    if not can_hide(tmp_path):
        pytest.skip("this system does not let a process have mounts of its own")
    factory = lambda workers: Elsewhere(dataman.basepath)  # noqa: E731
    summary = run_tasks(dataman, look_up, range(3), factory, shared={"weights": BIG}, **QUIET)

    assert (3, 0) == (summary.done, summary.failed)
    assert [0.0, 1.0, 2.0] == sorted(value for value, _ in dataman.values())


def die_once(number, marker, weights):
    if number == 3 and not os.path.exists(marker):
        open(marker, "w").close()
        os.kill(os.getpid(), signal.SIGKILL)
    return float(weights[number])


def test_a_worker_that_is_replaced_maps_them_again(dataman, tmp_path, by_value):
    shared = {"weights": BIG, "marker": str(tmp_path / "died")}
    summary = run_tasks(dataman, die_once, range(6), "loky", shared=shared, **QUIET)

    assert (6, 0) == (summary.done, summary.failed)
    assert [float(number) for number in range(6)] == sorted(dataman.values())


@pytest.mark.parametrize(
    ("shared", "items", "message"),
    [
        ({"wieghts": 1}, [1], "takes no argument of that name"),
        ({"weights": 1, "report": 2}, [1], "report"),
        ({"weights": 1}, [(1, 2)], "'weights' is in shared, and in an item"),
        ({"weights": 1}, grid(number=[1], weights=[2]), "'weights' is in shared, and in an item"),
        ([1], [1], "must be a dict"),
        ({1: 2}, [1], "must be a dict"),
        ({"weights": threading.Lock()}, [1], "stable identity"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_runs(dataman, shared, items, message):
    with pytest.raises(UsageError, match=message):
        run_tasks(dataman, look_up, items, "serial", shared=shared, **QUIET)
    assert 0 == dataman.itemcount() == sum(1 for _ in dataman.records())


def test_an_item_that_has_the_argument_too_fails_alone(dataman):
    items = iter([Params(number=1), Params(number=2, weights=3)])
    summary = run_tasks(
        dataman, look_up, items, "serial", shared={"weights": BIG}, on_error="record", **QUIET
    )

    assert (1, 1) == (summary.done, summary.failed)
    assert "'weights' is in shared" in next(dataman.failures()).error


def test_what_cannot_be_pickled_is_refused_before_anything_runs(dataman):
    class Shy:
        def __reduce_ex__(self, protocol):
            if protocol == 5:
                raise TypeError("not for others")
            return str, ("shy",)

    with pytest.raises(UsageTypeError, match="not for others"):
        run_tasks(dataman, look_up, [1], "loky", shared={"weights": Shy()}, **QUIET)


def test_a_bundle_comes_out_as_it_went_in(tmp_path):
    path = tmp_path / "bundles" / "sweep.1.1.elsewhere"
    many = list(range(200_000))
    values = {"a": BIG, "b": BIG[::-1], "c": many, "d": {"e": BIG}, "f": b"small"}
    bundle = Bundle(values, path)
    data = bundle.write()
    found = unpack(data, path)
    bundle.remove()

    assert list(values) == list(found)
    assert (BIG == found["a"]).all()
    assert (BIG[::-1] == found["b"]).all()
    assert (many, b"small") == (found["c"], found["f"])
    assert found["d"]["e"] is found["a"], "what is one object stays one"
    assert len(data) < 10_000
    with pytest.raises(NotSeenError):
        unpack(data, path)


def test_a_file_of_another_sweep_is_not_taken_for_ours(tmp_path):
    one, other = (tmp_path / "bundles" / f"sweep{number}.1.1.elsewhere" for number in (1, 2))
    data = Bundle({"a": BIG}, one).write()
    Bundle({"a": BIG}, other).write()
    with pytest.raises(NotSeenError):
        unpack(data, other)


def test_what_killed_programs_left_is_removed(dataman, tmp_path):
    source = """
        import os, signal, sys
        import numpy as np
        from futurefarm import DataManager, run_tasks

        def die(x, weights):
            os.kill(os.getppid(), signal.SIGKILL)

        if __name__ == "__main__":
            shared = {"weights": np.zeros(100_000)}
            run_tasks(DataManager("farm", sys.argv[1]), die, [1], shared=shared, workers=1, progress=False)
    """
    run(source, tmp_path, status=-signal.SIGKILL)
    folder = dataman.directory.farm / "bundles"
    (left,) = folder.iterdir()
    other_host = left.with_name("sweep.1.1.elsewhere")
    other_host.touch()
    run_tasks(dataman, look_up, [1], "loky", shared={"weights": BIG}, **QUIET)

    assert [other_host] == list(folder.iterdir())


def test_a_full_disk_is_told_before_anything_runs(disk):
    dataman = DataManager("farm", disk.path)
    with pytest.raises(StorageFullError, match="Nothing was run"):
        run_tasks(dataman, look_up, [1], "loky", shared={"weights": np.zeros(300_000)}, **QUIET)

    assert [] == list((dataman.directory.farm / "bundles").iterdir())


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "bundles").touch()
    with pytest.raises(DirectoryError, match="Nothing was run"):
        Bundle({"a": BIG}, tmp_path / "bundles" / "sweep.1.1.elsewhere").write()


def test_the_memory_of_a_large_array_is_not_copied(dataman):
    large = np.arange(8_000_000, dtype=float)  # 64 MB
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    run_tasks(dataman, look_up, [1], "loky", shared={"weights": large}, **QUIET)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before

    assert grown < 20_000
