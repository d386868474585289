"""What is counted at a glance is what SQLite would count; the rest takes a closer look."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing

import pytest

from futurefarm.errors import SessionError
from futurefarm.store import open_reader
from futurefarm.store.glance import count_sealed

from .test_salvage import flip


@pytest.fixture
def path(dataman):
    with dataman.session("s") as session:
        session.update({str(i): i for i in range(60)})
    return dataman.directory.session("s")


def change(path, *statements):
    with closing(sqlite3.connect(path)) as other:
        for statement in statements:
            other.execute(statement)
        other.commit()


def test_the_items_of_a_sealed_session_are_counted(path, dataman):
    assert 60 == count_sealed(path) == dataman.itemcount()
    with dataman.session("s") as session:
        del session["7"]
    assert 59 == count_sealed(path)


def test_what_came_from_others_is_counted(path):
    change(path, "INSERT INTO Meta VALUES ('foreign', 1)")

    assert 60 == count_sealed(path)


def test_a_session_that_is_being_written_takes_a_closer_look(path, dataman):
    with dataman.session("s") as session:
        session["more"] = 1
        assert count_sealed(path) is None
        assert 61 == dataman.itemcount()


CLOSER = {
    "another program wrote a value": "INSERT INTO Dict (key, value) VALUES (x'41', x'42')",
    "another program deleted what it wrote": "UPDATE Meta SET value = NULL WHERE name IN ('count', 'again')",
    "the counters disagree": "UPDATE Meta SET value = value + 1 WHERE name = 'again'",
    "the counter is a text": "UPDATE Meta SET value = 'x' WHERE name IN ('count', 'again')",
    "the counter is negative": "UPDATE Meta SET value = -1 WHERE name IN ('count', 'again')",
    "the counter is missing": "DELETE FROM Meta WHERE name = 'count'",
    "a trigger more": "CREATE TRIGGER Evil AFTER INSERT ON Dict BEGIN DELETE FROM Dict; END",
    "a table more": "CREATE TABLE More (x)",
    "large values beside it": "INSERT INTO Meta VALUES ('blobs', 100)",
    "a later format": "PRAGMA user_version = 2",
    "another application": "PRAGMA application_id = 1",
    "in the mode with a log": "PRAGMA journal_mode = WAL",
}


@pytest.mark.parametrize("what", CLOSER)
def test_whatever_is_unusual_takes_a_closer_look(path, what):
    change(path, CLOSER[what])

    assert count_sealed(path) is None


def test_a_rollback_journal_takes_a_closer_look(path):
    path.with_name("s-journal").touch()

    assert count_sealed(path) is None


def test_a_copy_that_was_torn_takes_a_closer_look(path, dataman):
    os.truncate(path, path.stat().st_size - 4090)

    assert count_sealed(path) is None


@pytest.mark.parametrize("what", ["a folder", "a link", "nothing", "empty", "a text"])
def test_what_is_no_session_takes_a_closer_look(tmp_path, path, what):
    other = tmp_path / "other"
    if what == "a folder":
        other.mkdir()
    elif what == "a link":
        other.symlink_to(path)
    elif what != "nothing":
        other.write_bytes(b"x" * 9000 if what == "a text" else b"")

    assert count_sealed(other) is None


def test_no_flipped_bit_makes_another_number(path):
    """Each bit of the pages that are looked at; those of others are none of its business."""
    data = path.read_bytes()
    meta = next(at for at in range(0, len(data), 4096) if b"folding" in data[at : at + 4096] and at)
    used = [at for page in (0, meta) for at in range(page, page + 4096) if data[at] or at < 100]
    for at in used[::3]:
        flip(path, at, at % 8)
        number = count_sealed(path)
        if number is not None:
            with open_reader(path) as reader:
                assert number == 60 == len(reader)
        flip(path, at, at % 8)


def test_a_count_at_a_glance_raises_no_error_of_its_own(path, dataman):
    change(path, CLOSER["the counters disagree"])

    with pytest.raises(SessionError, match="its number of items"):
        dataman.itemcount()
