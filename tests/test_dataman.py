"""A directory of sessions is read as one."""

from __future__ import annotations

import os
import pickle
import shutil
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from futurefarm import DataManager
from futurefarm.dataman import ForeignFileWarning
from futurefarm.errors import DamagedSessionError, DuplicateKeyError, SessionError
from futurefarm.store import TornLogWarning


@pytest.fixture
def two(dataman):
    """A directory with two sessions; both hold ``rates``."""
    with dataman.session("one") as session:
        session.update(rates=[1, 2], times=(0.5,), name="first")
    with dataman.session("other") as session:
        session.update(rates=(3,), size=7)
    return dataman


def sessions_of(dataman: DataManager, contents: dict[str, dict[str, object]]) -> DataManager:
    for name, items in contents.items():
        with dataman.session(name) as session:
            session.update(items)
    return dataman


# -- attributes


def test_it_tells_where_everything_is(dataman, tmp_path):
    assert str(tmp_path / "farm.data") == dataman.basepath
    assert f"<DataManager {dataman.basepath}>" == repr(dataman)
    assert dataman.session_name().startswith(f"{dataman.computer_name}.")
    assert dataman.session_name() != dataman.session_name()
    assert os.path.join(dataman.basepath, "x") == dataman.session_filename("x")
    assert dataman.session_filename() != dataman.session_filename()
    assert [] == dataman.session_filenames()


def test_each_kind_of_session_has_its_file(dataman):
    with dataman.session() as new, dataman.session("named") as named, dataman.computer_session() as own:
        assert dataman.computer_session_filename == own.path
        assert dataman.session_filename("named") == named.path
        assert sorted([new.path, named.path, own.path]) == dataman.session_filenames()
    with dataman.locking_session("shared") as shared, dataman.locking_computer_session() as again:
        assert dataman.session_filename("shared") == shared.path
        assert dataman.computer_session_filename == again.path
    shared.close()
    again.close()
    assert 4 == len(dataman.session_filenames())


def test_it_travels_to_other_processes(two):
    assert 5 == len(pickle.loads(pickle.dumps(two)))


def test_an_empty_directory_is_empty_and_true(dataman):
    assert (0, [], {}, True) == (len(dataman), list(dataman), dict(dataman.items()), bool(dataman))
    assert ([], [], {}) == (list(dataman.values()), dataman.get_flat_matching(""), dataman.get_matching(""))


def test_a_directory_that_is_gone_is_empty(dataman):
    Path(dataman.basepath).rename(dataman.basepath + ".moved")

    assert (0, []) == (len(dataman), list(dataman))


# -- one mapping


def test_keys_values_and_items_are_those_of_all_sessions(two):
    assert ["name", "rates", "rates", "size", "times"] == sorted(two.keys())
    assert sorted(two) == sorted(two.keys())
    assert [("name", "first"), ("rates", (3,)), ("rates", [1, 2])] == sorted(two.items(), key=repr)[:3]
    assert 5 == two.itemcount() == len(two) == len(two.keys()) == len(two.values()) == len(two.items())


def test_views_are_read_again_each_time(two):
    values = two.values()
    before = len(list(values))
    with two.session() as session:
        session["late"] = 8

    assert (5, 6, 6) == (before, len(list(values)), len(values))


def test_views_know_what_they_contain(two):
    assert ("rates" in two.keys(), "nothing" in two.keys(), 7 in two.keys()) == (True, False, False)  # noqa: SIM118
    assert (7 in two.values(), 8 in two.values()) == (True, False)
    assert (("size", 7) in two.items(), ("size", 8) in two.items()) == (True, False)


def test_a_key_is_looked_up_in_all_sessions(two):
    assert ("first", 7) == (two["name"], two["size"])
    assert ("name" in two, "size" in two, "nothing" in two, 7 in two) == (True, True, False, False)
    assert (7, None, "default") == (two.get("size"), two.get("nothing"), two.get("nothing", "default"))
    with pytest.raises(KeyError, match="nothing"):
        two["nothing"]


def test_a_key_of_several_sessions_is_an_error_that_names_them(two):
    for look in (lambda: two["rates"], lambda: two.get("rates"), lambda: two.get("rates", "default")):
        with pytest.raises(DuplicateKeyError, match=r"'rates'.*one, other.*get_all\('rates'\)") as caught:
            look()
        assert ("rates", ("one", "other")) == (caught.value.key, caught.value.sessions)
    assert "rates" in two


