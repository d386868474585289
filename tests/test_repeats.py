"""An array that is in many items is written once, and yet each task gets what its item had."""

from __future__ import annotations

import pickle
import resource

import numpy as np
import pytest

from futurefarm import DataManager, Params, run_tasks
from futurefarm.bundle import Bundle, StoredArray
from futurefarm.farm.repeats import Repeats
from futurefarm.identity import fingerprint
from futurefarm.task import Chunk, Job, Receipt
from futurefarm.worker import leave, run_chunk

from .test_worker import make_job, make_tasks

QUIET = {"progress": False, "workers": 1}
BIG = np.arange(200_000, dtype=float)  # 1.6 MB


def look_up(number, weights):
    return number, float(weights[number]), weights.flags.writeable


@pytest.mark.parametrize(
    "items",
    [
        [(number, BIG) for number in range(4)],
        [Params(number=number, weights=BIG) for number in range(4)],
        ((number, BIG) for number in range(4)),
    ],
    ids=["tuples", "named", "generated"],
)
def test_an_array_in_every_item_is_mapped(dataman, items, by_value):
    run_tasks(dataman, look_up, items, "loky", **QUIET)

    assert [(number, float(number), False) for number in range(4)] == sorted(dataman.values())
    assert [] == list((dataman.directory.farm / "bundles").iterdir())


def test_the_ledger_tells_what_the_array_was(dataman, by_value):
    run_tasks(dataman, look_up, [(1, BIG)] * 2, "loky", **QUIET)
    for trusted in (True, False):
        for record in DataManager("farm", dataman.directory.path.parent, trusted=trusted).records():
            number, weights = record.args
            assert (1, "<an array of shape (200000,) and dtype <f8, which many tasks shared>") == (
                number,
                repr(weights),
            )


def reused():
    weights = BIG.copy()
    for number in range(6):
        yield number, weights
        weights += 1


def test_a_generator_may_give_the_same_array_with_other_numbers(dataman, by_value):
    run_tasks(dataman, look_up, reused(), "loky", **QUIET)

    assert [(number, 2.0 * number) for number in range(6)] == sorted(v[:2] for v in dataman.values())


def test_resume_knows_the_array_by_its_content(dataman, by_value):
    run_tasks(dataman, look_up, [(number, BIG) for number in range(3)], "loky", **QUIET)
    again = [(number, BIG.copy()) for number in range(3)]
    summary = run_tasks(dataman, look_up, again, "thread", resume=True, **QUIET)

    assert (0, 3) == (summary.done, summary.skipped)


def test_tasks_in_threads_get_arrays_of_their_own(dataman):
    run_tasks(dataman, look_up, [(number, BIG) for number in range(3)], "thread", **QUIET)

    assert {True} == {writeable for *_, writeable in dataman.values()}


@pytest.fixture
def bundle(tmp_path):
    return Bundle({}, tmp_path / "bundles" / "sweep.1.1.host")


def stored(items, repeats: Repeats) -> list[bool]:
    return [type(repeats.stand_in(item)) is StoredArray for item in items]


def test_what_stands_for_an_array_has_its_identity(bundle):
    stand_in = Repeats(bundle, iter([])).stand_in(BIG)

    assert fingerprint(BIG) == fingerprint(stand_in)
    assert (BIG == bundle.get(stand_in)).all()


def test_arrays_that_do_not_come_again_are_not_written_for_long(bundle):
    repeats = Repeats(bundle, iter([]))
    arrays = [BIG + number for number in range(5)]

    assert [True, True, False, False, False] == stored(arrays, repeats)
    assert [True] * 5 == stored(arrays, repeats), "now that they have"


def test_an_array_that_is_gone_is_forgotten(bundle):
    repeats = Repeats(bundle, iter([]))
    for number in range(3):
        repeats.stand_in(BIG + number)

    assert {} == repeats._known


def test_small_strided_and_unusual_arrays_travel_with_their_items(bundle):
    repeats = Repeats(bundle, iter([]))
    items = [BIG[:10], BIG[::-1], np.array([None] * 200_000), np.zeros(200_000, "f8,f8"), [BIG], "text", 1]

    assert [False] * len(items) == stored(items, repeats)


def test_on_a_full_disk_arrays_travel_with_their_items(tmp_path):
    (tmp_path / "bundles").touch()
    repeats = Repeats(Bundle({}, tmp_path / "bundles" / "sweep.1.1.host"), iter([]))

    assert [False, False] == stored([BIG, BIG], repeats)


def test_a_worker_that_does_not_see_the_array_gets_it_sent(dataman):
    bundle = Bundle({}, dataman.directory.farm / "bundles" / "sweep.1.1.host")
    job = Job(*pickle.loads(make_job(dataman, look_up, directory_id="elsewhere")))
    data = pickle.dumps(tuple(job._replace(shared=bundle.write())))
    repeats = Repeats(bundle, iter([]))
    tasks = make_tasks([(1, BIG[:2]), repeats.stand_in((2, BIG))])
    here_not = Receipt.loads(run_chunk(Chunk.dumps(data, tasks)))
    sent = Receipt.loads(run_chunk(Chunk.dumps(data, tasks[1:], bundle.whole())))
    leave("sweep")
    repeats.give_up()

    assert (True, 1, 1) == (here_not.lacks, here_not.ended, len(here_not.outcomes)), "the first is done"
    assert (2, 2.0, False) == pickle.loads(sent.outcomes[0].value)
    assert BIG is repeats.stand_in(BIG)


def test_the_memory_of_the_parent_stays_flat(dataman, by_value):
    large = np.arange(8_000_000, dtype=float)  # 64 MB
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    run_tasks(dataman, look_up, [(number, large) for number in range(4)], "loky", **QUIET)

    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000
