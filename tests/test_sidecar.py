"""Large values lie beside their session, are on disk before what refers to them, and are found again."""

from __future__ import annotations

import errno
import os
import pickle
import shelve
import shutil
import sys
from contextlib import suppress

import numpy as np
import pytest

from futurefarm import DataManager, blobs
from futurefarm.blobs import LARGE
from futurefarm.errors import (
    DamagedSessionError,
    IncompleteCopyError,
    SessionClosedError,
    SessionError,
    StorageFullError,
    UntrustedValueError,
)
from futurefarm.store import sidecar_of

from .companion import companions, run

SIZE = LARGE // 8
LARGE_VALUES = {
    "array": np.arange(SIZE),
    "arrays": [np.ones(SIZE), {"inner": (np.zeros((2, SIZE)), 5)}],
    "text": "x" * LARGE,
    "bytes": bytes(LARGE),
    "both": {"text": "y" * LARGE, "array": np.arange(SIZE)},
}
OPENERS = ["session", "locking_session"]


def fill(dataman, values=LARGE_VALUES, name="results", opener="session"):
    with getattr(dataman, opener)(name) as session:
        for key, value in values.items():
            session[key] = value
    return dataman.directory.session(name)


@pytest.mark.parametrize("opener", OPENERS)
def test_what_is_large_lies_beside_the_session(opener, dataman):
    path = fill(dataman, opener=opener)

    assert path.stat().st_size < 100_000 < sum(map(len, map(pickle.dumps, LARGE_VALUES.values())))
    assert 0o600 == sidecar_of(path).stat().st_mode & 0o777
    np.testing.assert_equal(dict(dataman.items()), LARGE_VALUES)
    np.testing.assert_equal(dataman["arrays"], LARGE_VALUES["arrays"])
    with dataman.session("results") as session:
        np.testing.assert_equal(session["both"], LARGE_VALUES["both"])


def test_a_session_without_large_values_is_one_file(dataman):
    path = fill(dataman, {"a": np.arange(SIZE - 100), "b": "x" * 100_000})

    assert not sidecar_of(path).exists()


def test_values_are_read_while_they_are_written(dataman):
    with dataman.session("results") as session:
        for number in range(3):
            session[str(number)] = np.full(SIZE, number)
            assert list(range(number + 1)) == [value[-1] for value in dataman.values()]
            assert number == session[str(number)][-1]


def test_copies_can_be_written_to_and_maps_cannot(dataman):
    fill(dataman)
    mapping = DataManager("farm", dataman.directory.path.parent, mmap=True)

    assert dataman["array"].flags.writeable
    assert not mapping["array"].flags.writeable
    np.testing.assert_equal(dict(mapping.items()), LARGE_VALUES)
    again = pickle.loads(pickle.dumps(mapping))
    assert not again["array"].flags.writeable
    assert not DataManager.at(dataman.basepath, mmap=True)["array"].flags.writeable


def test_a_mapped_array_outlives_its_session(dataman):
    fill(dataman)
    array = DataManager.at(dataman.basepath, mmap=True)["array"]
    shutil.rmtree(dataman.basepath)

    np.testing.assert_equal(array, LARGE_VALUES["array"])


def test_get_pickle_returns_all_of_it(dataman):
    fill(dataman)
    for key, value in LARGE_VALUES.items():
        np.testing.assert_equal(pickle.loads(dataman.get_pickle(key)), value)


@pytest.mark.skipif(sys.version_info < (3, 13), reason="dbm.sqlite3 came with Python 3.13")
def test_a_plain_shelf_says_what_is_missing(dataman):
    path = fill(dataman)
    with shelve.open(str(path), "r") as shelf, pytest.raises(pickle.UnpicklingError, match="out-of-band"):
        shelf["array"]


def test_a_value_that_was_replaced_or_deleted_is_gone(dataman):
    fill(dataman)
    with dataman.session("results") as session:
        session["array"] = np.zeros(SIZE)
        del session["text"]

    assert 0 == dataman["array"].sum()
    assert len(LARGE_VALUES) - 1 == len(dataman) == len(list(dataman.values()))