def test_get_all_returns_the_value_of_each_session(two):
    assert {"one": [1, 2], "other": (3,)} == two.get_all("rates")
    assert {"one": "first"} == two.get_all("name")
    assert {} == two.get_all("nothing")


def test_get_merged_joins_lists_and_tuples(two):
    assert ([1, 2, 3], [0.5], []) == (
        two.get_merged("rates"),
        two.get_merged("times"),
        two.get_merged("nothing"),
    )
    with pytest.raises(TypeError, match=r"'name' cannot be merged: one is a str.*get_all\('name'\)"):
        two.get_merged("name")


@pytest.mark.parametrize("match", ["run-", lambda key: key.startswith("run-")], ids=["prefix", "predicate"])
def test_matching_keys_are_found_by_prefix_or_predicate(match: str | Callable[[str], bool], dataman):
    sessions_of(
        dataman, {"a": {"run-1": [1], "run-2": [2], "other": [9]}, "b": {"run-1": [3], "x-run-": [9]}}
    )

    assert {"run-1": {"a": [1], "b": [3]}, "run-2": {"a": [2]}} == dataman.get_matching(match)
    assert [1, 3, 2] == dataman.get_merged_matching(match)
    assert [[1], [2], [3]] == sorted(dataman.get_flat_matching(match))


def test_every_key_matches_the_empty_prefix(two):
    assert {"name", "rates", "size", "times"} == set(two.get_matching(""))
    assert 5 == len(two.get_flat_matching(""))
    with pytest.raises(TypeError):
        two.get_merged_matching("")


def test_only_matching_values_are_unpickled(dataman):
    with dataman.session() as session:
        session["good"] = [1]
        session.store[b"bad"] = b"this is no pickle"

    assert {"good", "bad"} == set(dataman)
    assert [[1]] == dataman.get_flat_matching("good")
    with pytest.raises(pickle.UnpicklingError):
        list(dataman.values())


contents = st.dictionaries(
    st.sampled_from(["s1", "s2", "s3"]),
    st.dictionaries(st.text(max_size=3), st.integers() | st.lists(st.integers(), max_size=3), max_size=5),
)


@settings(max_examples=15, deadline=None)
@given(contents=contents)
def test_reading_is_what_reading_each_session_gives(contents, tmp_path_factory):
    dataman = sessions_of(DataManager("x", tmp_path_factory.mktemp("x")), contents)
    items = [(name, key, value) for name, part in sorted(contents.items()) for key, value in part.items()]

    assert sorted((key, repr(value)) for _, key, value in items) == sorted(
        (key, repr(value)) for key, value in dataman.items()
    )
    for key in {key for _, key, _ in items} | {"nothing"}:
        held = {name: value for name, other, value in items if other == key}
        assert held == dataman.get_all(key)
        assert bool(held) == (key in dataman)
        if len(held) == 1:
            assert [dataman[key]] == list(held.values())


# -- lazy, and without running code


def test_reading_takes_bounded_memory(dataman):
    size = 1_000_000
    for name in "ab":
        with dataman.session(name) as session:
            for i in range(20):
                session[str(i)] = bytes(size)
    tracemalloc.start()
    read = sum(len(value) for value in dataman.values())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert 40 * size == read
    assert peak < 10 * size


def test_reading_begins_at_once_and_can_be_left(dataman):
    with dataman.session("s") as session:
        session.update({str(i): i for i in range(100)})
    iterator = iter(dataman.items())
    first = next(iterator)
    iterator.close()

    assert ("0", 0) == first
    dataman.session("s", lock_timeout=0).close()


class Trap:
    def __reduce__(self) -> tuple[Callable[..., object], tuple[str, int]]:
        return os.mkdir, (str(TRAP), 0o700)


TRAP = Path()


@pytest.fixture
def trap(tmp_path, monkeypatch) -> Iterator[Path]:
    monkeypatch.setattr(f"{__name__}.TRAP", tmp_path / "sprung")
    return tmp_path / "sprung"


