"""What a damaged session still holds is found without SQLite, and nothing else is."""

from __future__ import annotations

import random
import shutil
import sqlite3
from pathlib import Path

import pytest

from futurefarm.store import Store, create
from futurefarm.store.cells import adds_up
from futurefarm.store.examine import examine
from futurefarm.store.log import PAGE, frames, lost_commits
from futurefarm.store.recover import recover
from futurefarm.store.salvage import salvage

from .test_ledger import RECORD, outcome

TABLES = ("Dict", "Sweep", "Attempt")


def fill(session, number=15):
    """Values and texts that fit into a page, and others that do not."""
    chance = random.Random(1)
    for i in range(number):
        session[str(i)] = chance.randbytes(chance.choice([10, 500, 9000]))
        error = "e" * chance.choice([1, 300, 6000])
        session.commit("sweep", RECORD, [outcome(i, value=i), outcome(i + 1000, "error", error=error)])


@pytest.fixture
def sealed(dataman):
    with dataman.session("s") as session:
        fill(session)
    return Path(session.path)


@pytest.fixture
def killed(dataman, tmp_path):
    """The file and the log of a writer that never closed them."""
    path = tmp_path / "killed"
    with dataman.session("s") as session:
        fill(session)
        for ending in ("", "-wal"):
            shutil.copy(f"{session.path}{ending}", f"{path}{ending}")
    return path


def rows(path: Path) -> set[tuple]:
    """What SQLite reads."""
    connection = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)
    found = set()
    for table, number in zip(TABLES, ("rowid", "id", "id")):
        for row, *columns in connection.execute(f"SELECT {number} AS number, * FROM {table}"):
            found.add((table, row, tuple(columns[table != "Dict" :])))
    connection.close()
    return found


def salvaged(path: Path) -> set[tuple]:
    return {(found.table, found.row, found.columns) for found in salvage(path) if found.whole}


def values_and_ledger(found: set[tuple]) -> set[tuple]:
    """Without the numbers of the values' rows, which nobody relies on."""
    return {row[::2] if row[0] == "Dict" else row for row in found}


def flip(path: Path, at: int, bit: int = 0) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1 << bit
    path.write_bytes(data)


def test_everything_in_a_healthy_file_is_found(sealed):
    assert rows(sealed) == salvaged(sealed)
    assert [] == list(examine(sealed))


def test_everything_in_a_file_and_its_log_is_found(killed):
    found = salvaged(killed)

    assert all(frame.good for frame in frames(killed))
    assert lost_commits(killed) is None
    assert rows(killed) == found


def test_a_deleted_value_does_not_come_back(dataman):
    with dataman.session("s") as session:
        fill(session)
        for i in range(0, 15, 2):
            del session[str(i)]

    assert rows(Path(session.path)) == salvaged(Path(session.path))


def test_a_flipped_bit_costs_one_row_at_most(sealed):
    truth = rows(sealed)
    data = sealed.read_bytes()
    chance = random.Random(2)
    for _ in range(40):
        flip(sealed, chance.randrange(len(data)), chance.randrange(8))
        found = salvaged(sealed)
        assert found <= truth
        assert len(truth) - 1 <= len(found)
        sealed.write_bytes(data)


def test_damage_of_the_pages_that_lead_to_others_costs_nothing(sealed):
    truth = rows(sealed)
    data = sealed.read_bytes()
    for at in range(0, len(data), PAGE):
        if at == 0 or (data[at] in (2, 5, 10) and adds_up(data[at : at + PAGE])):
            with sealed.open("r+b") as file:
                file.seek(at)
                file.write(bytes(PAGE))

    assert truth == salvaged(sealed)


def test_commits_behind_a_damaged_place_in_a_log_are_known_and_found(killed):
    truth = salvaged(killed)
    log = Path(f"{killed}-wal")
    all_frames = list(frames(killed))
    flip(log, all_frames[len(all_frames) // 3].offset + 100)
    lost, _, acknowledged = lost_commits(killed)

    assert acknowledged
    assert 10 < lost < 30
    assert len(truth) - 1 <= len(truth & salvaged(killed))
    assert len(rows(killed)) < len(truth) // 2


def test_a_damaged_head_of_a_log_costs_nothing(killed):
    truth = salvaged(killed)
    log = Path(f"{killed}-wal")
    for at in range(32):
        flip(log, at)
        assert truth == salvaged(killed)
        flip(log, at)


def test_a_torn_end_of_a_log_is_told_from_damage(killed):
    log = Path(f"{killed}-wal")
    data = log.read_bytes()
    last = list(frames(killed))[-1]
    log.write_bytes(data[: last.offset + 100])
    assert lost_commits(killed) is None

    log.write_bytes(data)
    flip(log, last.offset + 100)
    assert (1, last.offset, False) == lost_commits(killed)


def test_a_fresh_session_is_made_of_what_is_left(sealed, tmp_path):
    truth = rows(sealed)
    item = next(row for row in truth if row[0] == "Dict" and row[2][0] == b"7")
    sealed.write_bytes(sealed.read_bytes().replace(item[2][1][5:], item[2][1][5:][::-1], 1))
    told = recover(sealed, tmp_path / "fresh")

    assert values_and_ledger(truth - {item}) == values_and_ledger(rows(tmp_path / "fresh"))
    assert (["7"], 29, 30) == (told.lost, told.items, told.attempts)
    assert [] == list(examine(tmp_path / "fresh"))


def test_a_task_whose_value_is_lost_is_not_recorded_as_done(sealed, tmp_path):
    ok = next(row for row in rows(sealed) if row[0] == "Attempt" and row[2][5] == "ok")
    key = ok[2][6]
    store = Store(sealed)
    del store[key]
    store.close()
    told = recover(sealed, tmp_path / "fresh")

    assert [key.decode()] == told.lost
    assert ok not in rows(tmp_path / "fresh")


def test_attempts_outlive_the_record_of_their_sweep(sealed, tmp_path):
    sealed.write_bytes(sealed.read_bytes().replace(RECORD.encode(), RECORD.encode().swapcase()))
    told = recover(sealed, tmp_path / "fresh")
    fresh = rows(tmp_path / "fresh")

    assert 30 == told.attempts
    assert [("sweep", "{}")] == [row[2][:2] for row in fresh if row[0] == "Sweep"]
    assert [] == list(examine(tmp_path / "fresh"))


def test_random_bytes_hold_nothing(tmp_path):
    path = tmp_path / "random"
    path.write_bytes(random.Random(3).randbytes(10 * PAGE + 17))

    assert set() == salvaged(path)


def test_an_endless_chain_of_pages_ends(tmp_path):
    path = tmp_path / "s"
    create(path)
    store = Store(path)
    store[b"key"] = bytes(100 * PAGE)
    store.close()
    data = bytearray(path.read_bytes())
    at = next(at for at in range(PAGE, len(data), PAGE) if data[at] == 0)  # an overflow page
    data[at : at + 4] = (at // PAGE + 1).to_bytes(4, "big")
    path.write_bytes(data)

    assert {("Sweep",), ("Attempt",), ("Dict",)} >= {row[:1] for row in salvaged(path)}


def test_what_others_may_have_written_stays_so(sealed, tmp_path):
    def notes(path):
        return {found.columns[0] for found in salvage(path) if found.table == "Meta"}

    recover(sealed, tmp_path / "own")
    recover(sealed, tmp_path / "foreign", foreign=True)
    recover(tmp_path / "foreign", tmp_path / "again")

    assert "foreign" not in notes(tmp_path / "own")
    assert "foreign" in notes(tmp_path / "again")
