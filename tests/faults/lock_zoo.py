"""What can befall the holder of a session's lock, and its lock file: who waits then, and what is he told.

Each beast of the zoo does something to the lock of a session. Then a writer asks for that session, with a
time to wait; it has to get it, or an error that names the holder, in that time. What was stored has to be
there.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from futurefarm import DataManager
from futurefarm.errors import SessionError, SessionLockedError
from futurefarm.session import LockWaitWarning
from harness import Battery, Child, Figures, main, python, say

WAIT = 2.5  # seconds for which the writer waits: long enough to be told who holds the session
SLACK = 3.0
DEADLINE = 30.0
CAGES = 3  # at a time: they mostly wait
ERRORS = ("ENOLCK", "EIO", "ENOSYS", "EINTR")


def run(battery: Battery) -> Figures:
    seen: dict[str, Any] = {"beasts": 0}
    zeros = ["endless_waits", "unnamed_holders", "targets_truncated", "wrong", "lost"]
    seen |= dict.fromkeys(zeros, 0) | {"slowest_s": 0.0}
    beasts = BEASTS * battery.choose(1, 3)
    with ThreadPoolExecutor(CAGES) as pool:
        cages = [Cage(battery.folder / str(number)) for number in range(len(beasts))]
        for beast, cage in zip(beasts, pool.map(_let_out, beasts, cages), strict=True):
            say(f"{beast.__name__:40} {cage.seconds:5.2f} s", cage.told or "taken", cage.faults or "")
            seen["beasts"] += 1
            seen["slowest_s"] = max(seen["slowest_s"], round(cage.seconds, 2))
            for name in zeros:
                seen[name] += cage.faults.get(name, 0)
    targets = dict.fromkeys(zeros, "== 0") | {"beasts": f"== {len(beasts)}"}
    return Figures(seen, targets)


def _let_out(beast: Callable[[Cage], None], cage: Cage) -> Cage:
    beast(cage)
    return cage


class Cage:
    """A directory with a session that holds one value, and the writer who comes for it."""

    def __init__(self, folder: Path) -> None:
        self.dataman = DataManager("zoo", folder)
        with self.dataman.session("s") as session:
            session["before"] = 1
        self.lock = self.dataman.directory.lock("s")
        self.faults: dict[str, int] = {}
        self.told = ""
        self.seconds = 0.0

    @contextmanager
    def holder(self, how: str = "hold") -> Iterator[Child]:
        """A program that holds the session's lock."""
        with Child(python(__file__, how, self.dataman.basepath), DEADLINE) as child:
            if child.line() != "holds":
                raise RuntimeError("the holder could not open the session")
            yield child

    def ask(self, expected: str, holder: int | None = None, command: list[str] | None = None) -> None:
        """Let a writer come; it should get the session (``taken``), wait for it in vain, or be refused."""
        self.dataman.directory.create()
        begin = time.monotonic()
        with Child([*(command or []), *python(__file__, "ask", self.dataman.basepath)], DEADLINE) as writer:
            outcome, _, self.told = writer.rest().strip().partition(" ")
            if writer.late:
                self._fault("endless_waits")
        self.seconds = time.monotonic() - begin
        if self.seconds > WAIT + SLACK:
            self._fault("endless_waits")
        if outcome != expected:
            say(f"  {outcome or 'nothing'} instead of {expected}: {self.told}")
            self._fault("wrong")
        names = [f"process {holder} on"] * (2 if expected == "locked" else 0)
        if holder is not None and self.told.count(f"process {holder} on") < len(names):
            self._fault("unnamed_holders")
        if outcome == "taken" and self.dataman.get("asked") is None:
            self._fault("lost")
        if self.dataman.get("before") != 1:
            self._fault("lost")

    def _fault(self, name: str) -> None:
        self.faults[name] = self.faults.get(name, 0) + 1


# -- the beasts


def holder_killed(cage: Cage) -> None:
    with cage.holder() as holder:
        holder.kill()
        holder.wait()
        cage.ask("taken")


def holder_busy(cage: Cage) -> None:
    with cage.holder() as holder:
        cage.ask("locked", holder.pid)


def holder_stopped(cage: Cage) -> None:
    with cage.holder() as holder:
        os.kill(holder.pid, signal.SIGSTOP)
        cage.ask("locked", holder.pid)
        if "is stopped" not in cage.told:
            cage.faults["unnamed_holders"] = 1


def sharer_stopped_in_its_block(cage: Cage) -> None:
    with cage.holder("share") as holder:
        os.kill(holder.pid, signal.SIGSTOP)
        cage.ask("locked", holder.pid)


def sharer_does_not_hold_it_now(cage: Cage) -> None:
    with cage.holder("idle"):
        cage.ask("taken")


def holder_forked_and_was_killed(cage: Cage) -> None:
    with cage.holder("fork") as holder:
        holder.kill()
        holder.wait()
        cage.ask("taken")


def forked_child_closed_the_session(cage: Cage) -> None:
    with cage.holder("fork-close") as holder:
        cage.ask("locked", holder.pid)


def holder_started_a_program_and_was_killed(cage: Cage) -> None:
    with cage.holder("start") as holder:
        holder.kill()
        holder.wait()
        cage.ask("taken")


