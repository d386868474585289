"""Directories that somebody made to harm: what is planted there is refused by name."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import stat
import struct
import warnings
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest
from click.testing import CliRunner

from futurefarm import DataManager, run_tasks
from futurefarm.blobs import LARGE, Reference, attach
from futurefarm.cli import main
from futurefarm.dataman import ForeignFileWarning
from futurefarm.directory import check_session_name
from futurefarm.errors import (
    DamagedSessionError,
    DirectoryError,
    FutureFarmError,
    SessionError,
    SessionNameError,
    UnreadableValueError,
)
from futurefarm.store import sidecar_of

from .test_ledger import RECORD, outcome


@pytest.fixture
def path(dataman) -> Path:
    """A sealed session with items and a ledger."""
    with dataman.session("s") as session:
        session["a"] = 1
        session.commit("sweep", RECORD, [outcome(1, value=2), outcome(2, "error", error="e")])
    return Path(session.path)


# -- who may see what is made


def test_all_that_is_made_is_for_the_user_alone_whatever_the_umask(tmp_path):
    before = os.umask(0)
    try:
        dataman = DataManager("paper/fig3", tmp_path)
        run_tasks(dataman, abs, [1, 2], executor="thread", progress=False)
        session = dataman.computer_session()
        session["a"] = 1
        dataman.directory.ask_to_stop()
        DataManager("paper/other", tmp_path).merge(dataman)
        modes = {
            str(found.relative_to(tmp_path)): stat.S_IMODE(found.stat().st_mode)
            for found in tmp_path.rglob("*")
        }
        session.close()
    finally:
        os.umask(before)

    assert {"paper", "paper/fig3.data/.farm/stop", "paper/fig3.data/.farm/id"} <= modes.keys()
    assert any(name.endswith("-wal") for name in modes)
    assert any(name.endswith("-shm") for name in modes)
    wrong = {
        name: oct(m) for name, m in modes.items() if m != (0o700 if (tmp_path / name).is_dir() else 0o600)
    }
    assert {} == wrong


# -- links


def link(path: Path, target: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to(target)


def test_a_link_in_the_place_of_a_session_is_refused_by_name(dataman, path, tmp_path):
    target = path.rename(tmp_path / "elsewhere")
    path.symlink_to(target)
    before = target.read_bytes()
    for use in (
        lambda: dict(dataman.items()),
        lambda: len(dataman),
        lambda: dataman.session("s"),
        lambda: dataman.locking_session("s"),
        lambda: DataManager("other", tmp_path).merge(dataman),
        lambda: run_tasks(dataman, abs, [1], executor="serial", progress=False),
    ):
        with pytest.raises(SessionError, match=r"session .*/s cannot be read \(it is a link"):
            use()

    assert before == target.read_bytes()
    assert path.is_symlink()


def test_a_link_to_nowhere_in_the_place_of_a_session_is_refused(dataman, tmp_path):
    Path(dataman.basepath, "s").symlink_to(tmp_path / "nowhere")
    with pytest.raises(SessionError, match="it is a link"):
        dataman.session("s")

    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("side", ["-wal", "-shm", "-journal"])
def test_a_link_in_the_place_of_a_log_is_not_followed(side, dataman, path, tmp_path):
    target = tmp_path / "mine"
    target.write_text("mine")
    link(Path(f"{path}{side}"), target)
    try:
        with dataman.session("s") as session:
            session["b"] = 2
    except SessionError:
        pass

    assert "mine" == target.read_text()


@pytest.mark.parametrize("name", ["", "locks", "computers", "workers"])
def test_a_link_in_the_place_of_a_folder_is_refused(name, dataman, tmp_path):
    folder = Path(dataman.basepath, ".farm", name)
    shutil.rmtree(folder)
    (tmp_path / "mine").mkdir()
    folder.symlink_to(tmp_path / "mine")
    with pytest.raises(DirectoryError, match="is a file or a link"):
        run_tasks(dataman, abs, [1], executor="serial", progress=False)

    assert [] == list((tmp_path / "mine").iterdir())


@pytest.mark.parametrize(
    "name", [".farm/id", ".farm/stop", ".farm/locks/s.lock", ".farm/locks/s.json", ".farm/computers/me"]
)
def test_a_link_in_the_place_of_a_small_file_is_not_followed(name, dataman, path, tmp_path, monkeypatch):
    monkeypatch.setattr("futurefarm.directory.computer_name", lambda: "me")
    target = tmp_path / "mine"
    target.write_text("mine")
    link(Path(dataman.basepath, name), target)
    for use in (
        lambda: dataman.directory.ask_to_stop(),
        lambda: dataman.session("s").close(),
        lambda: dataman.computer_session().close(),
    ):
        try:
            use()
        except FutureFarmError:
            pass

    assert "mine" == target.read_text()


def test_the_command_stop_refuses_a_link(dataman, tmp_path):
    dataman.directory.stop.symlink_to(tmp_path / "nowhere")
    done = CliRunner().invoke(main, ["stop", dataman.basepath])

    assert (1, True) == (done.exit_code, "it is a link" in done.output or "cannot be written" in done.output)
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("name", ["s", ".farm/id", ".farm/stop", ".farm/locks/s.json", ".farm/computers/me"])
def test_a_pipe_keeps_nobody_waiting(name, dataman, monkeypatch):
    monkeypatch.setattr("futurefarm.directory.computer_name", lambda: "me")
    place = Path(dataman.basepath, name)
    place.unlink(missing_ok=True)
    os.mkfifo(place)
    for use in (
        lambda: dict(dataman.items()),
        lambda: dataman.directory.id,
        lambda: dataman.directory.ask_to_stop(),
        lambda: dataman.session("s").close(),
        lambda: dataman.computer_session().close(),
    ):
        try:
            use()
        except (FutureFarmError, OSError):
            pass


# -- names

NAMES = [
    *("", ".", "..", "../x", "../../x", "/etc/passwd", "a/b", "a\\b", "..\\x", "./x", "~", "~root", "C:x"),
    *(".hidden", "-rf", "--help", " x", "x ", "x.", "x\0", "\0", "x\n", "\n", "x\r\ny", "x\ty", "\x1b[31mx"),
    *("CON", "con", "NUL", "nul.txt", "aux", "PRN", "COM1", "lpt9.a.b", "x-wal", "x-shm", "x-journal"),
    *("ä", "x\u0301", "\u202ex", "x\u200b", "\ufeffx", "\uff58", "\u0445", "x\u2028y", "\ud800", "\uff11"),
    *("\u017f", "\u2024", "$(x)", "`x`", "x;y", "x|y", "x&y", "x*", "x?", "[x]", "x'y", 'x"y', "<x>"),
    *("x%00", "%2e%2e", "x" * 101, "x" * 5000, "x@y", "x:y", "x y", "#x", "x+y", "x=y"),
]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_a_hostile_name_is_refused(name, dataman):
    for use in (dataman.session, dataman.locking_session, dataman.session_filename):
        with pytest.raises(SessionNameError) as caught:
            use(name)
        assert len(str(caught.value)) < 1000
    assert [] == dataman.session_filenames()


@pytest.mark.parametrize("name", ["x", "_", "0", "x" * 100, "a.b-c_d", "console", "com", "com10", "nullable"])
def test_a_plain_name_is_a_name(name):
    check_session_name(name)


@pytest.mark.parametrize("kind", [7, b"s", None, ["s"]])
def test_a_name_is_text(kind, dataman):
    with pytest.raises(SessionNameError):
        check_session_name(kind)


def test_a_session_under_a_name_that_none_can_have_is_warned_of_and_the_others_are_read(dataman, path):
    shutil.copy(path, path.with_name("s (1)"))
    shutil.copy(path, path.with_name("t"))
    with pytest.warns(ForeignFileWarning, match=r"s \(1\) has a name that no session can have"):
        keys = list(dataman)

    assert 2 == keys.count("a")


def test_a_foreign_file_of_any_name_is_only_warned_of(dataman, path):
    for name in ("-rf", "x\ny", "ä" * 100, "x y", "CON"):
        path.with_name(name).write_bytes(b"no session")
    with pytest.warns(ForeignFileWarning):
        assert 2 == len(dataman)


def test_a_name_that_leaves_no_room_for_that_of_a_log_is_warned_of(dataman, path, tmp_path):
    shutil.move(path, path.with_name("x" * 250))
    with pytest.warns(ForeignFileWarning, match="has a name that no session can have"):
        assert 0 == len(dataman)
    DataManager("other", tmp_path).merge(dataman)


# -- small files of any content


@pytest.mark.parametrize(
    "text",
    [
        *("", "null", "[]", '"x"', "1e999", "{", "[" * 100_000, "\0" * 99, '{"pid": "x"}', '{"pid": 1}'),
        *('{"host": []}', '{"inode": {}}', '{"pid": ' + "9" * 5000 + "}"),
        '{"since": "now", "host": "h", "pid": 1, "inode": 1.5}',
    ],
    ids=lambda text: text[:20],
)
def test_a_note_of_any_content_harms_nobody(text, dataman, path):
    held = dataman.session("s")
    note = dataman.directory.holder("s")
    note.write_text(text)
    with pytest.raises(SessionError, match="held by"):
        dataman.session("s", lock_timeout=0)
    assert 2 == len(dataman)
    held.close()


@pytest.mark.parametrize("marks", ["[" * 100_000, "[]", "1", '{"../../mine": %s}', '{"/%s": 1}', '{"a": {}}'])
def test_a_note_of_what_was_joined_can_name_only_sessions(marks, dataman, path, tmp_path):
    mine = tmp_path / "mine"
    mine.write_text("mine")
    status = mine.stat()
    mark = json.dumps([status.st_ino, status.st_mtime_ns, status.st_size])
    folder = dataman.directory.farm / "replaced"
    folder.mkdir()
    (folder / "s").write_text(marks.replace("%s", mark))
    (tmp_path / "farm.data" / "other").write_bytes(path.read_bytes())
    dataman.compact()

    assert "mine" == mine.read_text()
    assert 4 == len(dataman)


@pytest.mark.parametrize("left", [1, 8, 13, 23])
def test_a_file_that_ends_within_its_last_mark_is_refused(left, dataman, path):
    data = path.read_bytes()
    path.unlink()
    pages = int.from_bytes(data[28:32], "big")
    path.with_name("t").write_bytes(data[: pages * 4096 + left])  # a copy, not written here
    for use in (list, len):
        with pytest.raises(SessionError, match="incomplete copy"):
            use(dataman)


# -- tables of another hand


def with_schema(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA writable_schema = ON")
        for statement in statements:
            connection.execute(statement)
        connection.commit()


ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)"

SCHEMAS = {
    "a view that does not end": [
        "DROP TABLE Dict",
        f"CREATE VIEW Dict AS {ENDLESS} SELECT i AS key, i AS value, NULL AS crc, i AS rowid FROM n",
    ],
    "a view of the notes": [
        "ALTER TABLE Meta RENAME TO Meta2",
        f"CREATE VIEW Meta AS {ENDLESS} SELECT i AS name, zeroblob(1000000) AS value FROM n",
    ],
    "a trigger": [
        "CREATE TRIGGER T AFTER INSERT ON Dict BEGIN DELETE FROM Attempt; END",
    ],
    "a trigger of a name of ours": [
        "DROP TRIGGER Removed",
        "CREATE TRIGGER Removed AFTER UPDATE ON Meta BEGIN DELETE FROM Dict; END",
    ],
    "a generated column": [
        "ALTER TABLE Dict RENAME TO Old",
        "CREATE TABLE Dict (key BLOB, value BLOB AS (zeroblob(1000000000)), crc INTEGER)",
    ],
    "a virtual table": ["CREATE VIRTUAL TABLE V USING fts5(x)"],
    "a table more": ["CREATE TABLE More (x)"],
    "an index on an expression": ["CREATE INDEX I ON Dict (length(randomblob(1000000)))"],
    "a schema that is none": ["UPDATE sqlite_master SET sql = 'nonsense' WHERE name = 'Attempt'"],
}


@pytest.mark.parametrize("name", SCHEMAS)
def test_tables_that_are_not_ours_are_refused_before_anything_is_asked_of_them(name, dataman, path):
    try:
        with_schema(path, *SCHEMAS[name])
    except sqlite3.OperationalError as error:
        pytest.skip(str(error))
    for use in (
        lambda: list(dataman),
        lambda: len(dataman),
        lambda: dataman["a"],
        lambda: list(dataman.records()),
        lambda: dataman.session("s"),
        lambda: DataManager("other", Path(dataman.basepath).parent).merge(dataman),
    ):
        with pytest.raises(DamagedSessionError, match="session s is damaged"):
            use()


def test_a_tree_that_shows_one_page_without_end_is_refused(dataman):
    """Fifteen levels of a hundred times the same page have more rows than can ever be counted."""
    with dataman.session("s") as session:
        for number in range(10):
            session[str(number)] = number
    path = Path(session.path)
    connection = sqlite3.connect(path)
    (root,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'Dict'").fetchone()
    connection.execute("UPDATE Meta SET value = NULL WHERE name IN ('count', 'again')")
    connection.commit()
    connection.close()
    data = bytearray(path.read_bytes())
    size = 4096
    pages = len(data) // size
    leaf = bytes(data[(root - 1) * size : root * size])
    levels = [root, *range(pages + 1, pages + 16)]
    data += bytes(size) * 15
    for level, child in pairwise(levels):
        data[(level - 1) * size : level * size] = tree_page([child] * 100, size)
    data[(levels[-1] - 1) * size : levels[-1] * size] = leaf
    struct.pack_into(">I", data, 28, pages + 15)
    path.write_bytes(data)
    assert len(dataman) <= len(data) // 4
    for use in (list, lambda dataman: dict(dataman.items())):
        with pytest.raises(SessionError):
            use(dataman)
    with dataman.session("s") as session, pytest.raises(SessionError):
        list(session)


def tree_page(children: list[int], size: int) -> bytes:
    """Return an inner page of a table's tree; all rows from 1 on lie under the last of the children."""
    cells = [struct.pack(">IB", child, number + 1) for number, child in enumerate(children[:-1])]
    page = bytearray(size)
    at = size
    for number, cell in enumerate(cells):
        at -= len(cell)
        page[at : at + len(cell)] = cell
        struct.pack_into(">H", page, 12 + 2 * number, at)
    struct.pack_into(">BHHHBI", page, 0, 5, 0, len(cells), at, 0, children[-1])
    return bytes(page)


