"""How each attempt at a task ended is on record, in the session that holds its result."""

from __future__ import annotations

import json
import pickle
import sqlite3
import struct
import zlib
from itertools import count
from pathlib import Path

import pytest

from futurefarm import Record
from futurefarm.claims import claim_of
from futurefarm.errors import DamagedSessionError, SessionClosedError
from futurefarm.task import Outcome, Task

RECORD = json.dumps({"function": "sweep:simulate"})
clock = count(1000.0)


def outcome(number, status="ok", value=None, *, attempt=1, replicate=0, item=None, error=None):
    task = Task(number, b"%016d" % number, replicate, attempt, pickle.dumps(number if item is None else item))
    data = pickle.dumps(value) if status == "ok" else None
    return Outcome(
        task, status, data, error, error and f"Traceback: {error}", "host", 42, next(clock), 0.5, "printed\n"
    )


def test_results_and_records_are_stored_together(dataman):
    with dataman.session("s") as session:
        row = session.commit(
            "sweep", RECORD, [outcome(0, value="first"), outcome(1, "error", error="ValueError: no")]
        )
        assert 2 == row
        assert 3 == session.commit("sweep", RECORD, [outcome(2, value=None)])
    records = list(dataman.records())

    assert ["first", None] == list(dataman.values())
    assert [(0, "ok"), (1, "error"), (2, "ok")] == [(r.number, r.status) for r in records]
    assert list(dataman) == [r.key for r in records if r.key]
    assert [0, 1, 2] == [r.args for r in records]
    good, bad, _ = records
    assert ("sweep", "sweep:simulate", "s", 1, 0) == (
        good.sweep,
        good.function,
        good.session,
        good.attempt,
        good.replicate,
    )
    assert ("host", 42, 0.5, b"%016d" % 0) == (good.host, good.pid, good.seconds, good.identity)
    assert (None, "ValueError: no", "Traceback: ValueError: no") == (bad.key, bad.error, bad.traceback)
    assert (None, None) == (good.error, good.traceback)
    assert ["printed\n"] * 3 == [r.output for r in records]


def test_a_record_travels(dataman):
    with dataman.session() as session:
        session.commit("sweep", RECORD, [outcome(0, value=1, item=(1, "a"))])
    (record,) = dataman.records()

    assert record == pickle.loads(pickle.dumps(record))
    assert isinstance(record, Record)
    assert (1, "a") == record.args


def test_keys_of_results_increase_from_commit_to_commit(dataman):
    with dataman.session() as session:
        for i in range(10):
            session.commit("sweep", RECORD, [outcome(i, value=i), outcome(i + 100, value=i)])
    keys = list(dataman)

    assert 20 == len(set(keys))
    assert sorted(keys) == keys


def test_a_commit_to_a_closed_session_is_an_error(dataman):
    session = dataman.session()
    session.close()
    with pytest.raises(SessionClosedError):
        session.commit("sweep", RECORD, [outcome(0, value=1)])

    assert [] == list(dataman.records())


def test_failures_are_the_last_attempts_at_what_has_not_succeeded(dataman):
    with dataman.session("one") as session:
        session.commit("first", RECORD, [outcome(0, "error", error="e"), outcome(1, "error", error="old")])
        session.commit("first", RECORD, [outcome(2, "crashed"), outcome(3, value=1)])
        session.commit("first", RECORD, [outcome(1, "error", attempt=2, error="new")])
        session.commit(
            "first", RECORD, [outcome(4, "ok", 1, replicate=0), outcome(4, "timeout", replicate=1)]
        )
    with dataman.session("another") as session:
        session.commit("second", RECORD, [outcome(0, value=5)])

    assert [(1, "new"), (2, None), (4, None)] == sorted((r.number, r.error) for r in dataman.failures())


def test_a_clock_that_is_set_back_does_not_make_an_earlier_failure_the_last_one(dataman):
    def failed(attempt, error, started):
        return outcome(0, "error", attempt=attempt, error=error)._replace(started=started)

    with dataman.session("b") as one, dataman.session("a") as other:
        one.commit("first", RECORD, [failed(1, "first", 1000.0)])
        other.commit("first", RECORD, [failed(2, "second try, elsewhere", 10.0)])
        assert ["second try, elsewhere"] == [record.error for record in dataman.failures()]
        other.commit("later", RECORD, [failed(1, "in the next sweep", 5.0)])

    assert ["in the next sweep"] == [record.error for record in dataman.failures()]