def holder_became_another_program(cage: Cage) -> None:
    with cage.holder("exec") as holder:
        while b"sleep" not in Path(f"/proc/{holder.pid}/cmdline").read_bytes():
            time.sleep(0.002)
        cage.ask("taken")


def lock_file_deleted(cage: Cage) -> None:
    with cage.holder():
        cage.lock.unlink()
        cage.ask("taken")  # two writers: SQLite's own locks keep their transactions apart


def whole_farm_deleted(cage: Cage) -> None:
    with cage.holder():
        shutil.rmtree(cage.dataman.directory.farm)
        cage.ask("taken")


def lock_file_copied(cage: Cage) -> None:
    with cage.holder() as holder:
        shutil.copytree(cage.dataman.basepath, f"{cage.dataman.basepath}.copy")
        cage.ask("locked", holder.pid)
        cage.dataman = DataManager.at(f"{cage.dataman.basepath}.copy")
        cage.ask("taken")


def lock_file_of_an_older_time_put_back(cage: Cage) -> None:
    with cage.holder() as holder:
        cage.lock.with_suffix(".old").write_bytes(cage.lock.read_bytes())
        os.utime(cage.lock, (1, 1))
        cage.ask("locked", holder.pid)


def lock_file_read_only(cage: Cage) -> None:
    cage.lock.chmod(0o400)
    cage.ask("taken" if os.getuid() == 0 else "refused")


def lock_file_is_a_link(cage: Cage) -> None:
    precious = cage.lock.with_name("precious")
    precious.write_text("precious")
    cage.lock.unlink()
    cage.lock.symlink_to(precious)
    cage.ask("refused")
    if precious.read_text() != "precious":
        cage.faults["targets_truncated"] = 1


def lock_file_is_a_hard_link(cage: Cage) -> None:
    precious = cage.lock.with_name("precious")
    precious.write_text("precious")
    cage.lock.unlink()
    os.link(precious, cage.lock)
    cage.ask("taken")
    if precious.read_text() != "precious":
        cage.faults["targets_truncated"] = 1


def lock_file_is_a_directory(cage: Cage) -> None:
    cage.lock.unlink()
    cage.lock.mkdir()
    cage.ask("refused")


def lock_file_is_a_pipe(cage: Cage) -> None:
    cage.lock.unlink()
    os.mkfifo(cage.lock)
    cage.ask("taken")  # a lock it is: nobody reads or writes it


def note_says_nonsense(cage: Cage) -> None:
    cage.dataman.directory.holder("s").write_text('{"host": 7, "pid": [], "since": "x"}')
    with cage.holder() as holder:
        cage.dataman.directory.holder("s").write_text('{"host": 7, "pid": [], "since": "x"}')
        cage.ask("locked", holder.pid)


def failing(error: str) -> Callable[[Cage], None]:
    def flock_fails(cage: Cage) -> None:
        strace = shutil.which("strace")
        if strace is None:
            raise RuntimeError("strace is needed")
        inject = f"inject=flock:error={error}:when=1{'+' if error != 'EINTR' else ''}"
        command = [strace, "-f", "-qq", "-o", os.devnull, "-e", "trace=flock", "-e", inject]
        cage.ask("taken" if error == "EINTR" else "refused", command=command)

    flock_fails.__name__ += f"_with_{error}"
    return flock_fails


BEASTS: list[Callable[[Cage], None]] = [
    holder_killed,
    holder_busy,
    holder_stopped,
    sharer_stopped_in_its_block,
    sharer_does_not_hold_it_now,
    holder_forked_and_was_killed,
    forked_child_closed_the_session,
    holder_started_a_program_and_was_killed,
    holder_became_another_program,
    lock_file_deleted,
    whole_farm_deleted,
    lock_file_copied,
    lock_file_of_an_older_time_put_back,
    lock_file_read_only,
    lock_file_is_a_link,
    lock_file_is_a_hard_link,
    lock_file_is_a_directory,
    lock_file_is_a_pipe,
    note_says_nonsense,
    *map(failing, ERRORS),
]


# -- those who hold, and the one who asks


def hold(path: str, how: str) -> None:
    dataman = DataManager.at(path)
    session: Any = dataman.session("s") if how not in ("share", "idle") else dataman.locking_session("s")
    if how == "share":
        session.__enter__()
    session["held"] = 1
    if how in ("fork", "fork-close") and os.fork() == 0:
        if how == "fork":
            time.sleep(DEADLINE)
        session.close()
        os._exit(0)
    if how == "fork-close":
        os.wait()
    if how == "start":
        os.posix_spawnp("sleep", ["sleep", str(DEADLINE)], os.environ)
    print("holds", flush=True)
    if how == "exec":
        os.execlp("sleep", "sleep", str(DEADLINE))
    time.sleep(DEADLINE)


def ask(path: str) -> None:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", LockWaitWarning)
        try:
            with DataManager.at(path).session("s", lock_timeout=WAIT) as session:
                session["asked"] = 1
            outcome = "taken"
        except SessionLockedError as error:
            outcome = f"locked {error}"
        except SessionError as error:
            outcome = f"refused {error}"
    print(outcome, *(warning.message for warning in told), flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["ask"]:
        ask(sys.argv[2])
    elif len(sys.argv) == 3 and not sys.argv[1].startswith("--"):
        hold(sys.argv[2], sys.argv[1])
    else:
        main(run)
