"""Copy directories while they are written, and merge the copies both ways: complete, or refused by name.

A child fills a directory (a sweep, a session that is opened again and again, a session that two threads
share) and notes how many items were acknowledged. Copies are taken by cp, rsync, tar and shutil, and by
copiers that are slow: they wait for the writer between two files, or between two pieces of one. A copy has to
hold what was acknowledged before it began, also when it went over an earlier copy in which somebody has
written since, or an error has to name the session. At last, other files are put in the place of files that
are being written.
"""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
import random
import shelve
import shutil
import sqlite3
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import tqdm

from futurefarm import DataManager, run_tasks
from futurefarm.errors import DuplicateKeyError, IncompleteCopyError, OverwrittenSessionError, SessionError
from harness import Battery, Child, Figures, main, python, say
from large import large_from

DEADLINE = 300.0
COUNT = struct.Struct("<q")
LOG_LIMIT = 200_000  # bytes; far below the usual ones, so that logs are folded while copies are taken
LARGE = 1_000  # bytes; half of the values are larger, and lie beside their session
GROWTH = 6_000  # items after which a writer ends


def payload(number: int) -> bytes:
    """Return the value that belongs to a number, of 16 to 2,000 bytes."""
    word = b"%016d" % number
    return word * (1 + zlib.crc32(word) % 125)


# -- writers: they run in a child


