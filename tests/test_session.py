"""A session is a shelf with one writer at a time, or with several that take turns."""

from __future__ import annotations

import errno
import os
import pickle
import shelve
import shutil
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from futurefarm import DataManager
from futurefarm.errors import SessionClosedError, SessionError, SessionLockedError, StorageFullError
from futurefarm.session import KeyMaker, LockingSession, Session, seal
from futurefarm.session import session as room
from futurefarm.store import Header
from futurefarm.task import Outcome, Task

from .companion import Companion, companions, run

FORKS = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

OPENERS = ["session", "computer_session", "locking_session", "locking_computer_session"]


# -- a shelf


@pytest.mark.parametrize("opener", OPENERS)
def test_every_session_is_a_shelf_and_a_context_manager(opener, dataman):
    session = getattr(dataman, opener)()
    with session as same:
        assert same is session
        assert isinstance(session, shelve.Shelf)
        session["a"] = {"x": [1, 2.5]}
        session["b"] = None
        del session["b"]
        assert ({"x": [1, 2.5]}, True, False, 1) == (
            session["a"],
            "a" in session,
            "b" in session,
            len(session),
        )
        assert ("default", ["a"]) == (session.get("b", "default"), list(session))
    session.close()

    assert {"a": {"x": [1, 2.5]}} == dict(dataman.items())


class SessionMachine(RuleBasedStateMachine):
    """Whatever is done with a session, it holds what a dict would."""

    keys = st.sampled_from(["", "a", "b", "é", "long" * 50])
    values = st.none() | st.integers() | st.text() | st.lists(st.floats(allow_nan=False))

    @initialize(locking=st.booleans())
    def begin(self, locking):
        self.folder = Path(FOLDER[0], KeyMaker().make(1)[0])
        self.dataman = DataManager(self.folder)
        self.locking = locking
        self.model = {}
        self.before = []
        self.open()

    def open(self):
        make = self.dataman.locking_session if self.locking else self.dataman.session
        self.session = make("s")

    @rule(key=keys, value=values)
    def put(self, key, value):
        self.session[key] = self.model[key] = value

    @rule(key=keys)
    def remove(self, key):
        assert self.model.pop(key, "missing") == self.session.pop(key, "missing")

    @rule(key=keys, value=values)
    def put_if_missing(self, key, value):
        assert self.model.setdefault(key, value) == self.session.setdefault(key, value)

    @rule(items=st.dictionaries(keys, values))
    def put_many(self, items):
        self.model.update(items)
        self.session.update(items)

    @rule(key=keys)
    def look(self, key):
        assert self.model.get(key, "missing") == self.session.get(key, "missing")

    @precondition(lambda self: not self.before)
    @rule()
    def open_again(self):
        self.session.close()
        self.open()

    @precondition(lambda self: self.locking and len(self.before) < 3)
    @rule()
    def enter_a_block(self):
        self.session.__enter__()
        self.before.append(dict(self.model))

    @precondition(lambda self: self.before)
    @rule(fails=st.booleans())
    def leave_a_block(self, fails):
        before = self.before.pop()
        if fails:
            self.model = before
        self.session.__exit__(ValueError if fails else None, None, None)

    @invariant()
    def it_holds_what_a_dict_would(self):
        assert self.model == dict(self.session)
        assert len(self.model) == len(self.session)
        if not self.before:
            assert self.model == dict(self.dataman.items())
            assert len(self.model) == len(self.dataman)

    def teardown(self):
        if self.before:
            self.model = self.before[0]
        self.session.close()
        assert self.model == dict(self.dataman.items())
        assert [str(self.folder) + ".data/s"] == self.dataman.session_filenames()


FOLDER = []


@pytest.fixture(scope="module", autouse=True)
def _folder(tmp_path_factory):
    FOLDER.append(tmp_path_factory.mktemp("machine"))
    yield
    FOLDER.clear()


TestSessionMachine = SessionMachine.TestCase
TestSessionMachine.settings = settings(max_examples=10, stateful_step_count=20, deadline=None)


def test_a_value_that_cannot_be_pickled_leaves_the_session_as_it_was(dataman):
    with dataman.session() as session:
        session["a"] = 1
        with pytest.raises((TypeError, pickle.PicklingError)):
            session["a"] = threading.Lock()

        assert {"a": 1} == dict(session)


# -- opening and closing