def test_a_journal_cannot_name_a_file_to_be_deleted(dataman, path, tmp_path):
    mine = tmp_path / "mine"
    mine.write_text("mine")
    name = str(mine).encode()
    magic = bytes.fromhex("d9d505f920a163d7")
    head = magic + struct.pack(">IIIII", 0, 1, path.stat().st_size // 4096, 512, 4096)
    end = struct.pack(">I", 1 << 20) + name + struct.pack(">II", len(name), sum(name)) + magic
    Path(f"{path}-journal").write_bytes(head.ljust(512, b"\0") + end)
    for use in (lambda: dict(dataman.items()), lambda: dataman.session("s")):
        with pytest.raises(DamagedSessionError, match="its journal is not of our making"):
            use()

    assert mine.exists()


# -- a ledger of another hand


@pytest.mark.parametrize(
    "record", ["[" * 100_000, "null", "7", '{"function": {"a": []}}', "nonsense", "9" * 5000]
)
def test_a_record_of_any_content_costs_only_the_name_of_the_function(record, dataman):
    with dataman.session("s") as session:
        session.commit("sweep", record, [outcome(1, "error", error="e")])

    assert isinstance(next(dataman.records()).function, str)
    assert 1 == len(list(dataman.failures()))


def test_a_ledger_whose_numbers_are_none_is_refused_and_recovered_without_it(dataman, path):
    connection = sqlite3.connect(path)
    connection.execute("UPDATE Attempt SET number = 'many', pid = x'00', started = 'now'")
    connection.commit()
    connection.close()

    with pytest.raises(DamagedSessionError, match="ledger is not what was written"):
        list(dataman.records())
    dataman.repair()
    assert 2 == len(dict(dataman.items()))


def test_what_others_wrote_does_not_steer_the_terminal(dataman):
    with dataman.session("s") as session:
        session.commit(
            "sweep", RECORD, [outcome(1, "error", error="\x1b]0;owned\x07 \x9b2J \u202egnp \r\nno")]
        )
    shown = CliRunner().invoke(main, ["failed", dataman.basepath]).output

    assert "\\x1b]0;owned\\x07 \\x9b2J \\u202egnp \\r\nno" in shown
    assert {"\n"} == {character for character in shown if ord(character) < 32}


COMMANDS = ["status", "failed", "check", "repair", "compact", "stop"]


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("kind", ["link", "dangling link", "pipe", "folder", "empty", "text", "long name"])
def test_what_is_planted_ends_no_command_in_an_error_that_is_not_ours(name, kind, dataman, path, tmp_path):
    place = path.with_name("x" * 250 if kind == "long name" else "a.b.0123456789")
    if kind == "pipe":
        os.mkfifo(place)
    elif kind == "folder":
        place.mkdir()
    elif "link" in kind:
        place.symlink_to(path if kind == "link" else tmp_path / "nowhere")
    else:
        place.write_bytes({"empty": b"", "text": b"text"}.get(kind) or path.read_bytes())
    os.chmod(dataman.basepath, 0o777)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ForeignFileWarning)
        done = CliRunner().invoke(main, [name, dataman.basepath])

    assert done.exception is None or isinstance(done.exception, SystemExit), done.exc_info
    assert 1 >= done.exit_code


