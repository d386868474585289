"""Large values are checked, repaired, merged and compacted with the session that they belong to."""

from __future__ import annotations

import os
import shutil

import numpy as np
import pytest

from futurefarm import DataManager, store
from futurefarm.blobs import LARGE
from futurefarm.compact import WASTE
from futurefarm.errors import DamagedSessionError, IncompleteCopyError
from futurefarm.merge import MergeConflictWarning
from futurefarm.store import sidecar_of

from .companion import run
from .test_sidecar import SIZE, copied, fill, spoil

BIG = WASTE // 8


@pytest.fixture
def filled(dataman):
    fill(dataman, {str(n): np.full(SIZE, n) for n in range(3)})
    return dataman


def path_of(dataman, name="results"):
    return dataman.directory.session(name)


def content(dataman):
    return {key: value[-1] for key, value in dataman.items()}


def problems(dataman):
    return [(problem.file, problem.key) for problem in dataman.check().problems if not problem.harmless]


# -- check


def test_what_is_whole_is_fine(filled):
    assert filled.check().fine
    assert () == filled.check().problems


@pytest.mark.parametrize("text", [False, True])
def test_check_finds_a_flipped_bit(text, dataman):
    fill(dataman, {"0": "x" * LARGE if text else np.zeros(SIZE), "1": np.ones(SIZE)})
    spoil(sidecar_of(path_of(dataman)), 64 + 5000)

    assert ("results", "0") in problems(dataman)
    assert ("results", "1") not in problems(dataman)


def test_check_tells_what_is_not_all_there(filled):
    os.truncate(sidecar_of(path_of(filled)), 64 + 8 * SIZE + 100)

    assert {("results", "1"), ("results", "2")} == set(problems(filled)) - {("results", None)}


def test_check_looks_into_a_pickle_that_lies_beside_the_session(dataman):
    fill(dataman, {"exotic": [Exotic(), "x" * LARGE]})
    assert dataman.check().fine

    path = sidecar_of(path_of(dataman))
    path.write_bytes(path.read_bytes().replace(b"Exotic", b"Exotix"))
    assert [("results", "exotic")] == [each for each in problems(dataman) if each[1]]


class Exotic:
    pass


def test_large_values_without_their_session_are_told(filled):
    path_of(filled).unlink()

    assert [("results.blobs", None)] == problems(filled)
    assert "large values of results, which is not there" in str(filled.check().problems[0])


# -- repair


def test_repair_keeps_the_values_that_are_whole(filled):
    spoil(sidecar_of(path_of(filled)), 64 + 8 * SIZE + 5000)
    (done,) = filled.repair()

    assert ("results", ("1",), 2) == (done.session, done.lost, done.items)
    assert {"0": 0, "2": 2} == content(filled)
    assert filled.check().fine
    assert [] == filled.repair()
    fill(filled, {"more": np.full(SIZE, 9)})
    assert {"0": 0, "2": 2, "more": 9} == content(filled)
    assert sidecar_of(filled.directory.farm / "damaged" / "results").exists()


def test_repair_makes_do_with_a_copy_that_is_not_whole(filled, tmp_path):
    copy = copied(filled, tmp_path)
    os.truncate(sidecar_of(path_of(copy)), 64 + 8 * SIZE + 100)
    with pytest.raises(IncompleteCopyError):
        content(copy)
    (done,) = copy.repair()

    assert ("1", "2") == done.lost
    assert {"0": 0} == content(copy)
    fill(copy, {"more": np.full(SIZE, 9)})
    assert {"0": 0, "more": 9} == content(copy)


def test_repair_makes_do_without_any_large_values(filled, tmp_path):
    fill(filled, {"small": np.zeros(1)})
    copy = copied(filled, tmp_path, without=("results.blobs",))
    copy.repair()

    assert {"small": 0} == content(copy)
    assert copy.check().fine


def test_what_a_damaged_session_refers_to_is_found_again(filled):
    path = path_of(filled)
    data = bytearray(path.read_bytes())
    data[:100] = bytes(100)
    path.write_bytes(data)
    filled.repair()

    assert {"0": 0, "1": 1, "2": 2} == content(filled)


# -- merge


def test_merge_takes_large_values_along(filled, tmp_path):
    target = DataManager("target", tmp_path)
    target.merge(filled)
    shutil.rmtree(filled.basepath)

    assert {"0": 0, "1": 1, "2": 2} == content(target)
    assert target.check().fine


def test_merge_adds_what_is_missing_and_moves_its_large_values(filled, tmp_path):
    target = copied(filled, tmp_path)
    fill(target, {"mine": np.full(SIZE, 8), "both": "x" * LARGE})
    fill(filled, {"other": [np.full(SIZE, 9), "y" * LARGE], "both": "x" * LARGE})

    assert {"results": 1} == target.merge(filled)
    assert {} == target.merge(filled)
    shutil.rmtree(filled.basepath)
    np.testing.assert_equal(target["other"], [np.full(SIZE, 9), "y" * LARGE])
    assert (8, "x" * LARGE) == (target["mine"][-1], target["both"])
    assert target.check().fine


