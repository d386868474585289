"""A session file: what is in it is complete and right, or an error says that it is not."""

from __future__ import annotations

import os
import shelve
import shutil
import sqlite3
import subprocess
import sys
import time
import warnings
from collections.abc import MutableMapping
from contextlib import closing, suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from futurefarm import DataManager, run_tasks
from futurefarm.dataman import ForeignFileWarning
from futurefarm.directory import Directory
from futurefarm.errors import (
    DamagedSessionError,
    IncompleteCopyError,
    NewerSessionError,
    OverwrittenSessionError,
    SessionClosedError,
    SessionError,
    SessionLockedError,
    StorageFullError,
)
from futurefarm.session import session
from futurefarm.store import FORMAT, Header, Store, checksum, create

from .companion import Companion, run


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "s"
    create(path)
    return path


@pytest.fixture
def store(path):
    store = Store(path)
    yield store
    store.close()


@pytest.fixture
def elsewhere(tmp_path):
    return DataManager("elsewhere", tmp_path)


def cp(source: str | Path, target: DataManager, *endings: str) -> None:
    """Copy files as a user does, with another program."""
    files = [f"{source}{ending}" for ending in endings] or [str(source)]
    subprocess.run(["cp", *files, target.basepath], check=True)


def files_of(dataman: DataManager) -> set[str]:
    return {name for name in os.listdir(dataman.basepath) if name != ".farm"}


# -- a mapping of bytes


def test_a_store_is_a_mapping(store):
    store[b"a"] = b"1"
    store[b"b"] = b"2"
    store[b"a"] = b"3"
    del store[b"b"]

    assert {b"a": b"3"} == dict(store)
    assert (1, True, False) == (len(store), b"a" in store, b"b" in store)
    for missing in (lambda: store[b"b"], lambda: store.__delitem__(b"b")):
        with pytest.raises(KeyError):
            missing()


def test_a_value_may_be_empty_or_large(store, path):
    store[b""] = b""
    store[b"large"] = bytes(10_000_000)
    store.close()

    again = Store(path)
    assert {b"": 0, b"large": 10_000_000} == {key: len(value) for key, value in again.items()}
    again.close()


def test_iteration_goes_on_while_items_come_and_go(store):
    with store.transaction():
        store.update({b"%d" % i: b"" for i in range(2500)})
    seen = []
    for key in store:
        seen.append(key)
        if key == b"3":
            del store[b"2400"]
            store[b"new"] = b""

    assert {b"%d" % i for i in range(2500)} - {b"2400"} | {b"new"} == set(seen)


# -- transactions


def fill(store: Store, *keys: bytes, then: BaseException | None = None) -> None:
    with store.transaction():
        for key in keys:
            store[key] = b"new"
        if then is not None:
            raise then


def test_a_block_that_raises_stores_nothing(store):
    with pytest.raises(ZeroDivisionError):
        fill(store, b"a", then=ZeroDivisionError())

    assert (0, {}) == (len(store), dict(store))


def test_an_inner_block_that_raises_is_undone_alone(store):
    with store.transaction():
        store[b"a"] = b"1"
        with pytest.raises(ZeroDivisionError):
            fill(store, b"a", b"b", then=ZeroDivisionError())
        fill(store, b"c")

    assert {b"a": b"1", b"c": b"new"} == dict(store)
    assert 2 == len(store)


