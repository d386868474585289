"""Many values are checked at once, and what is not as it was written is found all the same."""

from __future__ import annotations

import sqlite3
from contextlib import closing, suppress

import pytest

from futurefarm.errors import DamagedSessionError, UnreadableValueError
from futurefarm.store import Store, Whole, create, open_reader

from .test_salvage import flip

NUMBER = 2500
VALUES = {f"key{i:05}": f"value{i:05}" for i in range(NUMBER)}


@pytest.fixture
def session(dataman):
    with dataman.session("s") as session, session.store.transaction():
        session.update(VALUES)
    return dataman.directory.session("s")


def steps(path, kind):
    """Return for each step of a reading whether it was checked as a whole, and how many rows it has."""
    with open_reader(path) as reader:
        after, found = 0, []
        while after is not None:
            step, after = getattr(reader, f"whole_{kind}")(after)
            found.append((isinstance(step, Whole), len(step[0] if isinstance(step, Whole) else step)))
        reader.check_number()
    return [(whole, rows) for whole, rows in found if rows]


@pytest.mark.parametrize("kind", ["keys", "items"])
def test_a_session_is_checked_in_stretches_of_a_thousand(session, kind):
    assert [(True, 1000), (True, 1000), (True, 500)] == steps(session, kind)


def test_what_is_read_in_stretches_is_what_was_written(session, dataman):
    assert VALUES == dict(dataman.items())
    assert list(VALUES) == list(dataman.keys())
    assert list(VALUES.values()) == list(dataman.values())
    assert {"key00007": {"s": "value00007"}} == dataman.get_matching("key00007")


@pytest.mark.parametrize("size", [1, 7, 300, NUMBER])
def test_small_commits_make_stretches_as_large_ones_do(tmp_path, size):
    create(tmp_path / "s")
    results = [(key.encode(), value.encode(), 0) for key, value in VALUES.items()]
    with closing(Store(tmp_path / "s")) as store, store.transaction():
        for at in range(0, NUMBER, size):
            store.append("sweep", "{}", results[at : at + size], [])
    found = steps(tmp_path / "s", "items")

    assert NUMBER == sum(rows for whole, rows in found if whole)
    assert len(found) < 5


def test_where_a_value_was_replaced_or_deleted_each_is_checked_by_itself(session, dataman):
    with dataman.session("s") as again:
        again["key00007"] = "new"
        del again["key01007"]
    expected = VALUES | {"key00007": "new"}
    del expected["key01007"]

    assert [(False, 1000), (False, 999), (True, 500)] == steps(session, "items")
    assert expected == dict(dataman.items())
    assert list(expected) == list(dataman.keys())


def test_what_another_program_writes_is_read(session, dataman):
    with closing(sqlite3.connect(session)) as other:
        other.execute("REPLACE INTO Dict (key, value) SELECT 'key00007', value FROM Dict LIMIT 1")
        other.execute("DELETE FROM Dict WHERE key = CAST('key00008' AS BLOB)")
        other.commit()
    with pytest.raises(DamagedSessionError, match="key00007"):  # as a text, which no key of ours is
        list(dataman.values())


def test_a_flipped_bit_costs_the_value_that_it_is_in_and_no_other(session, dataman):
    flip(session, session.read_bytes().index(b"value01234"))
    found = {}
    with pytest.raises(DamagedSessionError, match="key01234") as caught:
        found.update(dataman.items())
    items = dataman.items()
    read = []
    with pytest.raises(DamagedSessionError):
        read.extend(iter(items))

    assert "key01234" == caught.value.key
    assert [pair for pair in VALUES.items() if pair[0] != "key01234"] == read


def test_a_flipped_bit_in_a_key_is_told_of_by_whatever_reads_it(session, dataman):
    flip(session, session.read_bytes().index(b"key01234"))
    for read in (dataman.keys, dataman.values, dataman.items):
        with pytest.raises(DamagedSessionError):
            list(read())


def test_a_stretch_that_is_damaged_costs_only_time(session, dataman):
    for change in ("crc = crc + 1", "keys = 'x'", "last = last + 5", "last = 1 << 60", "size = 1 << 60"):
        with closing(sqlite3.connect(session)) as other:
            other.execute(f"UPDATE Stretch SET {change} WHERE first = 1001")
            other.commit()
        assert VALUES == dict(dataman.items())
        assert list(VALUES) == list(dataman.keys())


def test_a_row_that_is_missing_is_told_of(session, dataman):
    with closing(sqlite3.connect(session)) as other:
        other.execute("UPDATE Dict SET rowid = 1 << 40 WHERE rowid = 1500")  # as if nothing had been deleted
        other.execute("CREATE TABLE t (x)")
        other.execute("DROP TABLE t")
        other.commit()
    assert [(True, 1000), (False, 999), (True, 500), (False, 1)] == steps(session, "items")


def test_what_was_undone_is_in_no_stretch(dataman):
    with dataman.session("s") as session:
        with suppress(ZeroDivisionError), session.store.transaction():
            session.update(VALUES)
            _ = 1 / 0
        with session.store.transaction():
            session.update({key: value + "x" for key, value in VALUES.items()})

    assert [(True, 1000), (True, 1000), (True, 500)] == steps(dataman.directory.session("s"), "items")
    assert {key: value + "x" for key, value in VALUES.items()} == dict(dataman.items())


def test_a_few_values_are_worth_no_stretch(dataman):
    with dataman.session("s") as session:
        session.update({str(i): i for i in range(10)})

    assert [(False, 10)] == steps(dataman.directory.session("s"), "items")


def test_large_values_are_not_read_in_one_piece(dataman):
    with dataman.session("s") as session, session.store.transaction():
        session.update({str(i): bytes(60_000) for i in range(100)})

    assert not any(whole for whole, _ in steps(dataman.directory.session("s"), "items"))


def test_of_two_writers_of_a_file_each_makes_stretches_of_what_it_wrote_alone(tmp_path):
    create(tmp_path / "s")
    results = [(key.encode(), value.encode(), 0) for key, value in VALUES.items()]
    with closing(Store(tmp_path / "s")) as first, closing(Store(tmp_path / "s")) as second:
        for at in range(0, NUMBER, 100):
            (second if at < 1000 and at % 200 else first).append("sweep", "{}", results[at : at + 100], [])

    assert [(True, 100)] * 10 + [(True, 1000), (True, 500)] == steps(tmp_path / "s", "items")


class Broken:
    def __reduce__(self):
        return int, ("x",)


def test_one_value_that_cannot_be_unpickled_is_named_and_the_others_are_read(dataman):
    with dataman.session("s") as session, session.store.transaction():
        session.update(VALUES)
        session["broken"] = Broken()
    read = []
    with pytest.raises(UnreadableValueError, match="'broken'"):
        read.extend(dataman.values())

    assert list(VALUES.values()) == read
