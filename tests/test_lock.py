"""Whoever waits for a session learns who holds it, and waits for no longer than told."""

from __future__ import annotations

import errno
import fcntl
import os
import pickle
import re
import signal
import threading
import warnings

import pytest

from futurefarm import DataManager
from futurefarm.errors import SessionError, SessionLockedError, UsageError
from futurefarm.session import LockWaitWarning
from futurefarm.session import lock as room
from futurefarm.session.holder import holder_of
from futurefarm.status import is_stopped

from .companion import Companion

LINUX = pytest.mark.skipif(not os.path.exists("/proc/locks"), reason="needs /proc/locks")

HOLDER = """
    import sys
    from futurefarm import DataManager

    session = DataManager.at(sys.argv[1]).session("s")
    print("holds", flush=True)
    input()
    session.close()
"""


@pytest.fixture
def holder(dataman):
    with Companion(HOLDER, dataman.basepath) as companion:
        companion.hear()
        yield companion


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    monkeypatch.setattr(room, "NOTICE", 0.01)


def test_whoever_waits_is_told_once_who_holds_the_session(dataman, holder):
    with (
        pytest.warns(LockWaitWarning, match=f"held by process {holder.process.pid} on .* since 20") as told,
        pytest.raises(SessionLockedError),
    ):
        dataman.session("s", lock_timeout=0.1)

    assert 1 == len(told)
    assert "giving up after 0.1 s" in str(told[0].message)
    assert __file__ == told[0].filename


def test_a_short_wait_is_not_worth_a_word(dataman, holder):
    with pytest.raises(SessionLockedError, match=f"process {holder.process.pid} "):
        dataman.session("s", lock_timeout=0.01)


def test_the_wait_goes_on_after_the_warning(dataman, holder):
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = lambda *_: holder.say()
        dataman.session("s").close()
    holder.rest()


def test_a_holder_that_is_stopped_is_known_as_such(dataman, holder):
    os.kill(holder.process.pid, signal.SIGSTOP)
    os.waitid(os.P_PID, holder.process.pid, os.WSTOPPED)
    with pytest.raises(SessionLockedError, match=r"is stopped .*kill -CONT") as caught:
        dataman.session("s", lock_timeout=0)
    assert caught.value.holder["stopped"]

    os.kill(holder.process.pid, signal.SIGCONT)
    os.waitid(os.P_PID, holder.process.pid, os.WCONTINUED)
    assert not is_stopped(holder.process.pid)
    assert not holder_of(dataman.directory, "s")["stopped"]


@LINUX
def test_the_holder_is_right_where_a_lock_is_taken_for_each_operation(dataman):
    """Another process opened the session last, and does not hold it now."""
    session = dataman.locking_session("s")
    program = HOLDER.replace(".session(", ".locking_session(")
    with Companion(program, dataman.basepath) as other:
        other.hear()
        with session:
            held = holder_of(dataman.directory, "s")
            with pytest.raises(SessionLockedError, match=r"\(this very one\)"):
                dataman.locking_session("s", lock_timeout=0)
        other.say()
        other.rest()
    session.close()

    assert (os.getpid(), None) == (held["pid"], held["since"])


def test_the_holder_on_another_computer_is_known_from_its_note(dataman):
    note = '{"host": "far", "pid": 7, "since": 0.0, "inode": 1}'
    dataman.directory.holder("s").write_text(note)

    assert {"pid": 7, "host": "far", "since": 0.0, "stopped": False} == holder_of(dataman.directory, "s")


def test_nothing_is_claimed_of_a_holder_that_left_no_note(dataman):
    assert {} == holder_of(dataman.directory, "s")
    dataman.directory.holder("s").write_text("{}")
    assert {} == holder_of(dataman.directory, "s")


def test_a_thread_waits_for_the_block_of_another_one_no_longer_than_told(dataman):
    session = dataman.locking_session("s", lock_timeout=0.05)
    caught = []

    def wait(use):
        with pytest.raises(SessionLockedError, match=r"another thread of this process") as error:
            use()
        caught.append(error.value.holder["pid"])

    with session:
        for use in (lambda: session["a"], lambda: session.update(a=1), session.__enter__, session.close):
            thread = threading.Thread(target=wait, args=(use,))
            thread.start()
            thread.join()
    session.close()

    assert [os.getpid()] * 4 == caught


@pytest.mark.parametrize("seconds", [-1, -0.001, float("inf"), float("nan"), "long", None])
def test_a_wait_without_an_end_cannot_be_asked_for(seconds, tmp_path, dataman):
    with pytest.raises(UsageError, match="lock_timeout must be a number of seconds"):
        DataManager("other", tmp_path, lock_timeout=seconds)
    if seconds is not None:  # the DataManager's
        with pytest.raises(UsageError, match="lock_timeout"):
            dataman.session("s", lock_timeout=seconds)
        with pytest.raises(UsageError, match="lock_timeout"):
            dataman.merge(DataManager("source", tmp_path), lock_timeout=seconds)
    assert not (tmp_path / "other.data").exists()


@pytest.mark.parametrize("open_as", ["session", "locking_session"])
def test_the_patience_of_a_datamanager_is_that_of_its_sessions(open_as, dataman, holder):
    impatient = pickle.loads(pickle.dumps(DataManager.at(dataman.basepath, lock_timeout=0)))
    with pytest.raises(SessionLockedError):
        getattr(impatient, open_as)("s")
    with pytest.warns(LockWaitWarning), pytest.raises(SessionLockedError):
        getattr(impatient, open_as)("s", lock_timeout=0.02)


def test_a_planted_link_is_not_locked_and_its_target_not_touched(dataman, tmp_path):
    precious = tmp_path / "precious"
    precious.write_text("precious")
    dataman.directory.lock("s").symlink_to(precious)
    with pytest.raises(SessionError, match="cannot be locked"):
        dataman.session("s")

    assert "precious" == precious.read_text()


def test_a_file_system_without_locks_is_named_as_the_reason(dataman, monkeypatch):
    def no_locks(self, **_):
        raise OSError(room.errno.ENOLCK, os.strerror(room.errno.ENOLCK))

    monkeypatch.setattr(room.filelock.FileLock, "acquire", no_locks)
    with pytest.raises(SessionError, match=re.escape("This file system has no working locks")):
        dataman.session("s")


def interrupt():
    raise KeyboardInterrupt


def test_a_block_that_ctrl_c_cut_off_does_not_take_what_follows_for_its_own(dataman):
    session = dataman.locking_session("s")
    with pytest.raises(KeyboardInterrupt), session:
        session["half"] = interrupt()
    session["whole"] = 2

    assert {"whole": 2} == dict(dataman.items())
    dataman.session("s", lock_timeout=0).close()
    session.close()


def test_a_lock_that_cannot_be_given_back_is_named(dataman, monkeypatch):
    def flock(descriptor, operation):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    session = dataman.session("s")
    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", flock)
        with pytest.raises(SessionError, match=r"lock of the session s .* cannot be given back"):
            session.close()
    session.close()
    dataman.session("s").close()


def test_a_lock_may_be_waited_for_longer_than_anybody_lives(dataman):
    with dataman.session("s", lock_timeout=1e300) as session:
        session["n"] = 1
    with dataman.locking_session("s", lock_timeout=1e300) as shared:
        shared["n"] += 1
    shared.close()

    assert 2 == dataman["n"]