class Acknowledged:
    """How many items are on disk for certain, in a file."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        self._lock = threading.Lock()
        self.number = 0

    def add(self, number: int = 1) -> None:
        with self._lock:
            self.number += number
            os.pwrite(self._fd, COUNT.pack(self.number), 0)


def work(number: int) -> tuple[int, bytes]:
    large_from(LARGE)  # in a worker process, too
    time.sleep(0.004)  # a task that takes its time, so that a second makes no million of them
    return number, payload(number)


def write_sweep(engine: str, folder: Path, acknowledged: Acknowledged, stop: Callable[[], bool]) -> None:
    class Bar(tqdm.tqdm):  # type: ignore[type-arg]
        """Counts what the sweep says is on disk, and shows nothing."""

        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **{**options, "disable": True})

        def update(self, n: float | None = 1) -> bool | None:
            acknowledged.add(int(n or 0))
            return None

    numbers = itertools.count()
    while not stop():
        some = itertools.takewhile(lambda _: not stop(), itertools.islice(numbers, 3000))
        run_tasks(DataManager.at(folder), work, some, executor=engine, workers=2, progress=Bar)


def write_session(folder: Path, acknowledged: Acknowledged, stop: Callable[[], bool]) -> None:
    """Write one item after the other; fold the log and seal the file now and then, and open it again."""
    from futurefarm.session import session as room

    room.LOG_LIMIT = LOG_LIMIT
    chance = random.Random(acknowledged.number)
    dataman, number, name = DataManager.at(folder), 0, None
    while not stop():
        with dataman.session(name) as session:
            name = session.name if chance.random() < 0.8 else None
            for _ in range(chance.choice((1, 20, 200, 1000))):
                session[f"{number:08}"] = number, payload(number)
                acknowledged.add()
                time.sleep(0.0005)  # other work takes time, too
                number += 1
                if stop():
                    break


def write_shared(folder: Path, acknowledged: Acknowledged, stop: Callable[[], bool]) -> None:
    """Two threads with a locking session each, of the same name; they come and go."""
    from futurefarm.session import session as room

    room.LOG_LIMIT = LOG_LIMIT
    dataman = DataManager.at(folder)

    def write(first: int) -> None:
        chance = random.Random(first)
        number = first
        while not stop():
            session = dataman.locking_session("shared")
            for _ in range(chance.choice((1, 20, 200))):
                with session:
                    for _ in range(chance.choice((1, 5))):
                        session[f"{number:08}"] = number, payload(number)
                        number += 2
                acknowledged.add((number - first) // 2 - counted[first])
                counted[first] = (number - first) // 2
                if stop():
                    break
            session.close()

    counted = [0, 0]
    threads = [threading.Thread(target=write, args=(first,)) for first in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


WRITERS: dict[str, Callable[..., None]] = {
    "thread": lambda *rest: write_sweep("thread", *rest),
    "loky": lambda *rest: write_sweep("loky", *rest),
    "session": write_session,
    "shared": write_shared,
}


def write(kind: str, folder: str, notes: str) -> None:
    large_from(LARGE)
    acknowledged = Acknowledged(Path(notes, "acknowledged"))
    end = Path(notes, "end")
    writer = WRITERS[kind] if kind in WRITERS else PEERS[kind].write
    writer(Path(folder), acknowledged, lambda: end.exists() or acknowledged.number > GROWTH)


# -- copiers: each copies all files of a directory into another one, over what lies there


class Source:
    """A directory that a child fills."""

    def __init__(self, kind: str, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder / "source.data"
        self.folder.mkdir()
        self._notes = folder
        self._child = Child(python(__file__, "write", kind, self.folder, folder), DEADLINE)

    def __enter__(self) -> Source:
        self.advance(1)
        return self

    def __exit__(self, *error: object) -> None:
        self._child.__exit__(*error)

    @property
    def acknowledged(self) -> int:
        with contextlib.suppress(FileNotFoundError), open(self._notes / "acknowledged", "rb") as file:
            return COUNT.unpack(file.read(8).ljust(8, b"\0"))[0]  # type: ignore[no-any-return]
        return 0

    @property
    def ended(self) -> bool:
        return self._child.process.poll() is not None

    def advance(self, number: int) -> None:
        """Wait until the writer has acknowledged so many items more, or has ended."""
        wanted = self.acknowledged + number
        while self.acknowledged < wanted and not self.ended:
            time.sleep(0.0005)

    def end(self) -> int:
        """Let the writer end, and return what it has acknowledged."""
        Path(self._notes, "end").touch()
        assert self._child.wait() == 0, "the writer failed"
        return self.acknowledged


def files_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file())


def run(command: str, source: Source, target: Path) -> None:
    # A file that is gone when its turn comes is no reason to stop; cp and tar say so and go on.
    subprocess.run(["sh", "-c", command, "sh", str(source.folder), str(target)], stderr=subprocess.DEVNULL)


def by_cp(source: Source, target: Path) -> None:
    run('cp "$1"/* "$2"/', source, target)


def by_rsync(source: Source, target: Path) -> None:
    run('rsync -a --exclude .farm "$1"/ "$2"/', source, target)


def by_rsync_in_place(source: Source, target: Path) -> None:
    run('rsync -a --inplace --exclude .farm "$1"/ "$2"/', source, target)


def by_tar(source: Source, target: Path) -> None:
    run('tar -C "$1" --exclude ./.farm -cf - . | tar -C "$2" -xf -', source, target)


def by_shutil(source: Source, target: Path) -> None:
    for path in files_of(source.folder):
        with contextlib.suppress(FileNotFoundError):
            shutil.copy2(path, target / path.name)


def of_main_files(source: Source, target: Path) -> None:
    """Copy what does not look like rubbish."""
    for path in files_of(source.folder):
        if "-" not in path.name:
            subprocess.run(["cp", path, target], stderr=subprocess.DEVNULL)


def main_file_first(source: Source, target: Path) -> None:
    _by_turns(source, target, files_of(source.folder))


def log_first(source: Source, target: Path) -> None:
    _by_turns(source, target, files_of(source.folder)[::-1])


def _by_turns(source: Source, target: Path, paths: list[Path]) -> None:
    for path in paths:
        written = is_written(path)
        with contextlib.suppress(FileNotFoundError):
            shutil.copyfile(path, target / path.name)
        if written:
            source.advance(50)


def in_pieces(source: Source, target: Path) -> None:
    """Copy the logs and then the files, those in small pieces while the writer goes on."""
    for path in files_of(source.folder)[::-1]:
        written = is_written(path)
        with contextlib.suppress(FileNotFoundError), path.open("rb") as original:
            pieces = max(4096, path.stat().st_size // 6)
            with (target / path.name).open("wb") as copy:
                while piece := original.read(pieces):
                    copy.write(piece)
                    if written:
                        source.advance(25)


def is_written(path: Path) -> bool:
    """Whether it is worth waiting for the writer: there are many files, and most are at rest."""
    name, _, end = path.name.partition("-")
    return end != "shm" and path.with_name(f"{name}-wal").exists()


COPIERS = {
    "cp": by_cp,
    "rsync": by_rsync,
    "rsync in place": by_rsync_in_place,
    "tar": by_tar,
    "shutil": by_shutil,
    "main files only": of_main_files,
    "main file first": main_file_first,
    "log first": log_first,
    "in pieces": in_pieces,
}


# -- judging a copy


def held(folder: Path) -> tuple[Counter[int], list[str]]:
    """Return how often each number is held, and the names of the sessions that were refused; check values."""
    dataman = DataManager.at(folder)
    numbers: Counter[int] = Counter()
    refused: list[str] = []
    keys: list[str] = []
    try:
        for key, value in dataman.items():
            if key.startswith("here"):
                continue
            number, data = value
            if data != payload(number):
                raise WrongError(f"{folder}: {key} has a value that was never written")
            numbers[number] += 1
            keys.append(key)
    except SessionError as error:
        refused.append(error.path)
    for key in keys[:: max(1, len(keys) // 5)]:
        with contextlib.suppress(SessionError, DuplicateKeyError):
            if key not in dataman or dataman.get(key) is None:
                raise WrongError(f"{folder}: {key} is listed and not found")
    if not refused and len(dataman) < sum(numbers.values()):
        raise WrongError(f"{folder}: {len(dataman)} items are counted, and there are {sum(numbers.values())}")
    return numbers, refused


class WrongError(Exception):
    """Something was read that was never written."""


class Stranger:
    """Another program, which writes into copied sessions while other copies are put over them."""

    def __init__(self) -> None:
        self._program = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))

    def __enter__(self) -> Stranger:
        return self

    def __exit__(self, *_: object) -> None:
        self._program.shutdown()

    def does(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return self._program.submit(function, *arguments).result(DEADLINE)


_written: list[Any] = []


def begin_to_write(folder: Path, chance: random.Random) -> None:
    """Write into one of the sessions of a directory; half of the time, keep it open."""
    sessions = DataManager.at(folder).session_filenames()
    chance.shuffle(sessions)
    for path in sessions[:3]:
        with contextlib.suppress(SessionError):
            session = DataManager.at(folder).session(Path(path).name)
            session["here"] = session.get("here", 0) + 1
            if chance.random() < 0.5:
                session.close()
            else:
                _written.append(session)
            return


def go_on_writing() -> int:
    """Write again, if the session is open; return 1 if it turned out to have been overwritten."""
    while _written:
        session = _written.pop()
        try:
            session["here"] = 0
        except OverwrittenSessionError:
            return 1
        finally:
            session.close()
    return 0


class Bench:
    """Takes copies of one source, and keeps the score."""

    def __init__(self, folder: Path, chance: random.Random, score: Counter[str], stranger: Stranger) -> None:
        self._score = score
        self._stranger = stranger
        self._chance = chance
        self._folder = folder
        self._held = 0

    def copy(self, source: Source, copier: str, by_hand: Path, with_care: Path) -> None:
        """Copy to an empty directory and over an earlier copy; merge the first one by hand and with care."""
        fresh = self._folder / "fresh.data"
        fresh.mkdir()
        before = source.acknowledged
        COPIERS[copier](source, fresh)
        self._judge("copies", copier, fresh, before)
        self._merge(copier, fresh, with_care, before)
        shutil.rmtree(fresh)
        self._stranger.does(begin_to_write, by_hand, random.Random(self._chance.random()))
        # A file without its log, put over an earlier copy with its log, is that earlier copy.
        before = self._held if copier == "main files only" else source.acknowledged
        COPIERS[copier](source, by_hand)
        self._score["overwritten_and_noticed"] += self._stranger.does(go_on_writing)
        self._held = self._judge("copies_over_copies", copier, by_hand, before)

    def _judge(self, what: str, copier: str, folder: Path, before: int) -> int:
        """Judge a copy that has to hold so many items; return how many it holds."""
        self._score[what] += 1
        try:
            numbers, refused = held(folder)
        except WrongError as error:
            say(f"WRONG ({what}, {copier}): {error}")
            self._score["wrong"] += 1
            return 0
        self._score["doubled"] += sum(numbers.values()) - len(numbers)
        if refused:
            self._score[f"{what}_refused"] += 1
        elif len(numbers) >= before:
            self._score[f"{what}_complete"] += 1
        else:
            say(f"SHORT ({what}, {copier}): {len(numbers)} of {before}")
            self._score["silently_short"] += 1
        return len(numbers)

    def _merge(self, copier: str, fresh: Path, target: Path, before: int) -> None:
        try:
            DataManager.at(target).merge(fresh)
        except IncompleteCopyError:
            self._score["merges_refused"] += 1
        except SessionError as error:
            say(f"NOT MERGED ({copier}): {error}")
            self._score["wrong"] += 1
        else:
            self._judge("merges", copier, target, before)


# -- another file put in the place of one that is being written

WAYS = {
    "in place": 'cp "$1" "$2"',
    "by renaming": 'cp "$1" "$2.new" && mv "$2.new" "$2"',
    "by rsync": 'rsync -a --ignore-times "$1" "$2"',
}


def put_back(battery: Battery) -> Counter[str]:
    score: Counter[str] = Counter()
    with Stranger() as stranger:
        for turn, (way, command) in itertools.product(range(battery.choose(1, 10)), WAYS.items()):
            folder = battery.folder / f"{way} {turn}.data"
            folder.mkdir()
            number = 1 + 30 * turn
            noticed = stranger.does(put_back_over_a_session, folder, command, number)
            score["put_back_and_noticed" if noticed else "overwritten_unnoticed"] += 1
            numbers, refused = held(folder)
            if refused or set(numbers) != set(range(number)):
                say(f"PUT BACK: {len(numbers)} of {number} items, refused {refused}")
                score["wrong"] += 1
            sweep = folder / "sweep.data"
            sweep.mkdir()
            done = stranger.does(put_back_over_a_sweep, sweep, command)
            numbers, refused = held(sweep)
            missing = len(SWEEP) - len(set(SWEEP) & set(numbers))
            score["put_back_and_noticed" if missing else "overwritten_unnoticed"] += 1
            if done != len(SWEEP) or refused or missing > AT:
                say(f"PUT BACK under a sweep: {missing} results are missing, refused {refused}")
                score["wrong"] += 1
            shutil.rmtree(folder)
    return score


def put_back_over_a_session(folder: Path, command: str, number: int) -> bool:
    dataman = DataManager.at(folder)
    with dataman.session() as session:
        session.update({f"{i:08}": (i, payload(i)) for i in range(number)})
    older = Path(shutil.copy(session.path, folder.with_suffix(".older")))
    again = dataman.session(session.name)
    again[f"{number:08}"] = number, payload(number)
    subprocess.run(["sh", "-c", command, "sh", older, again.path], check=True)
    try:
        again["overwritten"] = number, payload(number)
    except OverwrittenSessionError:
        return True
    finally:
        again.close()
    return False


SWEEP = range(1_000_000, 1_000_100)
AT = 50


def put_back_over_a_sweep(folder: Path, command: str) -> int:
    dataman = DataManager.at(folder)
    with dataman.session() as session:
        older = session.path

    def task(number: int) -> tuple[int, bytes]:
        if number == SWEEP[AT]:
            (path,) = set(dataman.session_filenames()) - {older}
            subprocess.run(["sh", "-c", command, "sh", older, path], check=True)
        return number, payload(number)

    return run_tasks(dataman, task, SWEEP, executor="serial", progress=False).done


# -- what other stores make of it


class Sqlite:
    """A table of one file, as a user of `sqlite3` would write it."""

    def __init__(self, mode: str) -> None:
        self._mode = mode

    def write(self, folder: Path, acknowledged: Acknowledged, stop: Callable[[], bool]) -> None:
        connection = sqlite3.connect(folder / "store", isolation_level=None)
        connection.execute(f"PRAGMA journal_mode = {self._mode}")
        connection.execute("CREATE TABLE Item (number INTEGER PRIMARY KEY, value BLOB)")
        while not stop():
            number = acknowledged.number
            connection.execute("INSERT INTO Item VALUES (?, ?)", (number, payload(number)))
            acknowledged.add()

    def read(self, folder: Path) -> dict[int, bytes]:
        with contextlib.closing(sqlite3.connect(folder / "store")) as connection:
            return dict(connection.execute("SELECT number, value FROM Item"))


class Shelve:
    """The standard library's shelf, in the form that this Python was built with."""

    def write(self, folder: Path, acknowledged: Acknowledged, stop: Callable[[], bool]) -> None:
        with shelve.open(os.fspath(folder / "store")) as shelf:
            while not stop():
                shelf[str(acknowledged.number)] = payload(acknowledged.number)
                shelf.sync()
                acknowledged.add()

    def read(self, folder: Path) -> dict[int, bytes]:
        with shelve.open(os.fspath(folder / "store"), "r") as shelf:
            return {int(key): value for key, value in shelf.items()}