def test_merge_knows_what_it_has_taken_whatever_counts_as_large(filled, tmp_path, monkeypatch):
    target = DataManager("target", tmp_path)
    fill(target, {"mine": 1})
    fill(filled, {"text": "x" * LARGE})
    monkeypatch.setattr(store.sidecar, "LARGE", 10 * LARGE)
    target.merge(filled)

    assert {} == target.merge(filled)
    assert "x" * LARGE == target["text"]


def test_merge_tells_large_values_that_differ(filled, tmp_path):
    target = copied(filled, tmp_path)
    fill(target, {"0": np.full(SIZE, 8)})
    with pytest.warns(MergeConflictWarning, match="different values for 0"):
        target.merge(filled)

    assert 8 == target["0"][-1]


def test_merge_does_not_take_damage_for_a_value(filled, tmp_path):
    target = copied(filled, tmp_path)
    fill(filled, {"new": np.full(SIZE, 5)})
    spoil(sidecar_of(path_of(filled)), sidecar_of(path_of(filled)).stat().st_size - 50)
    with pytest.raises(DamagedSessionError, match="'new'"):
        target.merge(filled)

    assert {"0": 0, "1": 1, "2": 2} == content(target)


def test_merge_takes_what_a_session_has_while_it_is_written(dataman, tmp_path):
    target = DataManager("target", tmp_path)
    with dataman.session("results") as session:
        session["0"] = np.zeros(SIZE)
        target.merge(dataman)
        session["1"] = np.ones(SIZE)
        assert {"0": 0} == content(target)
    target.merge(dataman)

    assert {"0": 0, "1": 1} == content(target)


# -- compact


def test_compact_joins_large_values_too(dataman):
    for number in range(3):
        fill(dataman, {str(number): np.full(SIZE, number)}, dataman.session_name())
    assert 3 == len(dataman.compact())

    (path,) = dataman.directory.sessions()
    assert [path.name, sidecar_of(path).name] == sorted(
        entry.name for entry in dataman.directory.path.iterdir() if entry.is_file()
    )
    assert {"0": 0, "1": 1, "2": 2} == content(dataman)
    assert dataman.check().fine


def test_compact_leaves_what_is_large_and_in_use(dataman):
    for number in range(2):
        fill(dataman, {f"{number} {n}": np.full(BIG, n) for n in range(17)}, dataman.session_name())

    assert {} == dataman.compact()


def size(dataman):
    return sum(path.stat().st_size for path in dataman.directory.path.iterdir() if path.is_file())


@pytest.mark.parametrize("how", ["delete", "replace", "undo"])
def test_compact_gives_back_the_space_of_a_single_session(how, dataman):
    name = dataman.session_name()
    fill(dataman, {str(n): np.full(BIG, n) for n in range(4)}, name)
    with dataman.session(name) as session:
        for key in "012":
            if how == "delete":
                del session[key]
            elif how == "replace":
                session[key] = np.zeros(1)
            else:
                session.store.keep(b"\x80\x05\x97.", [np.zeros(2 * BIG)])
    before, expected = size(dataman), content(dataman)
    dataman.compact()

    assert expected == content(dataman)
    assert size(dataman) <= before // 2
    assert {} == dataman.compact()


def test_compact_leaves_a_session_whose_large_values_are_damaged(dataman):
    name = dataman.session_name()
    fill(dataman, {str(n): np.full(BIG, n) for n in range(4)}, name)
    with dataman.session(name) as session:
        for key in "012":
            del session[key]
    path = sidecar_of(path_of(dataman, name))
    spoil(path, path.stat().st_size - 50)

    assert {} == dataman.compact()
    assert path.exists()
    with pytest.raises(DamagedSessionError):
        dataman["3"]


@pytest.mark.slow
@pytest.mark.parametrize("moment", range(6))
def test_a_kill_while_sessions_are_joined_loses_and_doubles_nothing(moment, dataman):
    for number in range(3):
        fill(dataman, {str(number): np.full(SIZE, number)}, dataman.session_name())
    run(
        """
        import os, sys
        from pathlib import Path
        from futurefarm import DataManager

        dataman = DataManager.at(sys.argv[1])
        left = [int(sys.argv[2])]

        def count(do):
            def counting(*args, **kwargs):
                if not left[0]:
                    os._exit(0)
                left[0] -= 1
                return do(*args, **kwargs)
            return counting

        for name in ("replace", "rename", "unlink"):
            setattr(Path, name, count(getattr(Path, name)))
        dataman.compact()
        os._exit(0)
        """,
        dataman.basepath,
        moment,
    )
    assert {"0": 0, "1": 1, "2": 2} == content(dataman)
    dataman.compact()
    assert {"0": 0, "1": 1, "2": 2} == content(dataman)
    assert 1 == len(dataman.directory.sessions())