@pytest.mark.parametrize("opener", OPENERS)
def test_closing_twice_is_harmless_and_use_after_close_is_an_error(opener, dataman):
    session = getattr(dataman, opener)()
    session["a"] = 1
    session.close()
    session.close()

    for use in (
        lambda: session["a"],
        lambda: session.__setitem__("a", 2),
        lambda: session.__delitem__("a"),
        lambda: len(session),
        lambda: list(session),
        lambda: "a" in session,
        lambda: session.commit("sweep", "{}", []),
    ):
        with pytest.raises((SessionClosedError, ValueError)):
            use()
    assert session.closed
    assert {"a": 1} == dict(dataman.items())


def test_a_block_on_a_closed_session_is_an_error_and_frees_the_lock(dataman):
    session = dataman.locking_session("s")
    session.close()
    with pytest.raises(SessionClosedError):
        session.__enter__()

    dataman.session("s", lock_timeout=0).close()


def test_a_session_that_is_forgotten_is_closed(dataman):
    session = dataman.session("s")
    session["a"] = 1
    del session

    dataman.session("s", lock_timeout=0).close()
    assert ["s"] == [name for name in os.listdir(dataman.basepath) if name != ".farm"]


def test_one_writer_at_a_time_holds_a_session(dataman):
    with dataman.session("s") as first:
        with pytest.raises(SessionLockedError, match=f"process {os.getpid()} on") as caught:
            dataman.session("s", lock_timeout=0.01)
        with pytest.raises(SessionLockedError):
            dataman.locking_session("s", lock_timeout=0.01)
        first["a"] = 1

    assert (os.getpid(), first.path) == (caught.value.holder["pid"], caught.value.path)
    assert {"host", "since"} <= caught.value.holder.keys()
    with dataman.session("s", lock_timeout=0) as second:
        assert 1 == second["a"]


def test_the_lock_of_a_killed_writer_is_free(dataman):
    program = """
        import sys
        from futurefarm import DataManager

        session = DataManager.at(sys.argv[1]).session("s")
        session["a"] = 1
        print("open", flush=True)
        input()
    """
    with Companion(program, dataman.basepath) as writer:
        writer.hear()
        assert not seal(dataman.directory, "s")
        writer.process.kill()
        writer.process.wait()

        assert seal(dataman.directory, "s")
    assert {"a": 1} == dict(dataman.items())
    assert ["s"] == [name for name in os.listdir(dataman.basepath) if name != ".farm"]


def test_a_session_that_cannot_be_made_is_named(dataman):
    Path(dataman.basepath, "s").mkdir()
    with pytest.raises(SessionError) as caught:
        dataman.session("s")

    assert dataman.session_filename("s") == caught.value.path


# -- sharing


def test_several_in_one_program_share_a_locking_session(dataman):
    one, other = dataman.locking_session("s"), dataman.locking_session("s")
    one["a"] = 1
    other["b"] = 2

    assert {"a": 1, "b": 2} == dict(one) == dict(other) == dict(dataman.items())
    one.close()
    other["c"] = 3
    other.close()
    assert 3 == len(dataman)
    assert ["s"] == [name for name in os.listdir(dataman.basepath) if name != ".farm"]


def test_a_block_is_stored_as_a_whole_or_not_at_all(dataman):
    with dataman.locking_session("s") as session:
        session["a"] = session["b"] = 1
    with pytest.raises(ZeroDivisionError), session:
        session["a"] = session["c"] = 1 / len([session.pop("b")]) + 1 / 0

    assert {"a": 1, "b": 1} == dict(session)
    session.close()


def test_an_inner_block_that_fails_is_undone_alone(dataman):
    session = dataman.locking_session("s")
    with session:
        session["a"] = 1
        try:
            with session:
                session["b"] = 2
                raise ZeroDivisionError
        except ZeroDivisionError:
            session["c"] = 3

    assert {"a": 1, "c": 3} == dict(session)
    session.close()


def test_a_block_may_be_longer_than_the_log_may_grow(dataman, monkeypatch):
    monkeypatch.setattr(room, "LOG_LIMIT", 50_000)
    session = dataman.locking_session("s")
    with session:
        for i in range(40):
            session[str(i)] = bytes(1_000_000)  # more than SQLite keeps in memory
            assert i + 1 == len(session)
    after = session.log_size

    assert 40 == len(dataman)
    assert after < 50_000
    session.close()


def test_nobody_sees_half_of_a_block(dataman):
    other = dataman.locking_session("s", lock_timeout=0.01)
    with dataman.locking_session("s") as session:
        session["a"] = 1

        assert 0 == len(dataman)
        with pytest.raises(SessionLockedError):
            len(other)
    assert 1 == len(other) == len(dataman)
    other.close()
    session.close()


