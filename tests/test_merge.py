"""Two directories become one, by ``cp`` or with more care, and nothing is lost or doubled."""

from __future__ import annotations

import os
import pickle
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from futurefarm import DataManager
from futurefarm.errors import SessionError, SessionLockedError, UsageError
from futurefarm.merge import MergeConflictWarning
from futurefarm.task import Outcome, Task

from .companion import Companion


@pytest.fixture
def other(tmp_path):
    return DataManager("other", tmp_path)


def fill(dataman: DataManager, name: str | None, **items: object) -> str:
    with dataman.session(name) as session:
        session.update(items)
        return session.name


def outcome(number: int) -> Outcome:
    task = Task(number, b"%016d" % number, 0, 1, pickle.dumps(number))
    return Outcome(
        task, "ok", pickle.dumps(number), None, None, "host", 1, float(number), 0.1, f"printed {number}"
    )


def items_of(dataman: DataManager) -> list[tuple[str, str]]:
    return sorted((key, repr(value)) for key, value in dataman.items())


def test_directories_filled_on_one_computer_are_merged_by_copying(dataman, other):
    """No two files have one name, not even those of the computer's own sessions."""
    for each, value in [(dataman, 1), (other, 2)]:
        fill(each, None, a=value)
        with each.computer_session() as session:
            session["b"] = value
    subprocess.run(f"cp {dataman.basepath}/* {other.basepath}/", shell=True, check=True)

    assert 4 == len(other) == len(other.session_filenames())
    assert [1, 2] == sorted(other.get_all("a").values()) == sorted(other.get_all("b").values())
    with other.computer_session() as session:
        assert 2 == session["b"]


def test_directories_are_merged_by_copying_while_they_are_filled(dataman, other):
    with dataman.session() as one, other.session() as another:
        one["a"], another["b"] = 1, 2
        subprocess.run(f"cp {dataman.basepath}/* {other.basepath}/", shell=True, check=True)
        one["later"] = another["late"] = 3

        assert {"a": 1, "b": 2, "late": 3} == dict(other.items())
    subprocess.run(f"cp {dataman.basepath}/* {other.basepath}/", shell=True, check=True)
    assert {"a": 1, "b": 2, "late": 3, "later": 3} == dict(other.items())
    assert {"a": 1, "later": 3} == dict(dataman.items())


def test_merging_takes_over_what_is_missing(dataman, other):
    fill(dataman, "mine", a=1)
    fill(other, "theirs", b=2, c=3)

    assert {"theirs": 2} == dataman.merge(other)
    assert {"a": 1, "b": 2, "c": 3} == dict(dataman.items())
    assert {"b": 2, "c": 3} == dict(other.items())
    assert 0o600 == os.stat(dataman.session_filename("theirs")).st_mode & 0o777


def test_merging_again_changes_nothing(dataman, other):
    fill(other, "s", a=1)
    dataman.merge(other.basepath)

    assert {} == dataman.merge(other.basepath)
    assert {"a": 1} == dict(dataman.items())


def test_a_session_that_grew_since_is_completed(dataman, other):
    fill(other, "s", a=1)
    dataman.merge(other)
    fill(other, "s", b=2)
    fill(dataman, "s", c=3)

    assert {"s": 1} == dataman.merge(other)
    assert {"a": 1, "b": 2, "c": 3} == dict(dataman.items())
    assert 3 == len(dataman)


def test_the_ledger_is_merged_too(dataman, other):
    with other.session("s") as session:
        session.commit("sweep", "{}", [outcome(0), outcome(1)])
    assert {"s": 4} == dataman.merge(other)
    with other.session("s") as session:
        session.commit("sweep", "{}", [outcome(2)])
        session.commit("another", "{}", [outcome(0)])

    assert {"s": 4} == dataman.merge(other)
    assert {} == dataman.merge(other)
    assert [("sweep", 0), ("sweep", 1), ("sweep", 2), ("another", 0)] == [
        (record.sweep, record.number) for record in dataman.records()
    ]
    assert [0, 1, 2, 0] == [dataman[record.key] for record in dataman.records()]