# -- large values, which lie in another file


def with_blobs(tmp_path):
    dataman = DataManager("large", tmp_path)
    with dataman.session("results") as session:
        session["array"] = np.arange(LARGE)
    return dataman, sidecar_of(dataman.directory.session("results"))


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_what_was_planted_in_the_place_of_large_values_is_refused(kind, tmp_path):
    dataman, path = with_blobs(tmp_path)
    path.rename(tmp_path / "elsewhere")
    if kind == "link":
        path.symlink_to(tmp_path / "elsewhere")
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()
    with pytest.raises(SessionError, match="results"):
        dataman["array"]
    with pytest.raises(SessionError, match="results"), dataman.session("results") as session:
        session["more"] = np.arange(LARGE)
    assert not dataman.check().fine


@pytest.mark.parametrize("mmap", [False, True])
def test_references_that_ask_for_more_than_there_is_are_damage(mmap, tmp_path):
    dataman, path = with_blobs(tmp_path)
    size = path.stat().st_size - 64
    hostile = {
        "many": [Reference(64, size, 0)] * 100_000,
        "far": [Reference(2**63, 64, 0)],
        "long": [Reference(64, 2**64 - 1, 0)],
        "overflow": [Reference(2**64 - 1, 2**64 - 1, 0)],
    }
    stream = b"\x80\x05\x97."
    with dataman.session("results") as session:
        mark = session.store.mark
        for key, references in hostile.items():
            session.store[key.encode()] = attach(stream, references, mark)
        session.store[b"cut"] = attach(stream, hostile["far"], mark)[-30:]
        session.store[b"unasked"] = attach(b"\x80\x05N.", [Reference(64, 0, 0)], mark)
        session.store[b"missing"] = attach(b"\x80\x05\x97\x97\x86.", [Reference(64, 0, 0)], mark)
    careful = DataManager.at(dataman.basepath, trusted=False, mmap=mmap)
    for key in (*hostile, "cut", "missing"):
        with pytest.raises(SessionError, match=key):
            careful[key]
        with pytest.raises(SessionError, match=key):
            careful.get_pickle(key)
    assert careful["unasked"] is None
    assert not dataman.check().fine
    dataman.repair()
    assert {"array", "unasked", "missing"} == set(dataman)


def test_a_buffer_where_none_is_made_is_refused(tmp_path):
    dataman, _ = with_blobs(tmp_path)
    with dataman.session("results") as session:
        reference = Reference(64, 8, crc32(np.arange(1).tobytes()))
        for key, stream in {
            "read only": b"\x80\x05N\x98.",
            "called": b"\x80\x05cbuiltins\nbytes\n\x97\x85R.",
            "deep": b"\x80\x05(" + b"\x97" * 1000 + b"t.",
        }.items():
            session.store[key.encode()] = attach(stream, [reference], session.store.mark)
    careful = DataManager.at(dataman.basepath, trusted=False)
    for key in ("read only", "called", "deep"):
        with pytest.raises(UnreadableValueError, match=key):
            careful[key]