def test_a_session_closed_within_its_block_stores_nothing_of_it_and_says_so(dataman):
    session = dataman.locking_session("s")
    session["a"] = 1
    with pytest.raises(ValueError, match="closed"), session:
        session["b"] = session.close()

    assert {"a": 1} == dict(dataman.items())
    dataman.session("s", lock_timeout=0).close()


def test_threads_share_a_locking_session(dataman):
    session = dataman.locking_session("s")
    barrier = threading.Barrier(4)

    def count():
        barrier.wait()
        for _ in range(50):
            with session:
                session["n"] = session.get("n", 0) + 1

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert 200 == session["n"]
    session.close()


def test_threads_share_a_plain_session(dataman):
    with dataman.session() as session:
        threads = [
            threading.Thread(target=lambda t=t: [session.__setitem__(f"{t}-{i}", i) for i in range(30)])
            for t in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert 120 == len(session) == len(dict(session))


COUNTER = """
    import sys, warnings
    from futurefarm import DataManager
    from futurefarm.session.lock import LockWaitWarning

    warnings.simplefilter("ignore", LockWaitWarning)  # on a busy machine it is the other's turn for long
    session = DataManager(sys.argv[1]).locking_computer_session()
    print("ready", flush=True)
    input()
    for _ in range(int(sys.argv[2])):
        with session:
            session["n"] = session.get("n", 0) + 1
    session.close()
"""


def count_together(folder: Path, programs: int, times: int) -> tuple[int, list[str]]:
    with companions(COUNTER, *[(folder / "x", times)] * programs) as counters:
        for counter in counters:
            counter.hear()
        for counter in counters:
            counter.say()
        for counter in counters:
            counter.rest()
    dataman = DataManager(folder / "x")
    return dataman["n"], [name for name in os.listdir(dataman.basepath) if name != ".farm"]


@pytest.mark.slow
def test_two_programs_count_to_a_thousand_together(tmp_path):
    n, files = count_together(tmp_path, 2, 500)

    assert 1000 == n
    assert [DataManager(tmp_path / "x").directory.computer_session] == files


@pytest.mark.slow
def test_two_programs_count_to_twenty_thousand_together(tmp_path):
    n, files = count_together(tmp_path, 2, 10_000)

    assert (20_000, 1) == (n, len(files))


@pytest.mark.slow
def test_operations_that_look_and_write_are_one_step(dataman):
    """Each of eight programs takes what the others have not taken."""
    program = """
        import sys
        from futurefarm import DataManager

        session = DataManager.at(sys.argv[1]).locking_session("s")
        print("ready", flush=True)
        input()
        taken = 0
        for i in range(40):
            taken += session.setdefault(f"first {i}", sys.argv[2]) == sys.argv[2]
            taken += session.pop(f"take {i}", None) is not None
        session.close()
        print(taken)
    """
    with dataman.session("s") as session:
        session.update({f"take {i}": i for i in range(40)})
    with companions(program, *((dataman.basepath, i) for i in range(4))) as takers:
        for taker in takers:
            taker.hear()
        for taker in takers:
            taker.say()

        assert 80 == sum(int(taker.rest()) for taker in takers)


def test_a_locking_session_travels_to_other_processes(dataman):
    session = dataman.locking_session("s")
    data = pickle.dumps(session)
    program = """
        import pickle, sys

        session = pickle.loads(bytes.fromhex(sys.argv[1]))
        with session:
            session["a"] = 1
        session.close()
    """
    run(program, data.hex())

    assert 1 == session["a"]
    session.close()


def test_a_plain_session_does_not_travel(dataman):
    with dataman.session() as session, pytest.raises(TypeError):
        pickle.dumps(session)


def test_a_program_killed_in_its_block_leaves_nothing_of_it_and_lets_others_on(dataman):
    program = """
        import sys
        from futurefarm import DataManager

        session = DataManager.at(sys.argv[1]).locking_session("s")
        session["a"] = 1
        with session:
            session["b"] = 2
            print("within", flush=True)
            input()
    """
    session = dataman.locking_session("s")
    with Companion(program, dataman.basepath) as other:
        other.hear()
        other.process.kill()
        other.process.wait()
    session["c"] = 3
    session.close()

    assert {"a": 1, "c": 3} == dict(dataman.items())


# -- forked children


FORK = """
    import os, sys
    from futurefarm import DataManager

    dataman = DataManager.at(sys.argv[1])
    session = getattr(dataman, sys.argv[2])("s")
    session["a"] = 1
    child = os.fork()
    if not child:
        for use in (lambda: session["a"], lambda: session.__setitem__("b", 2), lambda: len(session)):
            try:
                use()
            except (ValueError, OSError) as error:
                print(type(error).__name__)
        with dataman.session("of the child".replace(" ", "-")) as own:
            own["child"] = 1
        session.close()
        sys.exit()
    os.waitpid(child, 0)
    session["c"] = 3
    try:
        dataman.session("s", lock_timeout=0)
    except TimeoutError:
        print("still locked" if sys.argv[2] == "session" else "locked")
    session.close()
"""


@FORKS
@pytest.mark.parametrize("opener", ["session", "locking_session"])
def test_a_forked_child_cannot_use_the_session_of_its_parent(opener, dataman):
    said = run(FORK, dataman.basepath, opener).splitlines()

    assert ["SessionClosedError"] * 3 == said[:3]
    assert (["still locked"] if opener == "session" else []) == said[3:]
    assert {"a": 1, "c": 3, "child": 1} == dict(dataman.items())
    assert {"s", "of-the-child", ".farm"} == set(os.listdir(dataman.basepath))


@FORKS
def test_a_child_forked_within_a_block_leaves_the_block_alone(dataman):
    program = """
        import os, sys
        from futurefarm import DataManager

        session = DataManager.at(sys.argv[1]).locking_session("s")
        with session:
            session["a"] = 1
            child = os.fork()
            if not child:
                sys.stderr.close()
                sys.exit()
            os.waitpid(child, 0)
            session["b"] = 2
        session.close()
    """
    run(program, dataman.basepath)

    assert {"a": 1, "b": 2} == dict(dataman.items())


# -- keys


def test_keys_are_unique_and_increase(dataman):
    keys = [dataman.make_unique_key() for _ in range(1000)]

    assert sorted(set(keys)) == keys


def test_keys_increase_when_the_clock_goes_back(monkeypatch):
    maker = KeyMaker()
    keys = []
    for seconds in (1000, 2000, 1500, 1, 3000):
        monkeypatch.setattr(time, "time_ns", lambda seconds=seconds: seconds * 10**9)
        keys += maker.make(3)

    assert sorted(set(keys)) == keys


def test_threads_and_managers_make_different_keys(tmp_path):
    barrier = threading.Barrier(4)
    managers = [DataManager("x", tmp_path) for _ in range(2)]
    keys = []

    def make(dataman):
        barrier.wait()
        keys.extend(dataman.make_unique_key() for _ in range(200))

    threads = [threading.Thread(target=make, args=(managers[i % 2],)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert 800 == len(set(keys))


@FORKS
def test_forked_processes_make_different_keys():
    """Also when the clock stands still."""
    program = """
        import os, time
        from futurefarm.session import KeyMaker

        time.time_ns = lambda: 10**18
        maker = KeyMaker()
        maker.make(1)
        child = os.fork()
        if child:
            os.waitpid(child, 0)
        print(*maker.make(2), flush=True)
    """
    keys = run(program).split()

    assert 4 == len(set(keys)) == len(keys)


@pytest.mark.slow
def test_sessions_are_opened_by_separately_started_programs_at_once(tmp_path):
    """New sessions have names of their own, so nobody waits for anybody."""
    program = """
        import sys
        from futurefarm import DataManager

        dataman = DataManager("x", sys.argv[1])
        with dataman.session(lock_timeout=0) as session:
            session[dataman.make_unique_key()] = 1
            print("open", flush=True)
            input()
    """
    with companions(program, *[(tmp_path,)] * 4) as writers:
        for writer in writers:
            writer.hear()
        dataman = DataManager("x", tmp_path)

        assert 4 == len(dataman) == len(dataman.session_filenames())
        for writer in writers:
            writer.say()
            writer.rest()
    assert 4 == len(set(dataman)) == len(dataman.session_filenames())


@pytest.mark.slow
def test_a_session_survives_being_opened_while_its_directory_is_read(dataman):
    """A reader in a loop never gets an error, whatever stage the writer is in."""
    program = """
        import sys
        from futurefarm import DataManager

        dataman = DataManager.at(sys.argv[1])
        print("ready", flush=True)
        last = 0
        while last < 20:
            seen = len(dataman)
            assert seen >= last, (seen, last)
            assert seen <= len(dict(dataman.items()))
            last = seen
    """
    with Companion(program, dataman.basepath) as reader:
        reader.hear()
        for i in range(20):
            with dataman.session("s") as session:
                session[str(i)] = i
        assert "" == reader.rest()


if sys.platform == "linux":

    def test_a_full_disk_is_an_error_and_what_was_stored_stays(tmp_path):
        folder = tmp_path / "small"
        folder.mkdir()
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True
        )
        if mounted.returncode:
            pytest.skip("may not mount a small file system")
        try:
            dataman = DataManager("x", folder)
            session = dataman.session("s")
            stored = 0
            with suppress(SessionError):
                for stored in range(100):
                    session[str(stored)] = bytes(20_000)
            assert 5 < stored < 99
            assert stored == len(session) == len(dataman)
            assert [str(i) for i in range(stored)] == list(dataman)
            session.close()
            assert stored == len(dataman) == len(list(dataman.values()))
        finally:
            subprocess.run(["umount", folder], check=True)


# -- a disk that is full, or fails


def outcomes(*numbers: int, size: int = 10) -> list[Outcome]:
    return [
        Outcome(Task(n, bytes(16), 0, 1, b""), "ok", bytes(size), None, None, "host", 1, 0.0, 0.0, None)
        for n in numbers
    ]


def numbers_in(dataman: DataManager) -> list[int]:
    return sorted(record.number for record in dataman.records())


def test_what_was_committed_is_intact_when_the_disk_is_full_and_the_session_goes_on_later(disk):
    dataman = DataManager("farm", disk.path)
    with dataman.session("s") as session:
        session.commit("sweep", "{}", outcomes(0, 1))
        disk.fill(free=20_000)
        for _ in range(2):
            with pytest.raises(StorageFullError) as caught:
                session.commit("sweep", "{}", outcomes(2, 3, size=40_000))
            assert [0, 1] == numbers_in(dataman)
        disk.empty()
        session.commit("sweep", "{}", outcomes(2, 3, size=40_000))

    assert (session.path, errno.ENOSPC) == (caught.value.path, caught.value.errno)
    assert [0, 1, 2, 3] == numbers_in(dataman)


def test_what_did_not_fit_takes_no_space_from_others(disk):
    dataman = DataManager("farm", disk.path)
    with dataman.session("s") as session:
        disk.fill(free=80_000)
        with pytest.raises(StorageFullError):
            session.commit("sweep", "{}", outcomes(0, size=200_000))
        assert disk.free > 60_000


def test_a_session_that_cannot_be_made_on_a_full_disk_leaves_nothing_behind(disk):
    dataman = DataManager("farm", disk.path)
    disk.fill()
    with pytest.raises(StorageFullError):
        dataman.session("s")

    found = [path.name for path in disk.path.rglob("*") if path.is_file() and path.name != "ballast"]
    assert ["id", "s.lock"] == sorted(found)


def test_a_session_that_cannot_be_sealed_stays_readable(disk):
    dataman = DataManager("farm", disk.path)
    with dataman.session("s") as session:
        session.commit("sweep", "{}", outcomes(0, size=100_000))
        disk.fill()
    assert [0] == numbers_in(dataman)
    assert Header.read(Path(session.path)).writing

    disk.empty()
    assert seal(dataman.directory, "s")
    assert [0] == numbers_in(dataman)


def test_a_session_whose_directory_is_moved_says_so_instead_of_acknowledging(dataman, tmp_path):
    with dataman.session("s") as session:
        session.commit("sweep", "{}", outcomes(0))
        os.rename(dataman.basepath, tmp_path / "moved.data")
        with pytest.raises(SessionError, match="moved away"):
            session.commit("sweep", "{}", outcomes(1))

    assert 0 in numbers_in(DataManager("moved", tmp_path))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
@pytest.mark.parametrize("number", range(1, 10))
def test_a_writer_killed_as_it_removes_a_file_leaves_what_it_stored(dataman, tmp_path, number):
    """SQLite ends a journal by removing it; beside one that stays, only who may write can read."""
    program = "from futurefarm import *\nwith DataManager('farm').session() as s: s['a'] = 1; print('stored')"
    strace = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"inject=unlink:signal=SIGKILL:when={number}"]
    done = subprocess.run(
        [*strace, sys.executable, "-c", program], cwd=tmp_path, stdout=subprocess.PIPE, text=True, timeout=30
    )

    stored = {"a": 1} if "stored" in done.stdout else {}
    assert stored == dict(dataman.items())


@pytest.mark.parametrize("kind", ["session", "locking_session"])
def test_an_interrupt_at_the_end_of_opening_leaves_no_lock(dataman, kind, monkeypatch):
    def interrupted(self):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Session, "_settle", interrupted)
        patch.setattr(LockingSession, "_settle", interrupted)
        with pytest.raises(KeyboardInterrupt) as caught:
            getattr(dataman, kind)("s")
    with dataman.session("s", lock_timeout=0) as session:
        session["n"] = 1

    assert caught.value is not None
    assert {"n": 1} == dict(dataman.items())