def test_a_transaction_that_is_undone_leaves_the_values_that_were_there(dataman):
    fill(dataman, {"array": np.zeros(SIZE)}, opener="locking_session")
    session = dataman.locking_session("results")
    with suppress(RuntimeError), session:
        session["array"] = np.ones(SIZE)
        assert 1 == session["array"][0]
        raise RuntimeError
    session["other"] = np.ones(SIZE)
    session.close()

    assert (0, SIZE) == (dataman["array"].sum(), dataman["other"].sum())


def test_what_others_may_have_written_is_read_as_plain_data(dataman):
    fill(dataman, {**LARGE_VALUES, "object": Exotic(np.ones(SIZE))})
    read_only = np.arange(SIZE)
    read_only.flags.writeable = False
    fill(dataman, {"read only": read_only}, "other")
    careful = DataManager.at(dataman.basepath, trusted=False)
    for key, value in LARGE_VALUES.items():
        np.testing.assert_equal(careful[key], value)
    assert not careful["read only"].flags.writeable
    with pytest.raises(UntrustedValueError, match="Exotic"):
        careful["object"]
    mapping = DataManager.at(dataman.basepath, trusted=False, mmap=True)
    assert not mapping["array"].flags.writeable
    np.testing.assert_equal(mapping["both"], LARGE_VALUES["both"])


class Exotic:
    def __init__(self, array):
        self.array = array


def test_a_sidecar_that_others_may_write_casts_doubt(dataman):
    path = fill(dataman, {"object": Exotic(np.ones(SIZE))})
    assert SIZE == dataman["object"].array.sum()
    sidecar_of(path).chmod(0o666)
    with pytest.raises(UntrustedValueError, match="can be written by others"):
        dataman["object"]


def test_processes_share_a_locking_session(dataman):
    code = """
        import sys, numpy as np
        from futurefarm import DataManager

        session = DataManager.at(sys.argv[1]).locking_session("shared")
        for number in range(5):
            session[f"{sys.argv[2]} {number}"] = np.full(40_000, number + 10 * int(sys.argv[2]))
        session.close()
        """
    with companions(code, *((dataman.basepath, i) for i in range(3))) as running:
        for companion in running:
            companion.rest()
    assert {f"{i} {n}": 10 * i + n for i in range(3) for n in range(5)} == {
        key: value[-1] for key, value in dataman.items()
    }


# -- order and durability


@pytest.fixture
def steps(monkeypatch):
    """What reaches the disk, in order."""
    steps = []
    sync = blobs.writer._sync
    monkeypatch.setattr(blobs.writer, "_sync", lambda fd: (steps.append("large values"), sync(fd)))
    return steps


def test_large_values_are_on_disk_before_the_commit_that_refers_to_them(dataman, steps):
    with dataman.session("results") as session:
        session.store.connection.set_trace_callback(
            lambda statement: steps.append("commit") if statement == "COMMIT" else None
        )
        session["small"] = 1
        session["array"] = np.ones(SIZE)
        session["small"] = 2
        session.store.connection.set_trace_callback(None)

    assert ["commit", "large values", "commit", "commit"] == steps


def test_after_a_failed_sync_nothing_more_is_written(dataman, monkeypatch):
    path = fill(dataman, {"kept": np.ones(SIZE)})
    session = dataman.session("results")
    monkeypatch.setattr(blobs.writer, "_sync", fail)
    with pytest.raises(SessionError, match="Go on in a new session"):
        session["lost"] = np.ones(SIZE)
    monkeypatch.undo()
    length = sidecar_of(path).stat().st_size
    for value in (np.ones(SIZE), 1):
        with pytest.raises(SessionError, match="Go on in a new session"):
            session["more"] = value
    session.close()

    assert length == sidecar_of(path).stat().st_size
    assert ["kept"] == list(dataman)
    assert SIZE == dataman["kept"].sum()


def fail(fd):
    raise OSError(errno.ENOSPC, "No space left on device")  # a failed sync is no full disk, whatever it says


def test_what_a_full_disk_does_not_take_is_told_and_undone(disk):
    dataman = DataManager("farm", disk.path)
    with dataman.session("results") as session:
        session["small"] = 1
        with pytest.raises(StorageFullError):
            session["large"] = np.ones(1 << 18)
        session["small"] = 2

    assert {"small": 2} == dict(dataman.items())