def test_an_inner_block_is_undone_with_the_outer_one(store):
    store[b"a"] = b"1"
    with pytest.raises(ZeroDivisionError), store.transaction():
        store[b"c"] = fill(store, b"a", b"b") or bytes(1 // 0)

    assert {b"a": b"1"} == dict(store)


def test_a_store_closed_within_a_block_stores_nothing_of_it_and_says_so(store, path):
    store[b"a"] = b"1"
    with pytest.raises(SessionClosedError), store.transaction():
        store[b"b"] = store.close() or b"2"

    again = Store(path)
    assert {b"a": b"1"} == dict(again)
    again.close()


def test_a_key_is_added_only_once(store):
    store.append("sweep", "{}", [(b"a", b"1", 0)], [])
    with pytest.raises(sqlite3.IntegrityError):
        store.append("sweep", "{}", [(b"b", b"1", 0), (b"a", b"2", 0)], [])

    assert (1, [b"a"]) == (len(store), list(store))


# -- the life of a file


def test_at_rest_a_session_is_one_plain_file(dataman):
    with dataman.session("s") as session:
        session["a"] = 1
        live = files_of(dataman)
        header = Header.read(Path(session.path))

    assert {"s", "s-wal", "s-shm"} == live
    assert (True, FORMAT, True, True) == (header.ours, header.version, header.writing, header.wal)
    assert {"s"} == files_of(dataman)
    sealed = Header.read(Path(session.path))
    assert (False, False) == (sealed.writing, sealed.wal)


def test_while_it_is_written_the_main_file_stands_still(dataman):
    with dataman.session("s") as session:
        before = Path(session.path).read_bytes()
        for i in range(50):
            session[str(i)] = bytes(1000)

        assert before == Path(session.path).read_bytes()
        assert session.log_size > 50_000


@pytest.mark.slow
def test_a_log_that_grew_long_is_folded_into_the_file(dataman, monkeypatch):
    monkeypatch.setattr(session, "LOG_LIMIT", 100_000)
    logs = []
    writers = dataman.session("plain"), dataman.locking_session("locking")
    for i in range(100):
        for writer in writers:
            writer[str(i)] = bytes(1000)
            logs.append(writer.log_size)
        assert 2 * (i + 1) == len(dataman)
    for writer in writers:
        writer.close()

    assert max(logs) < 150_000
    assert 200 == len(dataman) == len([*dataman.items()])


@pytest.mark.slow
def test_somebody_who_reads_for_long_hardly_delays_the_writer_whose_log_grew_long(dataman, monkeypatch):
    monkeypatch.setattr(session, "LOG_LIMIT", 100_000)
    with dataman.session("s") as writer:
        writer["first"] = bytes(1000)
        with closing(sqlite3.connect(writer.path, isolation_level=None)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM Dict").fetchone()
            begun = time.perf_counter()
            for i in range(30):
                writer[str(i)] = bytes(1000)
            taken = time.perf_counter() - begun
            assert writer.log_size > 100_000
        for i in range(30, 100):
            writer[str(i)] = bytes(1000)
        assert writer.log_size < 250_000

    assert taken < 5
    assert 101 == len(dataman) == len([*dataman.items()])


def test_closing_twice_is_harmless(store):
    store.close()
    store.close()

    assert store.closed


def test_a_closed_store_says_so(store):
    store.close()
    for use in (lambda: store[b"a"], lambda: store.__setitem__(b"a", b"1"), lambda: len(store)):
        with pytest.raises(SessionClosedError, match="is closed"):
            use()


def test_creating_never_overwrites(path):
    before = path.read_bytes()
    with pytest.raises(SessionError, match="File exists"):
        create(path)

    assert before == path.read_bytes()


def test_a_program_that_ends_without_closing_leaves_a_sealed_file(dataman):
    program = """
        import sys
        from futurefarm import DataManager

        dataman = DataManager.at(sys.argv[1])
        one, other = dataman.session("plain"), dataman.locking_session("locking")
        one["a"] = other["b"] = 1
    """
    assert "" == run(program, dataman.basepath)

    assert {"plain", "locking"} == files_of(dataman)
    assert {"a": 1, "b": 1} == dict(dataman.items())


def crash(dataman: DataManager, code: str = "", name: str = "s") -> None:
    """Let a program write three items and die without any of Python's goodbyes."""
    program = f"""
import os, sys
from futurefarm import DataManager
session = DataManager.at(sys.argv[1]).session(sys.argv[2])
for i in range(3):
    session[str(i)] = i
{code}
os._exit(3)
"""
    run(program, dataman.basepath, name, status=3)


def test_the_session_of_a_crashed_writer_stays_readable_and_can_be_written_again(dataman):
    crash(dataman)

    assert {"s", "s-wal", "s-shm"} == files_of(dataman)
    assert (3, {"0": 0, "1": 1, "2": 2}) == (len(dataman), dict(dataman.items()))
    assert {"s", "s-wal", "s-shm"} == files_of(dataman), "reading repaired it"
    with dataman.session("s", lock_timeout=0) as session:
        session["3"] = 3
    assert {"s"} == files_of(dataman)
    assert {"0": 0, "1": 1, "2": 2, "3": 3} == dict(dataman.items())


def test_a_transaction_that_a_crash_cut_off_never_was(dataman):
    crash(dataman, "block = session.store.transaction(); block.__enter__(); session['half'] = 1")

    assert ["0", "1", "2"] == list(dataman)
    with dataman.session("s") as session:
        assert 3 == len(session)


def test_a_crash_while_a_session_is_made_leaves_none(dataman):
    crash(
        dataman,
        "from futurefarm.session import files\n"
        "create = files.create\n"
        "files.create = lambda path: (create(path), os._exit(3))\n"
        "DataManager.at(sys.argv[1]).session('other')",
    )

    assert [dataman.session_filename("s")] == dataman.session_filenames()
    with dataman.session("other") as session:
        session["a"] = 1
    assert 4 == len(dataman)


def test_a_session_without_a_log_whose_writer_died_in_a_commit_stays_readable(dataman, monkeypatch):
    monkeypatch.setattr(Directory, "on_network", True)
    crash(
        dataman,
        "session.close()\n"
        "from futurefarm.directory import Directory\n"
        "Directory.on_network = True\n"
        "session = DataManager.at(sys.argv[1]).session(sys.argv[2])\n"
        "session.store.connection.execute('PRAGMA cache_size = 1')\n"
        "with session.store.transaction():\n"
        "    for i in range(3, 10): session[str(i)] = bytes(10_000)\n"
        "    os._exit(3)\n",
    )
    assert {"s", "s-journal"} == files_of(dataman)
    assert {"0": 0, "1": 1, "2": 2} == dict(dataman.items())
    with dataman.session("s") as session:
        session["3"] = 3
    assert {"s"} == files_of(dataman)
    assert 4 == len(dataman)


@pytest.mark.parametrize("step", ["_note_log", "_set_version"])
def test_a_crash_between_two_logs_loses_nothing(step, dataman, elsewhere):
    crash(dataman, f"session.store.{step} = lambda *_, **__: os._exit(3)\nsession.store.fold()")
    with dataman.session("s") as session:
        session["3"] = 3
        cp(session.path, elsewhere, "", "-wal")

        assert ["0", "1", "2", "3"] == list(dataman) == list(elsewhere)


# -- copies


def test_a_copy_of_a_live_session_with_its_log_is_complete(dataman, elsewhere):
    with dataman.session("s") as session:
        for i in range(50):
            session[str(i)] = i
        subprocess.run(f"cp {dataman.basepath}/* {elsewhere.basepath}/", shell=True, check=True)
        session["later"] = 1

        assert dict(elsewhere.items()) == {str(i): i for i in range(50)}
    with elsewhere.session("s") as session:
        session["here"] = 1
    assert 51 == len(elsewhere)
    assert {"s"} == files_of(elsewhere)


def test_a_copy_of_a_live_session_without_its_log_is_refused_by_name(dataman, elsewhere):
    with elsewhere.session("whole") as session:
        session["a"] = 1
    with dataman.session("s") as session:
        session["b"] = 2
        cp(session.path, elsewhere)

        assert {"a": 1, "b": 2} == {**dict(dataman.items()), "a": 1}
    for read in (
        lambda: len(elsewhere),
        lambda: dict(elsewhere.items()),
        lambda: elsewhere["b"],
        lambda: elsewhere.session("s"),
        lambda: dataman.merge(elsewhere),
        elsewhere.check_readable,
    ):
        with pytest.raises(IncompleteCopyError, match="the session s is an incomplete copy") as caught:
            read()
        assert elsewhere.session_filename("s") == caught.value.path
    assert {"a": 1, "b": 2} == dict(dataman.items()), "what could be read was merged"


def test_a_log_left_over_beside_a_sealed_copy_is_ignored(dataman, elsewhere):
    with dataman.session("s") as session:
        session["a"] = "old"
        cp(session.path, elsewhere, "", "-wal")
        session["a"] = "new"
    cp(session.path, elsewhere)

    assert {"s", "s-wal"} <= files_of(elsewhere)
    assert "new" == elsewhere["a"]
    with elsewhere.session("s") as session:
        session["b"] = 1
    assert {"a": "new", "b": 1} == dict(elsewhere.items())
    assert {"s"} == files_of(elsewhere)


def test_a_log_of_another_generation_is_refused(dataman, elsewhere):
    with dataman.session("s") as session:
        session["a"] = 1
        cp(session.path, elsewhere)
    with dataman.session("s") as session:
        session["b"] = 2
        cp(session.path, elsewhere, "-wal")

        for use in (lambda: dict(elsewhere.items()), lambda: elsewhere.session("s")):
            with pytest.raises(IncompleteCopyError):
                use()


def test_a_file_copied_before_its_log_was_folded_does_not_go_with_the_log_after(dataman, elsewhere):
    with dataman.session("s") as session:
        session["a"] = 1
        cp(session.path, elsewhere)
        session.store.fold()
        session["b"] = 2
        cp(session.path, elsewhere, "-wal")

        with pytest.raises(IncompleteCopyError):
            dict(elsewhere.items())
        cp(session.path, elsewhere)
        assert {"a": 1, "b": 2} == dict(elsewhere.items())


SHARER = """
    import sys
    from futurefarm import DataManager

    session = DataManager.at(sys.argv[1]).locking_session("s")
    print("open", flush=True)
    while (word := input()) != "close":
        if word == "fold":
            with session._held():
                session.store.fold()
        else:
            session[word] = word
        print("done", flush=True)
    session.close()
    print("closed", flush=True)
    input()
"""


def test_a_file_copied_before_one_of_its_writers_left_does_not_go_with_the_log_after(dataman, elsewhere):
    """That writer folds the log in, and finds the file still open; the next commit begins the log anew."""
    session = dataman.locking_session("s")
    with Companion(SHARER, dataman.basepath) as other:
        other.hear()
        for i in range(20):
            session[str(i)] = i
        cp(session.path, elsewhere)
        other.say("close")
        other.hear()
        session["after"] = 1
        cp(session.path, elsewhere, "-wal")
    with pytest.raises(IncompleteCopyError):
        dict(elsewhere.items())
    cp(session.path, elsewhere, "", "-wal")

    assert 21 == len(elsewhere) == len(dict(elsewhere.items()))
    session.close()


def test_a_file_copied_before_two_writers_folded_its_log_does_not_go_with_the_log_after(dataman, elsewhere):
    with dataman.locking_session("s") as session:
        session["a"] = 1
    with Companion(SHARER, dataman.basepath) as other:
        other.hear()
        with session._held():
            session.store.fold()
        cp(session.path, elsewhere)
        other.say("fold")
        other.hear()
        other.say("b")
        other.hear()
        cp(session.path, elsewhere, "-wal")

        with pytest.raises(IncompleteCopyError):
            dict(elsewhere.items())
        other.say("close")
        other.hear()
    session.close()
    assert {"a": 1, "b": "b"} == dict(dataman.items())


def test_a_copy_over_a_session_that_was_written_here_is_a_copy(dataman, elsewhere):
    """`cp` leaves a file its inode, by which it was known to be written here."""
    with dataman.session("s") as session:
        session["a"] = 1
        cp(session.path, elsewhere, "", "-wal")
        with elsewhere.session("s") as here:
            here["b"] = 2
        session["c"] = 3
        cp(session.path, elsewhere)
        with pytest.raises(IncompleteCopyError):
            dict(elsewhere.items())

        cp(session.path, elsewhere, "", "-wal")
        assert {"a": 1, "c": 3} == dict(elsewhere.items())
    cp(session.path, elsewhere)
    assert {"a": 1, "c": 3} == dict(elsewhere.items())


class Slow:
    """A copier that has copied the first page of a session, and will copy the others later."""

    def __init__(self, source: str, target: DataManager) -> None:
        self._original = open(source, "rb")  # noqa: SIM115 - a copier keeps it open
        self._copy = Path(target.basepath, Path(source).name)
        self._head = self._original.read(4096)

    def go_on(self) -> None:
        with self._original:
            self._copy.write_bytes(self._head + self._original.read())


def many(session: MutableMapping[str, object], first: int) -> None:
    session.update({f"{i:04}": bytes(500) for i in range(first, 1000, 4)})


@pytest.mark.slow
def test_a_sealed_file_that_was_written_while_it_was_copied_is_refused(dataman, elsewhere):
    with dataman.session("s") as session:
        many(session, 0)
    slow = Slow(session.path, elsewhere)
    with dataman.session("s") as session:
        many(session, 1)
    slow.go_on()

    for use in (lambda: len(elsewhere), lambda: elsewhere.get("0001"), lambda: elsewhere.session("s")):
        with pytest.raises(IncompleteCopyError, match="parts of it are of different moments"):
            use()


@pytest.mark.slow
def test_a_file_whose_log_was_folded_while_it_was_copied_is_refused(dataman, elsewhere):
    with dataman.session("s") as session:
        many(session, 0)
        session.store.fold()
        many(session, 1)
        cp(session.path, elsewhere, "-wal")
        slow = Slow(session.path, elsewhere)
        many(session, 2)
        session.store.fold()
        slow.go_on()

        with pytest.raises(IncompleteCopyError):
            len(elsewhere)


@pytest.mark.slow
def test_a_file_copied_after_its_log_had_grown_and_was_folded_in_is_no_damaged_one(dataman, elsewhere):
    """SQLite takes it for malformed: its first page knows of more pages than the log, copied before."""
    with dataman.session("s") as session:
        session["a"] = 1
        cp(session.path, elsewhere, "-wal")
        many(session, 0)
        session.store._announce_fold()
        session.store.connection.execute("PRAGMA wal_checkpoint")
        cp(session.path, elsewhere)

        for use in (lambda: len(elsewhere), lambda: elsewhere.session("s"), elsewhere.check_readable):
            with pytest.raises(IncompleteCopyError):
                use()


@pytest.mark.slow
def test_a_file_whose_writer_died_while_it_folded_the_log_is_complete_with_that_log(dataman, elsewhere):
    """Some of its pages are of the log; a reader, which does not see all of it, keeps the others from it."""
    with dataman.session("s") as session, closing(sqlite3.connect(session.path)) as reader:
        many(session, 0)
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM Dict LIMIT 1").fetchone()
        many(session, 1)
        session.store._announce_fold()
        session.store.connection.execute("PRAGMA wal_checkpoint")
        cp(session.path, elsewhere, "", "-wal")

        assert 500 == len(elsewhere) == len(dict(elsewhere.items()))


# -- a file put in the place of one that is being written

IN_PLACE = 'cp "$1" "$2"'
BY_RENAMING = 'cp "$1" "$2.new" && mv "$2.new" "$2"'
REMOVED = 'rm "$2"'

SHOWN = "import sys; from futurefarm import DataManager; print(dict(DataManager.at(sys.argv[1]).items()))"


@pytest.mark.parametrize("way", [IN_PLACE, BY_RENAMING, REMOVED], ids=["in place", "by renaming", "removed"])
def test_an_older_copy_put_back_over_a_file_that_is_written_is_noticed(way, dataman, elsewhere):
    with dataman.session("s") as session:
        session["a"] = 1
    cp(session.path, elsewhere)
    session = dataman.session("s")
    session["b"] = 2
    subprocess.run(["sh", "-c", way, "sh", elsewhere.session_filename("s"), session.path], check=True)

    with pytest.raises(OverwrittenSessionError, match="put in the place of the session s") as caught:
        session["c"] = 3
    assert session.path == caught.value.path
    session.close()
    assert ("{}" if way == REMOVED else "{'a': 1}") == run(SHOWN, dataman.basepath), "it is left alone"


def test_an_older_copy_put_back_is_noticed_at_the_latest_when_the_session_is_closed(dataman, elsewhere):
    with dataman.session("s") as session:
        session["a"] = 1
    cp(session.path, elsewhere)
    session = dataman.session("s")
    session["b"] = 2
    cp(elsewhere.session_filename("s"), dataman)

    with pytest.raises(OverwrittenSessionError):
        session.close()
    session.close()
    assert "{'a': 1}" == run(SHOWN, dataman.basepath)


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="this Python can close a file without writing to it")
def test_a_program_that_cannot_let_go_of_an_overwritten_file_says_so(dataman, elsewhere):
    with elsewhere.session("s") as session:
        session["a"] = 1
    session = dataman.session("s")
    cp(elsewhere.session_filename("s"), dataman)
    with pytest.raises(OverwrittenSessionError):
        session["b"] = 2
    session.close()

    for use in (lambda: dict(dataman.items()), lambda: dataman.session("s")):
        with pytest.raises(OverwrittenSessionError, match="Read it in another program"):
            use()


def test_a_sweep_whose_file_is_overwritten_goes_on_in_a_new_session(dataman, elsewhere):
    with elsewhere.session() as session:
        empty = session.path
    del session

    def task(number: int) -> int:
        if number == 10:
            (path,) = dataman.session_filenames()
            subprocess.run(["cp", empty, path], check=True)
        return number

    assert 20 == run_tasks(dataman, task, range(20), executor="serial").done
    shown = run(SHOWN, dataman.basepath)
    assert all(f": {number}" in shown for number in range(10, 20))
    assert 2 == len(dataman.session_filenames())


def test_a_damaged_file_is_named_when_it_cannot_be_sealed(dataman):
    session = dataman.locking_session("s")
    session["a"] = 1
    Path(f"{session.path}-shm").write_bytes(bytes(32768))
    with open(session.path, "r+b") as file:
        file.write(bytes(100))

    with pytest.raises(SessionError, match="session s"):
        session.close()


@pytest.mark.slow
def test_looking_at_a_session_does_not_free_its_locks(dataman):
    """POSIX frees all locks on a file when the process closes any descriptor of it."""
    session = dataman.locking_session("s")
    session["a"] = 1
    assert 1 == len(dataman) == len(list(dataman.items()))
    run(
        "import sys; from futurefarm import DataManager\n"
        "other = DataManager.at(sys.argv[1]).locking_session('s'); other['b'] = 2; other.close()",
        dataman.basepath,
    )
    still_open = files_of(dataman)
    session["c"] = 3

    assert {"s", "s-wal", "s-shm"} == still_open, "the other program sealed a session that is open here"
    counted = run(
        "import sys; from futurefarm import DataManager; print(len(DataManager.at(sys.argv[1])))",
        dataman.basepath,
    )
    assert "3" == counted
    session.close()


COPIED = """
    import sys
    from futurefarm import DataManager
    from futurefarm.session import session

    session.LOG_LIMIT = int(sys.argv[2])
    with DataManager.at(sys.argv[1]).session("s") as writer:
        for i in range(1_000_000):
            writer[f"{i:06}"] = bytes(200)
            print(i, flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("limit", [1 << 30, 100_000], ids=["one log", "folded again and again"])
def test_copies_taken_while_a_program_writes_are_complete_or_refused(limit, dataman, tmp_path):
    complete, refused = 0, []
    with Companion(COPIED, dataman.basepath, limit) as writer:
        for i in range(20):
            acknowledged = int(writer.hear())
            for _ in range(10):
                acknowledged = int(writer.hear())
            copy = DataManager(f"copy{i}", tmp_path)
            copied = subprocess.run(
                f"cp {dataman.basepath}/* {copy.basepath}/", shell=True, capture_output=True, text=True
            )
            try:
                keys = list(copy)
                assert len(copy) == len(keys)
            except SessionError as error:
                refused.append(error.path == copy.session_filename("s"))
                continue
            complete += 1
            assert [f"{i:06}" for i in range(len(keys))] == keys
            assert acknowledged < len(keys), copied.stderr
    assert (20 - complete) * [True] == refused
    assert complete == 20 if limit == 1 << 30 else complete


# -- damage


ITEMS = {f"key{i}": f"value{i}" * i for i in range(40)}


class Sealed:
    """A session of 40 items, which can be spoilt."""

    def __init__(self, folder: Path) -> None:
        self.dataman = DataManager("sealed", folder)
        with self.dataman.session("s") as session:
            session.update(ITEMS)
        self.path = Path(session.path)
        self.whole = self.path.read_bytes()
        self.used = [at for at, byte in enumerate(self.whole) if byte]

    def flip(self, at: int, bit: int) -> None:
        self.path.write_bytes(self.whole[:at] + bytes([self.whole[at] ^ 1 << bit]) + self.whole[at + 1 :])

    def read(self) -> list[object]:
        """Return the count and the items; None for what an error or a warning says to be wrong."""
        answers = []
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for ask in (DataManager.itemcount, lambda dataman: dict(dataman.items())):
                try:
                    answers.append(ask(DataManager.at(self.dataman.basepath)))
                except (SessionError, ForeignFileWarning):
                    answers.append(None)
        return answers

    def is_noticed_or_harmless(self) -> bool:
        count, items = self.read()
        return count in (40, None) and items in (ITEMS, None)


@pytest.fixture(scope="module")
def sealed(tmp_path_factory):
    return Sealed(tmp_path_factory.mktemp("flip"))


@settings(max_examples=150, deadline=None)
@given(where=st.integers(0, 2**20), bit=st.integers(0, 7))
def test_a_flipped_bit_is_noticed_or_harmless(sealed, where, bit):
    sealed.flip(sealed.used[where % len(sealed.used)], bit)

    assert sealed.is_noticed_or_harmless()


@settings(max_examples=50, deadline=None)
@given(length=st.integers(0, 2**20))
def test_a_file_cut_short_is_noticed(sealed, length):
    sealed.path.write_bytes(sealed.whole[: length % len(sealed.whole)])

    assert sealed.read()[1] is None


@pytest.mark.parametrize("bit", [0, 3])
def test_a_flipped_bit_in_the_head_of_a_page_is_noticed_or_harmless(sealed, bit):
    """These are the bits by which SQLite finds, or silently misses, its rows."""
    silent = []
    for page in range(4096, len(sealed.whole), 4096):
        for at in range(page, page + 20):
            sealed.flip(at, bit)
            if not sealed.is_noticed_or_harmless():
                silent.append(at)

    assert [] == silent


def read_all(dataman: DataManager) -> tuple[list[tuple[str, object]], SessionError]:
    """Return the items that can be read, and the error that then comes."""
    seen = []
    iterator = iter(dataman.items())
    while True:
        try:
            seen.append(next(iterator))
        except SessionError as error:
            return seen, error


def damage(path: str, of: bytes, to: bytes) -> None:
    data = Path(path).read_bytes()
    assert of in data
    Path(path).write_bytes(data.replace(of, to))


def test_a_damaged_value_is_named_and_the_others_are_read(dataman):
    with dataman.session("s") as session:
        session["a"], session["b"], session["c"] = "first", "treasure", "third"
    damage(session.path, b"treasure", b"treasury")
    seen, error = read_all(dataman)

    assert "session s is damaged: the value of 'b'" in str(error)
    assert (DamagedSessionError, "b", session.path) == (type(error), error.key, error.path)
    assert [("a", "first"), ("c", "third")] == seen
    assert ["a", "b", "c"] == list(dataman)
    assert ("first", "third", 3) == (dataman["a"], dataman["c"], len(dataman))
    with pytest.raises(DamagedSessionError):
        dataman["b"]
    with dataman.session("s") as session, pytest.raises(DamagedSessionError):
        session["b"]


def test_a_damaged_file_is_named_and_the_others_are_read(dataman):
    for name in "xyz":
        with dataman.session(name) as session:
            session[name] = name
    path = Path(dataman.session_filename("y"))
    path.write_bytes(path.read_bytes()[:4096] + b"\xff" * 4096 * 7)
    seen, error = read_all(dataman)

    assert [("x", "x"), ("z", "z")] == seen
    assert "session y is damaged" in str(error)
    assert "The other 2 sessions were read." in str(error)
    assert str(path) == error.path
    with pytest.raises(SessionError, match="y"):
        dataman.session("y")


def test_several_damaged_files_are_counted(dataman):
    for name in "xyz":
        with dataman.session(name) as session:
            session[name] = "treasure"
    for name in "xz":
        damage(dataman.session_filename(name), b"treasure", b"treasury")
    seen, error = read_all(dataman)

    assert [("y", "treasure")] == seen
    assert "(and 1 more). The other 1 sessions were read. Recover it with: futurefarm repair" in str(error)


def test_a_session_of_a_later_version_is_named_and_the_others_are_read(dataman):
    for name in "xy":
        with dataman.session(name) as session:
            session[name] = name
    connection = sqlite3.connect(session.path)
    connection.execute(f"PRAGMA user_version = {FORMAT + 1}")
    connection.close()
    seen, error = read_all(dataman)

    assert "session y was written by a later version of futurefarm" in str(error)
    assert "pip install -U futurefarm" in str(error)
    assert ([("x", "x")], NewerSessionError, FORMAT + 1) == (seen, type(error), error.version)
    with pytest.raises(NewerSessionError):
        dataman.session("y")


def test_a_file_that_is_no_session_is_reported_once_and_left_alone(dataman):
    with dataman.session("s") as session:
        session["a"] = 1
    foreign = Path(dataman.basepath, "notes.txt")
    foreign.write_text("mine")
    database = Path(dataman.basepath, "other.sqlite")
    connection = sqlite3.connect(database)
    connection.execute("CREATE TABLE Dict (key, value)")
    connection.close()
    before = database.read_bytes()
    with pytest.warns(ForeignFileWarning) as caught:
        assert 1 == len(dataman)
    assert {"a": 1} == dict(dataman.items())

    assert [str(foreign), str(database)] == [str(w.message).split(" is no session")[0] for w in caught]
    assert {__file__} == {w.filename for w in caught}
    for name in ("notes.txt", "other.sqlite"):
        with pytest.raises(SessionError, match="is not a session of futurefarm"):
            dataman.session(name)
    assert ("mine", before) == (foreign.read_text(), database.read_bytes())


# -- other programs


def shelve_313() -> str | None:
    """Return a Python whose `shelve` uses SQLite."""
    if sys.version_info >= (3, 13):
        return sys.executable
    found = shutil.which("python3.13")
    if found and subprocess.run([found, "-c", "import dbm.sqlite3"], capture_output=True).returncode == 0:
        return found
    pyenv = sorted(Path.home().glob(".pyenv/versions/3.1[3-9].*/bin/python"))
    return str(pyenv[0]) if pyenv else None


PYTHON = shelve_313()
with_shelve = pytest.mark.skipif(PYTHON is None, reason="needs Python 3.13 or later")


def in_shelve(path: str, code: str) -> str:
    """Run code on ``s``, what ``shelve.open`` of a later Python gives for a session file."""
    return run(f"import shelve, sys\nwith shelve.open(sys.argv[1]) as s:\n    {code}", path, python=PYTHON)


@with_shelve
def test_shelve_of_the_standard_library_reads_a_session(dataman):
    with dataman.session("s") as session:
        session["a"], session["b"] = [1, 2.5], "text"

    assert "{'a': [1, 2.5], 'b': 'text'}" == in_shelve(session.path, "print(dict(s))")
    assert {"a": [1, 2.5], "b": "text"} == dict(dataman.items())
    assert {"s"} == files_of(dataman)


@with_shelve
@pytest.mark.parametrize(
    ("code", "items"),
    [
        ("s['c'] = 3", {"a": 1, "b": 2, "c": 3}),
        ("s['a'] = 3", {"a": 3, "b": 2}),
        ("del s['a']", {"b": 2}),
        ("s['a'] = 3; del s['a']", {"b": 2}),
        ("s['c'] = 3; del s['c']", {"a": 1, "b": 2}),
        ("s['c'] = 3; s['c'] = 4; s['a'] = 5; s['a'] = 6; del s['b']", {"a": 6, "c": 4}),
        ("s.clear()", {}),
    ],
)
def test_what_shelve_writes_is_read_and_counted(code, items, dataman):
    with dataman.session("s") as session:
        session["a"], session["b"] = 1, 2
    in_shelve(session.path, code)

    assert (items, len(items)) == (dict(dataman.items()), len(dataman))
    with dataman.session("s") as session:
        for key in [*items, "new"]:
            session[key] = "ours"
        assert len(items) + 1 == len(session)
        if items:
            del session[next(iter(items))]
    assert {"ours"} == set(dataman.values())
    assert max(1, len(items)) == len(dataman) == len(list(dataman))
    assert {"s"} == files_of(dataman)


def test_a_session_is_a_shelf(dataman):
    with dataman.session() as session:
        assert isinstance(session, shelve.Shelf)


# -- reading beside a writer


def test_a_reader_sees_what_another_program_has_committed(dataman):
    program = """
        import sys
        from futurefarm import DataManager

        with DataManager.at(sys.argv[1]).session("s") as session:
            for i in range(3):
                session[str(i)] = i
                print("committed", flush=True)
                input()
    """
    with Companion(program, dataman.basepath) as writer:
        for i in range(3):
            writer.hear()
            assert (i + 1, list(range(i + 1))) == (len(dataman), list(dataman.values()))
            writer.say()
        writer.rest()
    assert [0, 1, 2] == list(dataman.values())


def test_a_reader_that_stands_still_does_not_keep_a_writer_from_sealing(dataman):
    with dataman.session("s") as session:
        with session.store.transaction():
            session.update(dict.fromkeys(map(str, range(2500))))
        reading = iter(dataman.items())
        next(reading)
    sealed = files_of(dataman)

    assert {"s"} == sealed
    assert 2499 == len(list(reading))


def test_a_held_lock_says_who_holds_it(dataman):
    program = """
        import sys
        from futurefarm import DataManager

        with DataManager.at(sys.argv[1]).session("s"):
            print("open", flush=True)
            input()
    """
    with Companion(program, dataman.basepath) as holder:
        holder.hear()
        with pytest.raises(SessionLockedError, match=f"process {holder.process.pid} on") as caught:
            dataman.session("s", lock_timeout=0.05)
        holder.say()
        holder.rest()

    assert holder.process.pid == caught.value.holder["pid"]
    dataman.session("s", lock_timeout=0).close()


def test_ctrl_c_right_after_a_commit_does_not_take_it_back(store, path, monkeypatch):
    def interrupt():
        raise KeyboardInterrupt

    store[b"first"] = b"value"
    monkeypatch.setattr(store, "_append", lambda *args: (Store._append(store, *args), interrupt()))
    with pytest.raises(KeyboardInterrupt):
        store.append("sweep", "{}", [(b"a", b"1", checksum(b"a", b"1"))], [])

    assert {b"first": b"value", b"a": b"1"} == dict(store)
    store.close()
    again = Store(path)
    assert 2 == len(again)
    again.close()


def test_a_session_that_was_begun_on_a_full_disk_is_read_all_the_same(disk):
    dataman = DataManager("farm", disk.path)
    with dataman.session("s") as session:
        session["a"] = 1
    begun = False
    for free in range(0, 80_000, 4096):
        disk.fill(free=free)
        with suppress(StorageFullError):
            dataman.session("s").close()
        begun = begun or Header.read(Path(session.path)).writing
        assert {"a": 1} == dict(dataman.items())
        disk.empty()

    assert begun, "the disk was full at each step of opening it"