PEERS: dict[str, Any] = {"sqlite": Sqlite("DELETE"), "sqlite-wal": Sqlite("WAL"), "shelve": Shelve()}


def peer(battery: Battery) -> Figures:
    score = Counter(copies=0, complete=0, unreadable=0, silently_short=0, wrong=0)
    turns = itertools.cycle(COPIERS)
    folder, store = battery.folder / "peer", PEERS[battery.peer]
    while score["copies"] < battery.choose(40, 200):
        with Source(battery.peer or "", folder) as source:
            while not source.ended and score["copies"] < battery.choose(40, 200):
                target = battery.folder / "copy"
                target.mkdir()
                before = source.acknowledged
                COPIERS[next(turns)](source, target)
                score["copies"] += 1
                try:
                    found = store.read(target)
                except Exception:
                    score["unreadable"] += 1
                else:
                    wrong = any(value != payload(number) for number, value in found.items())
                    short = not set(range(before)) <= set(found)
                    score["wrong" if wrong else "silently_short" if short else "complete"] += 1
                shutil.rmtree(target)
        shutil.rmtree(folder)
    return Figures(dict(score), {"silently_short": "== 0", "wrong": "== 0"})


# -- the program


def program(battery: Battery) -> Figures:
    if battery.peer:
        return peer(battery)
    score = Counter(dict.fromkeys(("doubled", "lost", "overwritten_unnoticed", "silently_short", "wrong"), 0))
    copies = battery.choose(40, 200) // len(WRITERS)
    # Copiers and writers mostly wait for each other, so that all are at work at a time.
    with ProcessPoolExecutor(len(WRITERS) + 1, mp_context=multiprocessing.get_context("spawn")) as programs:
        parts = [programs.submit(copy_sources, battery, kind, copies) for kind in WRITERS]
        for part in [*parts, programs.submit(put_back, battery)]:
            score.update(part.result())
    unaccounted = score["copies"] - score["copies_complete"] - score["copies_refused"]
    return Figures(
        dict(score) | {"unaccounted": unaccounted},
        {"copies": f">= {copies * len(WRITERS)}", "put_back_and_noticed": f">= {battery.choose(6, 60)}"}
        | dict.fromkeys(
            ("doubled", "lost", "overwritten_unnoticed", "silently_short", "unaccounted", "wrong"), "== 0"
        ),
    )


