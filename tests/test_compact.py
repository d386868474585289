"""Compaction joins many small sessions into one, and loses, doubles and hides nothing."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from futurefarm import DataManager
from futurefarm.directory import Directory

from .test_ledger import RECORD, outcome


@pytest.fixture
def filled(dataman):
    for i in range(4):
        with dataman.session() as session:
            session.commit("sweep", RECORD, [outcome(i, value=i), outcome(i + 10, "error", error="e")])
    return dataman


def content(dataman: DataManager):
    records = sorted((r.sweep, r.number, r.status, r.key, r.error, r.started) for r in dataman.records())
    return sorted(dataman.items()), records, dataman.itemcount()


def test_many_sessions_become_one(filled):
    before = content(filled)
    joined = filled.compact()

    assert [3] * 4 == list(joined.values())
    assert before == content(filled)
    assert 1 == len(filled.session_filenames())
    assert {} == filled.compact()


def test_a_session_that_somebody_writes_is_left_alone(filled):
    with filled.session() as writer:
        writer["mine"] = 1
        assert 4 == len(filled.compact())
        writer["more"] = 2

    assert 2 == len(filled.session_filenames())
    assert {"mine": 1, "more": 2}.items() <= dict(filled.items()).items()


def test_a_session_that_has_a_name_of_its_own_keeps_it(filled):
    for session in (filled.session("results"), filled.computer_session()):
        with session:
            session[session.name] = "kept"
    filled.compact()

    with filled.computer_session() as session:
        assert "kept" == session[session.name]
    with filled.session("results") as session:
        assert "kept" == session["results"]


def test_duplicates_stay_visible(dataman):
    for value in range(3):
        with dataman.session() as session:
            session["same"] = value
            session[str(value)] = value
    dataman.compact()

    assert [0, 1, 2] == sorted(dataman.get_all("same").values())
    assert 6 == dataman.itemcount()


def test_a_damaged_session_is_left_as_it_is(filled):
    spoilt = Path(filled.session_filenames()[0])
    data = spoilt.read_bytes()
    spoilt.write_bytes(data[: len(data) // 2])

    assert spoilt.name not in filled.compact()
    assert data[: len(data) // 2] == spoilt.read_bytes()


def test_a_kill_before_the_old_sessions_are_removed_leaves_nothing_double(filled, monkeypatch):
    before = content(filled)
    monkeypatch.setattr("futurefarm.compact._finish", lambda directory: None)
    filled.compact()
    monkeypatch.undo()

    assert 5 == len([path for path in Path(filled.basepath).iterdir() if path.is_file()])
    assert before == content(filled)
    filled.compact()
    assert before == content(filled)
    assert 1 == len([path for path in Path(filled.basepath).iterdir() if path.is_file()])


def test_a_kill_before_the_new_session_has_its_name_changes_nothing(filled, monkeypatch):
    before = content(filled)
    monkeypatch.setattr(Directory, "publish", lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        filled.compact()
    monkeypatch.undo()

    assert before == content(filled)
    assert 4 == len(filled.compact())
    assert before == content(filled)


def test_what_was_written_to_an_old_session_since_is_seen(filled, monkeypatch):
    monkeypatch.setattr("futurefarm.compact._finish", lambda directory: None)
    names = list(filled.compact())
    monkeypatch.undo()
    with filled.session(names[0]) as session:
        session["late"] = 1
    filled.compact()

    assert 1 == filled["late"]


def test_a_session_that_is_removed_under_a_reader_is_named(filled):
    items = iter(filled.items())
    next(items)
    names = filled.session_filenames()
    for name in names[1:]:
        Path(name).unlink()

    with pytest.raises(OSError, match="was removed while"):
        list(items)


def test_a_copy_is_complete_before_and_after(filled, tmp_path):
    before = content(filled)
    filled.compact()
    shutil.copytree(filled.basepath, tmp_path / "copy.data")

    assert before == content(DataManager.at(tmp_path / "copy.data"))
