"""A check names everything that is wrong in a directory, runs nothing of it and changes nothing."""

from __future__ import annotations

import os
import pickle
import shutil
import sys
from pathlib import Path

import pytest

from futurefarm import DataManager, run_tasks
from futurefarm.checkup.pickles import fault_of
from futurefarm.store import Store
from futurefarm.testing.tasks import keep, misbehave
from futurefarm.trust import Loader

from .test_salvage import flip


class Moved:
    """Stands for a class that is gone when its pickle is read."""


@pytest.fixture
def filled(dataman):
    run_tasks(dataman, keep, range(5), "serial", progress=False)
    run_tasks(dataman, misbehave, ["value"], "serial", progress=False, on_error="record")
    with dataman.session("mine") as session:
        session["a"] = [1, 2, 3]
        session["b"] = "second"
    return dataman


def snapshot(dataman: DataManager) -> dict[str, bytes]:
    files = (path for path in Path(dataman.basepath).rglob("*") if path.is_file())
    return {str(path): path.read_bytes() for path in files}


def told(dataman: DataManager) -> list[tuple[str, str | None]]:
    return [(problem.file, problem.key) for problem in dataman.check().problems]


def test_a_healthy_directory_is_fine_and_stays_as_it_is(filled):
    before = snapshot(filled)
    found = filled.check()

    assert found.fine
    assert ((), 7) == (found.problems, found.items)
    assert before == snapshot(filled)


def test_a_damaged_value_is_named_with_its_key(filled):
    path = Path(filled.session_filename("mine"))
    flip(path, path.read_bytes().rindex(b"second"))
    found = filled.check()

    assert not found.fine
    assert ("mine", "b") in told(filled)
    assert f"futurefarm repair {filled.basepath}" in str(found.problems[0])


def test_a_value_whose_class_has_gone_is_named_and_nothing_is_imported(filled, monkeypatch, tmp_path):
    package = tmp_path / "gone"
    package.mkdir()
    (package / "__init__.py").write_text("raise SystemExit('imported')")
    (package / "here.py").write_text("class Known: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    with filled.session("mine") as session:
        for i, where in enumerate(["gone.here\nKnown", "gone.here\nLost", "gone.away\nKnown", "nowhere\nX"]):
            session.store[b"%d" % i] = b"c%s\n." % where.encode()
        session["whole"] = Moved()
        monkeypatch.delattr(sys.modules[__name__], "Moved")
    found = {problem.key: problem.what for problem in filled.check().problems}

    assert {"1", "2", "3", "whole"} == set(found)
    assert "Lost of the module gone.here" in found["1"]
    assert "gone.away, which is not installed" in found["2"]
    assert "gone" not in sys.modules


@pytest.mark.parametrize(
    "value", [1, [1.5, "a", None], {"k": (1, 2)}, pickle.PickleError("x"), Loader, range]
)
@pytest.mark.parametrize("protocol", range(6))
def test_what_loads_has_no_fault(value, protocol):
    assert fault_of(pickle.dumps([value, value], protocol)) is None


@pytest.mark.parametrize("data", [b"", b"\x80", b"garbage", pickle.dumps("text")[:-1]])
def test_what_is_no_pickle_is_told(data):
    assert "no whole pickle" in str(fault_of(data))


def test_a_canary_is_not_run(filled):
    with filled.session("mine") as session:
        session.store[b"canary"] = (
            b"cos\nmkdir\n(V" + str(Path(filled.basepath) / "flown").encode() + b"\ntR."
        )
    filled.check()

    assert not (Path(filled.basepath) / "flown").exists()


def test_a_result_that_is_missing_is_named(filled):
    record = next(record for record in filled.records() if record.key)
    store = Store(Path(filled.session_filename(record.session)))
    del store[record.key.encode()]
    store.close()

    assert [(record.session, record.key)] == told(filled)


def test_what_lies_about_is_named(filled, tmp_path):
    base = Path(filled.basepath)
    shutil.copy(base / "mine", base / "mine.bak")
    (base / "notes.txt").write_text("hello")
    (base / "folder").mkdir()
    (base / "lost-wal").write_bytes(b"log")
    (base / "mine-wal").write_bytes(b"older log")
    draft = filled.directory.draft()
    draft.write_bytes(b"")
    os.utime(draft, (0, 0))
    found = {problem.file: problem for problem in filled.check().problems}

    assert {"mine.bak", "notes.txt", "folder", "lost-wal", "mine-wal", f".farm/{draft.name}"} == set(found)
    assert "counted twice" in found["mine.bak"].what
    assert {"folder", "mine-wal", f".farm/{draft.name}"} == {n for n, p in found.items() if p.harmless}


def test_an_incomplete_copy_is_named(filled, tmp_path):
    copy = DataManager("copy", tmp_path)
    with filled.session("live") as session:
        session["a"] = 1
        shutil.copy(session.path, copy.basepath)
    (problem, *_) = copy.check().problems

    assert "incomplete copy" in problem.what


@pytest.mark.parametrize("content", [b"", bytes(8192)])
def test_a_session_that_is_blank_is_damaged_and_not_foreign(filled, content):
    Path(filled.session_filename("mine")).write_bytes(content)

    assert [("mine", None)] == told(filled)
    with pytest.raises(
        OSError, match="the session mine is damaged: it does not begin like a session any more"
    ):
        list(filled.items())