def copy_sources(battery: Battery, kind: str, copies: int) -> Counter[str]:
    """Copy directories that one kind of writer fills: one that has grown is left for a new one."""
    folder = battery.folder / kind
    folder.mkdir()
    score: Counter[str] = Counter()
    chance = battery.random(kind)
    turns = itertools.islice(itertools.cycle(COPIERS), list(WRITERS).index(kind), None)
    while score["copies"] < copies:
        # Each has a stranger of its own: one that was overwritten keeps hold of files that are removed here.
        with Stranger() as stranger:
            bench = Bench(folder, chance, score, stranger)
            copy_one_source(bench, kind, folder / "grows", copies - score["copies"], turns, score)
    return score


def copy_one_source(
    bench: Bench, kind: str, folder: Path, copies: int, turns: Iterator[str], score: Counter[str]
) -> None:
    """Copy a directory so many times while a child fills it, or until it is full, and once more then."""
    begun, taken = time.monotonic(), 0
    with Source(kind, folder) as source:
        by_hand, with_care = targets = folder / "hand.data", folder / "care.data"
        for target in targets:
            target.mkdir()
        while taken < copies and not source.ended:
            bench.copy(source, next(turns), by_hand, with_care)
            taken += 1
        total = source.end()
        by_cp(source, by_hand)
        DataManager.at(with_care).merge(source.folder)
        for target in targets:
            numbers, refused = held(target)
            if refused or len(numbers) < total:
                say(f"LOST ({kind}): {target} holds {len(numbers)} of {total}, refused {refused}")
                score["lost"] += 1
    shutil.rmtree(folder)
    say(f"{kind}: {taken} copies of up to {total} items in {time.monotonic() - begun:.1f} s")


if __name__ == "__main__":
    if sys.argv[1:2] == ["write"]:
        write(*sys.argv[2:])
    else:
        main(program, peers=tuple(PEERS))