def test_a_session_goes_on_behind_what_a_killed_writer_left(dataman):
    run(
        """
        import os, sys, numpy as np
        from futurefarm import DataManager

        session = DataManager.at(sys.argv[1]).session("results")
        session["first"] = np.full(40_000, 1)
        session.store.keep(b"\\x80\\x05\\x97.", [np.full(40_000, 2)])
        os._exit(0)
        """,
        dataman.basepath,
    )
    with dataman.session("results") as session:
        session["second"] = np.full(40_000, 3)

    assert {"first": 1, "second": 3} == {key: value[-1] for key, value in dataman.items()}


def test_a_closed_session_keeps_nothing(dataman):
    session = dataman.session("results")
    session.close()
    with pytest.raises(SessionClosedError):
        session.store.keep(bytes(LARGE))
    assert not sidecar_of(dataman.directory.session("results")).exists()


# -- copies and damage


def copied(dataman, tmp_path, *, without=()):
    target = DataManager("copy", tmp_path)
    for path in dataman.directory.path.glob("*"):
        if path.is_file() and path.name not in without:
            shutil.copy(path, target.directory.path)
    return target


def test_a_copy_is_merged_by_copying_all_files(dataman, tmp_path):
    fill(dataman)

    np.testing.assert_equal(dict(copied(dataman, tmp_path).items()), LARGE_VALUES)


@pytest.mark.parametrize("short", [False, True])
def test_a_copy_without_all_of_its_large_values_is_refused_by_name(short, dataman, tmp_path):
    path = fill(dataman)
    copy = copied(dataman, tmp_path, without=() if short else (sidecar_of(path).name,))
    if short:
        os.truncate(sidecar_of(copy.directory.session("results")), 1000)
    uses = lambda: list(copy.values()), copy.itemcount, lambda: copy.session("results"), copy.check_readable
    for use in uses:
        with pytest.raises(IncompleteCopyError, match=r"results\.blobs, with large values, is missing"):
            use()


def test_a_copy_taken_while_it_is_written_is_whole(dataman, tmp_path):
    with dataman.session("results") as session:
        for number in range(3):
            session[str(number)] = np.full(SIZE, number)
        copy = copied(dataman, tmp_path)
        session["3"] = np.full(SIZE, 3)

    assert {"0": 0, "1": 1, "2": 2} == {key: value[-1] for key, value in copy.items()}
    with copy.session("results") as session:
        session["other"] = np.full(SIZE, 9)
    assert {"0": 0, "1": 1, "2": 2, "other": 9} == {key: value[-1] for key, value in copy.items()}


def test_a_later_copy_of_the_large_values_serves_an_earlier_session(dataman, tmp_path):
    path = fill(dataman, {"first": np.ones(SIZE)})
    early = path.read_bytes()
    fill(dataman, {"second": np.ones(SIZE)})
    copy = copied(dataman, tmp_path)
    copy.directory.session("results").write_bytes(early)

    assert {"first": SIZE} == {key: value.sum() for key, value in copy.items()}


def spoil(path, offset):
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1]))


def test_damage_costs_the_value_that_it_lies_on_and_is_told(dataman):
    path = fill(dataman, {str(n): np.full(SIZE, n) for n in range(3)})
    spoil(sidecar_of(path), 64 + 8 * SIZE + 5000)
    with pytest.raises(
        DamagedSessionError, match=r"'1' is not what was written.*futurefarm repair"
    ) as caught:
        dataman["1"]
    assert "1" == caught.value.key
    items = iter(dataman.items())
    assert ["0", "2"] == [next(items)[0] for _ in range(2)]
    with pytest.raises(DamagedSessionError, match="'1'"):
        next(items)
    assert "1" in dataman


def test_a_value_whose_end_is_missing_is_told_and_the_others_are_read(dataman):
    path = fill(dataman, {str(n): np.full(SIZE, n) for n in range(3)})
    os.truncate(sidecar_of(path), 64 + 8 * SIZE + 5000)
    with pytest.raises(IncompleteCopyError, match=r"before the value of '1' was whole") as caught:
        dataman["1"]
    assert "1" == caught.value.key
    assert 0 == dataman["0"].sum()
    with pytest.raises(IncompleteCopyError, match="missing"):
        dataman.session("results")