def test_a_session_is_merged_while_it_is_written(dataman, other):
    program = """
        import sys
        from futurefarm import DataManager

        with DataManager.at(sys.argv[1]).session("s") as session:
            session["a"] = 1
            print("written", flush=True)
            input()
            session["b"] = 2
    """
    with Companion(program, other.basepath) as writer:
        writer.hear()
        first = dataman.merge(other)
        writer.say()
        writer.rest()

    assert ({"s": 1}, {"s": 1}) == (first, dataman.merge(other))
    assert {"a": 1, "b": 2} == dict(dataman.items())
    assert ["s"] == [name for name in os.listdir(dataman.basepath) if name != ".farm"]


def test_different_values_under_one_key_are_reported_and_the_targets_are_kept(dataman, other):
    fill(dataman, "s", a="mine", b="same")
    fill(other, "s", a="theirs", b="same", c="new")
    with pytest.warns(MergeConflictWarning, match="different values for a; those in .* were kept") as caught:
        assert {"s": 1} == dataman.merge(other)

    assert {"a": "mine", "b": "same", "c": "new"} == dict(dataman.items())
    assert [__file__] == [warning.filename for warning in caught]


def test_a_session_that_cannot_be_read_is_named_and_the_others_are_taken(dataman, other):
    for name in "abc":
        fill(other, name, **{name: name})
    path = Path(other.session_filename("b"))
    path.write_bytes(path.read_bytes()[:4096] + b"\xff" * 30000)
    with pytest.raises(SessionError, match="session b is damaged"):
        dataman.merge(other)

    assert {"a": "a", "c": "c"} == dict(dataman.items())
    assert [] == [name for name in os.listdir(dataman.directory.farm) if name.startswith("merge")]


def test_a_session_that_is_held_here_is_named_and_the_others_are_taken(dataman, other):
    fill(other, "held", a=1)
    fill(other, "free", b=2)
    with dataman.session("held"):
        with pytest.raises(SessionLockedError, match="held"):
            dataman.merge(other, lock_timeout=0.01)

        assert ["b"] == list(dataman)


def test_what_is_no_session_is_not_taken(dataman, other):
    Path(other.basepath, "notes.txt").write_text("mine")

    assert {} == dataman.merge(other)
    assert [] == dataman.session_filenames()


def test_a_directory_merged_with_itself_stays_as_it_is(dataman, tmp_path):
    fill(dataman, "s", a=1)
    (tmp_path / "link.data").symlink_to(dataman.basepath)

    assert {} == dataman.merge(dataman) == dataman.merge(tmp_path / "link.data")
    assert {"a": 1} == dict(dataman.items())


def test_a_directory_that_does_not_exist_cannot_be_merged(dataman, tmp_path):
    with pytest.raises(UsageError, match="there is no directory"):
        dataman.merge(tmp_path / "nothing.data")


def test_a_crash_during_a_merge_leaves_no_half_session(dataman, other):
    fill(other, "s", a=1)
    program = """
        import os, sys
        from pathlib import Path
        from futurefarm import DataManager

        Path.replace = lambda *_: os._exit(3)
        DataManager.at(sys.argv[1]).merge(sys.argv[2])
    """
    with Companion(program, dataman.basepath, other.basepath) as merger:
        merger.rest(status=3)

    assert [] == dataman.session_filenames()
    assert {"s": 1} == dataman.merge(other)


contents = st.dictionaries(
    st.sampled_from(["s1", "s2"]), st.dictionaries(st.sampled_from("abc"), st.none(), max_size=3), max_size=2
)


@settings(max_examples=10, deadline=None)
@given(one=contents, another=contents)
def test_merging_is_idempotent_and_the_order_does_not_matter(one, another, tmp_path_factory):
    """One key of one session has one value everywhere, as all keys that sweeps make."""
    folder = tmp_path_factory.mktemp("merge")
    made = {}
    for label, parts in [("one", one), ("another", another), ("left", {}), ("right", {})]:
        made[label] = DataManager(label, folder)
        for name, items in parts.items():
            fill(made[label], name, **{key: f"{name}{key}" for key in items})
    for source in (made["one"], made["another"], made["one"]):
        made["left"].merge(source)
    for source in (made["another"], made["one"]):
        made["right"].merge(source)
    made["one"].merge(made["another"])

    expected = {(name, key) for parts in (one, another) for name, items in parts.items() for key in items}
    assert sorted((key, repr(f"{name}{key}")) for name, key in expected) == items_of(made["left"])
    assert items_of(made["left"]) == items_of(made["right"]) == items_of(made["one"])
    assert len(expected) == len(made["left"]) == len(made["right"]) == len(made["one"])