def test_history_tells_what_was_tried(dataman):
    with dataman.session() as session:
        session.commit("sweep", RECORD, [outcome(0, value=1), outcome(1, "error", error="e")])

    assert [(b"%016d" % 0, 0, "ok"), (b"%016d" % 1, 0, "error")] == list(dataman.history())


def test_ended_tells_what_became_of_some_tasks_of_a_sweep(dataman):
    with dataman.session("s") as session:
        session.commit("mine", RECORD, [outcome(0, value=1), outcome(1, "error", error="e")])
        session.commit("other", RECORD, [outcome(7, value=1)])

        assert [("s", 0, 1, "ok"), ("s", 1, 1, "error")] == list(dataman.ended("mine", {0, 1, 7}))
        assert [("s", 1, 1, "error")] == list(dataman.ended("mine", {1}))


def test_a_record_that_was_damaged_is_noticed(dataman):
    with dataman.session("s") as session:
        session.commit("sweep", RECORD, [outcome(0, "error", error="treasure")])
    path = Path(session.path)
    path.write_bytes(
        path.read_bytes().replace(b"\x08treasure", b"\x08treasury").replace(b"treasure", b"treasury")
    )
    with pytest.raises(DamagedSessionError, match="row 1 of its ledger") as caught:
        list(dataman.records())

    assert session.path == caught.value.path


LEDGER = (
    [("Sweep", column) for column in ("name", "record", "crc")]
    + [
        ("Attempt", column)
        for column in ("sweep", "number", "identity", "replicate", "attempt", "status", "key")
    ]
    + [("Attempt", column) for column in ("host", "pid", "started", "seconds", "crc", "item")]
    + [("Attempt", column) for column in ("error", "traceback", "output")]
)


@pytest.mark.parametrize(("table", "column"), LEDGER)
def test_a_change_in_any_column_of_the_ledger_is_noticed(dataman, table, column):
    with dataman.session("s") as session:
        session.commit("sweep", RECORD, [outcome(0, value=1), outcome(1, "error", error="e")])
    connection = sqlite3.connect(session.path)
    (before,) = connection.execute(f"SELECT {column} FROM {table} ORDER BY id DESC LIMIT 1").fetchone()
    after = {int: 77, float: 0.1, str: "changed", bytes: b"changed", type(None): b""}[type(before)]
    with connection:
        connection.execute(f"UPDATE {table} SET {column} = ?", (after,))
    connection.close()

    with pytest.raises(DamagedSessionError, match="session s is damaged"):
        list(dataman.records())
    with pytest.raises(DamagedSessionError, match="session s is damaged"):
        list(dataman.failures())


def changed(session, statement, *values):
    connection = sqlite3.connect(session.path)
    with connection:
        connection.execute(statement, values)
    connection.close()


@pytest.mark.parametrize(
    ("table", "read", "what"),
    [
        ("Attempt", "records", "of its 3 attempts, 2 were found"),
        ("Attempt", "failures", "row 3 of its ledger"),
        ("History", "failures", "of its 3 attempts, 2 were found"),
        ("History", "history", "of its 3 attempts, 2 were found"),
    ],
)
def test_a_missing_row_of_the_ledger_is_noticed(dataman, table, read, what):
    with dataman.session("s") as session:
        for i in range(3):
            session.commit("sweep", RECORD, [outcome(i, "error", error="e")])
    changed(session, f"DELETE FROM {table} WHERE id = 3")

    with pytest.raises(DamagedSessionError, match=what):
        list(getattr(dataman, read)())


def test_the_history_has_one_row_for_each_commit(dataman):
    with dataman.session("s") as session:
        session.commit("sweep", RECORD, [outcome(0, value=1), outcome(1, "error", error="e")])
        session.commit("sweep", RECORD, [outcome(1, value=2)])
    connection = sqlite3.connect(session.path)
    rows = connection.execute("SELECT * FROM History").fetchall()
    connection.close()

    identities = [record.identity for record in dataman.records()]
    told = [identity + bytes([0, 0, 0, 0, code]) for identity, code in zip(identities, (0, 1, 0))]
    batches = [(1, told[0] + told[1]), (3, told[2])]
    assert [(*row, zlib.crc32(struct.pack("<q", row[0]) + row[1])) for row in batches] == rows


