"""What is large of a result is on disk when its task ends, and stays with it until it is committed."""

from __future__ import annotations

import errno
import os
import pickle

import numpy as np
import pytest

from futurefarm import DataManager, blobs, run_tasks
from futurefarm.blobs import LARGE, has_trailer
from futurefarm.errors import SessionError, UnstoredError
from futurefarm.store import sidecar_of
from futurefarm.task import Chunk, Receipt
from futurefarm.worker import batch, commit, crew, leave, run_chunk

from .test_worker import make_job, make_tasks, run

SIZE = LARGE // 8


@pytest.fixture(autouse=True)
def _leave():
    yield
    leave("sweep")


def array(number):
    return np.full(SIZE, number)


def text(number):
    return str(number) * LARGE


shared = np.zeros(SIZE)


def changing(number):
    """Returns one and the same array again and again, as simulators do that fill a buffer."""
    shared[:] = number
    return shared


def sidecars(dataman):
    return [path for path in map(sidecar_of, dataman.directory.sessions()) if path.exists()]


def test_a_task_may_change_the_array_that_an_earlier_one_has_returned(dataman):
    run(dataman, changing, range(5))

    assert list(range(5)) == [value[-1] for value in dataman.values()]
    assert 1 == len(sidecars(dataman))


def test_a_worker_holds_no_large_result(dataman, monkeypatch):
    held = []
    store = batch.Batch._store
    monkeypatch.setattr(batch.Batch, "_store", lambda self: (held.extend(self._outcomes), store(self))[1])
    for function in (array, text):
        run(dataman, function, range(5))

    assert 10 == dataman.itemcount()
    assert max(len(outcome.value) for outcome in held) < 1000


@pytest.mark.parametrize("function", [array, text])
def test_what_a_worker_that_does_not_see_the_directory_sends_goes_beside_the_session(function, dataman):
    receipt = Receipt.loads(run(dataman, function, range(2), directory_id="of another machine"))
    assert not any(has_trailer(outcome.value) for outcome in receipt.outcomes)
    commit(make_job(dataman, function), list(receipt.outcomes))

    assert [0, 1] == [int(value[-1]) for value in dataman.values()]
    (path,) = dataman.directory.sessions()
    assert path.stat().st_size + 2 * LARGE <= sidecar_of(path).stat().st_size + path.stat().st_size
    assert path.stat().st_size < LARGE


def test_a_session_that_is_left_with_a_long_log_takes_no_result_with_it(dataman, monkeypatch):
    monkeypatch.setattr(crew, "LOG_LIMIT", 10_000)
    monkeypatch.setattr(batch, "COMMIT_AFTER", 1e9)
    monkeypatch.setattr(batch, "WORTH", 1e9)

    def mixed(number):
        running = next(iter(crew._crews.values()))
        if number == 3:  # its log becomes long while results wait that lie beside it
            running._session.commit("other", "{}", [])
            running._session["filler"] = os.urandom(100_000)
        return array(number)

    receipt = Receipt.loads(run(dataman, mixed, range(6)))
    assert (6, 0) == (receipt.ended, receipt.unstored)
    assert 2 == len(dataman.directory.sessions())
    assert list(range(6)) == sorted(v[-1] for k, v in dataman.items() if k != "filler")
    assert dataman.check_readable() is None


@pytest.fixture
def fails(monkeypatch):
    """Let the first sync of large values fail, or as many as are told."""

    def fail(number=1):
        left = [OSError(errno.EIO, "Input/output error")] * number
        sync = blobs.writer._sync

        def failing(fd):
            if left:
                raise left.pop()
            sync(fd)

        monkeypatch.setattr(blobs.writer, "_sync", failing)

    return fail


@pytest.mark.parametrize("function", [array, text])
def test_after_a_failed_sync_the_results_are_written_again_elsewhere(function, fails, dataman):
    fails()
    receipt = Receipt.loads(run(dataman, function, range(3)))

    assert (3, 0, ()) == (receipt.ended, receipt.unstored, receipt.outcomes)
    assert [0, 1, 2] == [int(value[-1]) for value in dataman.values()]
    assert 2 == len(sidecars(dataman))
    leave("sweep")
    assert [0, 3] == sorted(map(len, map(keys_of, dataman.directory.sessions())))


def keys_of(path):
    with DataManager.at(path.parent).session(path.name) as session:
        return list(session)


def test_what_cannot_be_stored_here_is_sent_with_all_that_is_in_it(fails, dataman):
    fails(2)
    receipt = Receipt.loads(run(dataman, array, [7]))

    (outcome,) = receipt.outcomes
    assert 7 == pickle.loads(outcome.value)[-1]
    assert 0 == dataman.itemcount()


def test_what_was_lost_by_a_failing_disk_is_not_taken_for_stored(fails, dataman, monkeypatch):
    fails()
    keep = crew.Kept.keep

    def spoilt(self, session, stream, buffers):
        value = keep(self, session, stream, buffers)
        os.truncate(sidecar_of(session.store.path), 1000)
        return value

    monkeypatch.setattr(crew.Kept, "keep", spoilt)
    with pytest.raises(SessionError, match="cannot be read again"):
        run(dataman, array, [1])

    assert 0 == dataman.itemcount()


def test_a_result_for_which_there_is_no_space_waits_until_there_is(disk):
    dataman = DataManager("farm", disk.path)
    job = make_job(dataman, array, full_wait=0.1)
    disk.fill(free=150_000)
    receipt = Receipt.loads(run_chunk(Chunk.dumps(job, make_tasks([1, 2]))))
    assert (0, 2) == (receipt.ended, receipt.unstored)

    disk.empty()
    receipt = Receipt.loads(run_chunk(Chunk.dumps(job, make_tasks([1, 2]))))
    assert (2, 0) == (receipt.ended, receipt.unstored)
    assert [1, 2] == [value[-1] for value in dataman.values()]


@pytest.mark.parametrize("executor", ["thread", "loky"])
def test_a_sweep_keeps_large_results(executor, dataman):
    run_tasks(dataman, changing if executor == "loky" else array, range(6), executor=executor, workers=2)

    assert list(range(6)) == sorted(value[-1] for value in dataman.values())
    assert sum(path.stat().st_size for path in dataman.directory.sessions()) < LARGE
    run_tasks(dataman, changing if executor == "loky" else array, range(6), executor=executor, resume=True)
    assert 6 == dataman.itemcount()


def test_a_sweep_on_a_failing_disk_says_what_is_not_stored(fails, dataman):
    fails(100)
    with pytest.raises(UnstoredError, match="large values could not be written") as caught:
        run_tasks(dataman, array, [1, 2], executor="serial")

    assert set(caught.value.tasks) <= {0, 1}
    assert 0 == dataman.itemcount()
