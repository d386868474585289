"""Repair recovers what can be read, keeps the damaged file, and loses nothing when it is killed."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from futurefarm import DataManager, run_tasks
from futurefarm.directory import Directory
from futurefarm.errors import DamagedSessionError
from futurefarm.session import idle
from futurefarm.testing.tasks import keep

from .test_ledger import RECORD, outcome
from .test_salvage import flip


@pytest.fixture
def damaged(dataman):
    """Of five sessions one is damaged: one of its twenty values, and the page that leads to all others."""
    for i in range(5):
        with dataman.session(f"s{i}") as session:
            for j in range(20):
                session.commit("sweep", RECORD, [outcome(20 * i + j, value=f"{i}:{j:02}" * 100)])
    path = Path(dataman.session_filename("s2"))
    data = bytearray(path.read_bytes())
    at = data.index(b"2:07")
    data[at] ^= 1
    for page in range(4096, len(data), 4096):
        if data[page] == 5:
            data[page : page + 4096] = bytes(4096)
    path.write_bytes(data)
    return dataman


def values() -> set[str]:
    return {f"{i}:{j:02}" * 100 for i in range(5) for j in range(20)}


def test_everything_else_is_recovered(damaged):
    with pytest.raises(DamagedSessionError, match="s2 is damaged") as caught:
        list(damaged.values())
    (done,) = damaged.repair()

    assert str(caught.value).endswith(f"Recover it with: futurefarm repair {damaged.basepath}")
    assert values() - {"2:07" * 100} == set(damaged.values())
    assert ("s2", 19, 19, 1) == (done.session, done.items, done.attempts, len(done.lost))
    assert damaged.check().fine
    assert [] == damaged.repair()


def test_the_damaged_file_is_kept(damaged):
    before = Path(damaged.session_filename("s2")).read_bytes()
    (done,) = damaged.repair()

    assert before == Path(str(done.kept)).read_bytes()
    assert Path(damaged.basepath, ".farm", "damaged", "s2") == Path(str(done.kept))


def test_a_task_whose_result_is_lost_runs_again_and_no_other(dataman):
    run_tasks(dataman, keep, [f"value{i:02}" * 50 for i in range(20)], "serial", progress=False)
    (path,) = map(Path, dataman.session_filenames())
    flip(path, path.read_bytes().rindex(b"value07value07"))
    dataman.repair()
    lost = 20 - dataman.itemcount()
    run_tasks(dataman, keep, [f"value{i:02}" * 50 for i in range(20)], "serial", progress=False, resume=True)

    assert lost <= 1
    assert {f"value{i:02}" * 50 for i in range(20)} == set(dataman.values())
    assert 20 + (lost == 0) >= dataman.itemcount()


def test_an_incomplete_copy_becomes_what_it_has(damaged, tmp_path):
    copy = DataManager("copy", tmp_path)
    with damaged.session("live") as session:
        session["a"] = 1
        session.store.fold()
        session["b"] = 2
        shutil.copy(session.path, copy.basepath)
    copy.repair()

    assert {"a": 1} == dict(copy.items())
    assert copy.check().fine


def test_a_session_that_is_held_is_left_alone(damaged):
    before = Path(damaged.session_filename("s2")).read_bytes()
    with idle(damaged.directory, "s2") as ours:
        assert ours
        (done,) = damaged.repair()

    assert ("s2", None) == (done.session, done.kept)
    assert before == Path(damaged.session_filename("s2")).read_bytes()


def test_a_log_with_a_damaged_place_is_recovered_and_gone_from_its_place(dataman, tmp_path):
    copy = DataManager("copy", tmp_path)
    with dataman.session("s") as session:
        for i in range(20):
            session[str(i)] = i
        for ending in ("", "-wal"):
            shutil.copy(f"{session.path}{ending}", copy.basepath)
    log = Path(copy.session_filename("s") + "-wal")
    flip(log, log.stat().st_size // 2)
    with pytest.raises(DamagedSessionError, match="its log is damaged"):
        list(copy.items())
    (done,) = copy.repair()

    assert {str(i): i for i in range(20)}.items() >= dict(copy.items()).items()
    assert copy.itemcount() >= 19
    assert not log.exists()
    assert Path(f"{done.kept}-wal").exists()


@pytest.mark.parametrize("step", ["link", "publish", "unlink"])
def test_a_kill_at_any_step_loses_nothing(damaged, monkeypatch, step):
    if step == "publish":
        monkeypatch.setattr(Directory, "publish", lambda *args: 1 / 0)
    elif step == "link":
        monkeypatch.setattr("futurefarm.repair._link", lambda *args: 1 / 0)
    else:
        monkeypatch.setattr(Path, "unlink", lambda *args, **kwargs: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        damaged.repair()
    monkeypatch.undo()
    damaged.repair()

    assert values() - {"2:07" * 100} == set(damaged.values())
    assert damaged.check().fine
    assert ["s2"] == [path.name for path in Path(damaged.basepath, ".farm", "damaged").iterdir()]


@pytest.mark.parametrize(("there", "then"), [(b"value - 1", b"val\xf5e - 1"), (b"(key BLOB", b"(kex BLOB")])
def test_a_damaged_schema_costs_nothing(dataman, there, then):
    with dataman.session("s") as session:
        session.commit("sweep", RECORD, [outcome(0, value="needle")])
    path = Path(session.path)
    path.write_bytes(path.read_bytes().replace(there, then))
    with pytest.raises(DamagedSessionError, match="session s is damaged"):
        dataman["needle"]
    (done,) = dataman.repair()

    assert (1, 1) == (done.items, done.attempts)
    assert ["needle"] == list(dataman.values())
    assert dataman.check().fine


def test_a_second_damage_does_not_replace_the_first_file_that_was_kept(damaged):
    damaged.repair()
    path = Path(damaged.session_filename("s2"))
    flip(path, path.read_bytes().index(b"2:11"))
    (done,) = damaged.repair()

    assert "s2.2" == Path(str(done.kept)).name
    assert 98 == damaged.itemcount()


def test_random_damage_never_brings_wrong_values(damaged):
    chance = random.Random(4)
    for name in damaged.session_filenames():
        path = Path(name)
        for _ in range(5):
            flip(path, chance.randrange(path.stat().st_size))
    damaged.repair()

    assert set(damaged.values()) <= values()
    assert 70 <= damaged.itemcount()
