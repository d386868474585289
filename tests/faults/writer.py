"""The program whose file-system calls are made to fail, or are its last: it fills a directory, step by step.

Run again it goes on with what is missing. What it was told is on disk, it notes in the file ``events``.
"""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from futurefarm import DataManager
from futurefarm.directory import new_session_name
from futurefarm.errors import FutureFarmError
from futurefarm.session import session as shelf
from futurefarm.status import this_process
from futurefarm.task import Job, Outcome, Task
from futurefarm.worker import Patience, commit, leave
from large import large_from

SWEEP = "sweep"
BATCH = 3
SHARED = 6  # keys that two sessions assign
LARGE = 250  # bytes
OTHER = range(1000, 1012)  # numbers in the directory that is merged
GAVE_UP = 9  # exit code after an error of futurefarm's own, which a user can act on


def value(number: int) -> tuple[int, bytes]:
    """Return what belongs to a number; more than half of them are large."""
    return number, b"%08d" % number * (20 + number % 200)


def outcomes(numbers: Iterable[int]) -> list[Outcome]:
    return [
        Outcome(
            Task(number, b"%016d" % number, 0, 1, pickle.dumps(number)),
            *("ok", pickle.dumps(value(number)), None, None, "host", 1, 0.0, 0.0, None),
        )
        for number in numbers
    ]


def make_other(folder: Path) -> None:
    """Make the directory that is merged: one session that is closed, and one whose writer was killed."""
    large_from(LARGE)
    other = DataManager("other", folder)
    half = len(OTHER) // 2
    with other.session() as session:
        session.commit(SWEEP, "{}", outcomes(OTHER[:half]))
    if os.fork() == 0:
        session = other.session()
        session.commit(SWEEP, "{}", outcomes(OTHER[half:]))
        os._exit(0)
    os.wait()


def job_of(dataman: DataManager) -> bytes:
    """Return the job of a sweep whose outcomes are committed as a worker does it."""
    job = Job(
        sweep=SWEEP,
        record="{}",
        function=pickle.dumps((len, (), {}, (Exception,))),
        directory=dataman.basepath,
        directory_id=dataman.directory.id or "",
        stop_seen=None,
        timeout=None,
        parent=this_process(),
        capture=False,
        full_wait=0.0,
    )
    return pickle.dumps(tuple(job))


def stored(dataman: DataManager) -> set[int]:
    return {record.number for record in dataman.records()}


def write(folder: Path, tasks: int) -> None:
    """Fill the directory; whatever happens, the event comes after the fact."""
    events = os.open(folder / "events", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def note(*words: object) -> None:
        os.write(events, (" ".join(map(str, words)) + "\n").encode())

    large_from(LARGE)
    try:
        dataman = DataManager("farm", folder)
        commit_all(dataman, tasks, note)
        assign(dataman, note)
        if not stored(dataman).issuperset(OTHER):
            dataman.merge(folder / "other.data")
        note("tasks", *OTHER)
        dataman.compact()
        with dataman.session(new_session_name()) as session:
            session["end"] = 1
        note("keys", "end")
    finally:
        os.close(events)


def commit_all(dataman: DataManager, tasks: int, note) -> None:  # type: ignore[no-untyped-def]
    """Commit in two sessions, as two workers would."""
    missing = sorted(set(range(tasks)) - stored(dataman))
    half = len(missing) // 2
    patience = Patience(1.0, lambda: False)
    try:
        for part in (missing[:half], missing[half:]):
            for begin in range(0, len(part), BATCH):
                numbers = part[begin : begin + BATCH]
                job, batch = job_of(dataman), outcomes(numbers)
                patience.store(partial(commit, job, batch), lambda waiting: None)
                note("tasks", *numbers)
            leave(SWEEP)
    finally:
        leave(SWEEP)


def assign(dataman: DataManager, note) -> None:  # type: ignore[no-untyped-def]
    """Assign under keys in a session that is shared, whose log is folded every few times."""
    shelf.LOG_LIMIT = 20_000
    with dataman.locking_session("shared") as session:
        session["first"] = 0
    note("keys", "first")
    for number in range(SHARED):
        session[str(number)] = value(number)
        note("keys", number)
    session.close()


if __name__ == "__main__":
    try:
        write(Path(sys.argv[1]), int(sys.argv[2]))
    except FutureFarmError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        os._exit(GAVE_UP)