def test_opening_counting_listing_and_merging_run_no_code(dataman, tmp_path, trap):
    with dataman.session("s") as session:
        session["trap"] = Trap()
    other = DataManager("other", tmp_path)
    other.merge(dataman)

    assert ["trap"] == list(DataManager.at(dataman.basepath)) == list(other)
    assert (1, True) == (len(other), "trap" in other)
    assert ([], []) == (list(dataman.records()), list(dataman.failures()))
    dataman.check_readable()
    assert not trap.exists()
    list(dataman.values())
    assert trap.exists()


def test_a_key_that_the_index_does_not_find_is_damage_and_not_missing(dataman):
    with dataman.session("s") as session:
        for i in range(50):
            session[f"key{i:02}"] = i
    path = Path(session.path)
    data = bytearray(path.read_bytes())
    leaves = (at for at in range(4096, len(data), 4096) if data[at] == 10)
    index = next(at for at in leaves if b"key17" in data[at : at + 4096])
    at = data.index(b"key17", index)
    data[at + 4] ^= 1
    path.write_bytes(data)

    assert 17 == dict(dataman.items())["key17"]
    with pytest.raises(DamagedSessionError, match="its index does not find 'key17'"):
        dataman["key17"]
    with pytest.raises(DamagedSessionError, match="its index does not find 'key17'"):
        assert "key17" not in dataman
    dataman.repair()
    assert 17 == dataman["key17"]


def test_a_key_that_was_damaged_is_not_given_as_a_key(dataman):
    with dataman.session("s") as session:
        session["needle"] = 1
        session["straw"] = 2
    path = Path(session.path)
    path.write_bytes(path.read_bytes().replace(b"needle\x80", b"noodle\x80"))
    keys = iter(dataman)

    assert "straw" == next(keys)
    with pytest.raises(DamagedSessionError, match="s is damaged: one of its keys is not what was written"):
        next(keys)


@pytest.mark.parametrize("name", ["s (1)", "s~", "Copy of s"])
def test_a_copy_under_a_name_that_no_session_has_is_named_and_not_counted_twice(dataman, name):
    with dataman.session("s") as session:
        session["a"] = 1
    Path(dataman.basepath, name).write_bytes(Path(session.path).read_bytes())

    with pytest.warns(ForeignFileWarning, match="has a name that no session can have"):
        assert 1 == dataman.itemcount()
    assert 1 == dataman["a"]


NAMED = r"the session s is (damaged|an incomplete copy)"


@pytest.mark.parametrize("at", [3, 18, 26, 3000])
def test_a_bit_flipped_in_the_log_of_a_killed_writer_is_noticed(dataman, tmp_path, at):
    """SQLite takes the log to end there, and says nothing."""
    copy = DataManager("copy", tmp_path)
    with dataman.session("s") as session:
        for i in range(20):
            session[str(i)] = i
        for ending in ("", "-wal"):
            shutil.copy(f"{session.path}{ending}", copy.basepath)
    assert 20 == len(dict(copy.items()))
    log = Path(copy.session_filename("s") + "-wal")
    data = bytearray(log.read_bytes())
    data[at] ^= 1
    log.write_bytes(data)

    for read in (copy.itemcount, lambda: list(copy.items()), lambda: copy["7"], lambda: list(copy.records())):
        with pytest.raises(SessionError, match=NAMED):
            read()
    with pytest.raises(SessionError, match=NAMED):
        copy.session("s")
    copy.repair()
    assert 20 == len(dict(copy.items()))


def test_a_commit_at_the_end_of_a_log_that_may_be_torn_is_told_of_by_a_warning(dataman, tmp_path):
    copy = DataManager("copy", tmp_path)
    with dataman.session("s") as session:
        session["a"] = 1
        session["b"] = 2
        for ending in ("", "-wal"):
            shutil.copy(f"{session.path}{ending}", copy.basepath)
    log = Path(copy.session_filename("s") + "-wal")
    data = bytearray(log.read_bytes())
    data[-100] ^= 1
    log.write_bytes(data)

    with pytest.warns(TornLogWarning, match="the last commit in the log of the session s"):
        assert {"a": 1} == dict(copy.items())
    with pytest.warns(TornLogWarning), copy.session("s") as session:
        session["c"] = 3
    assert {"a": 1, "c": 3} == dict(copy.items())