@pytest.mark.parametrize("read", ["history", "failures"])
def test_a_change_in_the_history_is_noticed(dataman, read):
    with dataman.session("s") as session:
        session.commit("sweep", RECORD, [outcome(0, value=1)])
    changed(session, "UPDATE History SET rows = ?", bytes(21))

    with pytest.raises(DamagedSessionError, match="the history of its ledger from row 1 on"):
        list(getattr(dataman, read)())


def test_a_history_that_says_something_else_than_the_ledger_is_found_and_mended(dataman):
    with dataman.session("s") as session:
        session.commit("sweep", RECORD, [outcome(0, value=1), outcome(1, "error", error="e")])
    rows = bytes(42)
    changed(session, "UPDATE History SET rows = ?, crc = ?", rows, zlib.crc32(struct.pack("<q", 1) + rows))
    before = [(record.identity, record.replicate, record.status) for record in dataman.records()]

    assert any("its history is not that" in str(problem) for problem in dataman.check().problems)
    dataman.repair()

    assert before == list(dataman.history())
    assert dataman.check().fine


def test_the_checksums_are_those_of_the_specification(dataman):
    """Another language can compute them: see docs/architecture.md."""
    with dataman.session("s") as session:
        session.commit("sweep", RECORD, [outcome(0, "error", error="e", item="caf\xe9")])
    connection = sqlite3.connect(session.path)
    name, record, crc = connection.execute("SELECT name, record, crc FROM Sweep").fetchone()
    row = dict(zip(ATTEMPT, connection.execute(f"SELECT {', '.join(ATTEMPT)} FROM Attempt").fetchone()))
    connection.close()

    def joined(numbers, doubles, *fields):
        fields = [field.encode() if isinstance(field, str) else field for field in fields]
        lengths = [-1 if field is None else len(field) for field in fields]
        packed = [struct.pack("<q", number) for number in numbers] + [struct.pack("<d", d) for d in doubles]
        packed += [struct.pack("<q", length) for length in lengths]
        return zlib.crc32(b"".join([*packed, *(field or b"" for field in fields)]))

    assert crc == joined([1], [], name, record)
    assert row["crc"] == joined(
        [row[n] for n in ("sweep", "number", "replicate", "attempt", "pid")],
        [row["started"], row["seconds"]],
        *(row[n] for n in ("identity", "status", "key", "item", "host", "error", "traceback", "output")),
    )


ATTEMPT = [column for table, column in LEDGER if table == "Attempt"]


def test_the_ledger_is_plain_tables(dataman):
    """Whoever has no futurefarm can still read it."""
    with dataman.session() as session:
        session.commit("sweep", RECORD, [outcome(0, value=1)])
    connection = sqlite3.connect(session.path)
    rows = connection.execute(
        "SELECT Sweep.name, number, status, value FROM Attempt JOIN Sweep ON Sweep.id = sweep"
        " JOIN Dict ON Dict.key = Attempt.key"
    ).fetchall()
    connection.close()

    assert [("sweep", 0, "ok", pickle.dumps(1))] == rows


def test_a_missing_count_of_attempts_is_damage(dataman):
    with dataman.session("s") as session:
        session.commit("sweep", RECORD, [outcome(0, value=1)])
    connection = sqlite3.connect(session.path)
    with connection:
        connection.execute("DELETE FROM Meta WHERE name = 'attempts'")
    connection.close()

    with pytest.raises(DamagedSessionError, match="of its None attempts, 1 were found"):
        list(dataman.records())


def test_what_ended_well_is_told_by_the_claims_of_its_tasks(dataman):
    with dataman.session("s") as session:
        for numbers in ([0, 1], [2], range(3, 40)):
            session.commit("sweep", "{}", [outcome(n, "error" if n in (1, 2, 30) else "ok") for n in numbers])

    assert [claim_of(b"%016d" % n, 0) for n in range(40) if n not in (1, 2, 30)] == [
        claim for claims in dataman.done() for claim in claims
    ]
