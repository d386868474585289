"""Attack a directory that everybody can write to: canary pickles, hostile names, mutated session files.

A canary is a pickle that makes a file when anything unpickles it. None may be made, whatever is done with the
directory; nothing may raise but futurefarm's own errors, nothing may hang, and memory stays bounded.
"""

from __future__ import annotations

import collections
import contextlib
import json
import os
import pickle
import random
import resource
import shutil
import signal
import sqlite3
import sys
import time
import traceback
import warnings
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from click.testing import CliRunner

from futurefarm import DataManager, FutureFarmError, Params
from futurefarm.cli import main as command
from futurefarm.session import Session
from futurefarm.task import Outcome, Task
from harness import Battery, Child, Figures, main, python, say

SHARDS = 2  # processes that read mutated files at a time
MEMORY = 1 << 30  # bytes of address space that they may have
HANG = 10  # seconds that all there is to do with one small file may take

Score = collections.Counter[str]


# -- canaries


def touch(path: str) -> None:
    Path(path).touch()


class Canary:
    """Makes a file when it is unpickled, in one of the ways that a pickle has."""

    def __init__(self, path: Path, way: str) -> None:
        self.path = str(path)
        self.way = way

    def __reduce__(self) -> tuple[Any, ...]:
        code = f"open({self.path!r}, 'w').close()"
        ways: dict[str, tuple[Any, ...]] = {
            "mkdir": (os.mkdir, (self.path,)),
            "system": (os.system, (f"touch '{self.path}'",)),
            "exec": (exec, (code,)),
            "eval": (eval, (code,)),
            "state": (Woken, (), {"path": self.path}),
            "items": (Woken, (), None, iter([self.path])),
            "import": (__import__, (f"canary{abs(hash(self.path))}",)),
            "function": (touch, (self.path,)),
        }
        return ways[self.way]


class Woken:
    """Does as it is told by what it is given."""

    def __setstate__(self, state: dict[str, str]) -> None:
        touch(state["path"])

    def extend(self, items: list[str]) -> None:
        for item in items:
            touch(item)

    append = touch


WAYS = ("mkdir", "system", "exec", "eval", "state", "items", "import", "function")


def canaries(folder: Path) -> Iterator[tuple[str, Any]]:
    """Yield values that hold a canary, each in another place."""
    for way in WAYS:
        for place, wrap in PLACES.items():
            name = f"{way}-{place}"
            yield name, wrap(Canary(folder / name, way))


def _in_an_array(canary: Canary) -> Any:
    array = np.empty(2, object)
    array[1] = canary
    return array


PLACES: dict[str, Callable[[Canary], Any]] = {
    "alone": lambda canary: canary,
    "list": lambda canary: [1, [canary]],
    "dict": lambda canary: {"x": (canary,)},
    "params": lambda canary: Params(k=canary),
    "array": _in_an_array,
    "deque": lambda canary: collections.deque([canary]),
}


def outcome(number: int, item: bytes, value: bytes | None) -> Outcome:
    task = Task(number, number.to_bytes(16, "big"), 0, 1, item)
    status = "ok" if value is not None else "error"
    error = None if value is not None else "\x1b]0;owned\x07 ValueError: \x1b[31mno"
    return Outcome(task, status, value, error, error, "host", 1, 1.0, 0.1, None)


def fill(path: Path, folder: Path, sessions: int = 2) -> None:
    """Make a directory full of canaries: in values, in arguments, in results of tasks that failed."""
    dataman = DataManager.at(_made(path))
    record = json.dumps({"function": "m:f"})
    for number in range(sessions):
        with dataman.session(f"theirs{number}") as session:
            for name, value in canaries(folder):
                session[name] = value
            items = [pickle.dumps(value) for _, value in canaries(folder)]
            session.commit(
                "sweep", record, [outcome(i, item, item if i % 2 else None) for i, item in enumerate(items)]
            )
            session["plain"] = number
    os.chmod(path, 0o777)


def _made(path: Path) -> Path:
    path.mkdir()
    return path


def sing(battery: Battery, score: Score) -> None:
    """Do all that can be done with a directory full of canaries."""
    folder, theirs, mine = (
        battery.folder / "sprung",
        battery.folder / "theirs.data",
        battery.folder / "mine.data",
    )
    folder.mkdir()
    fill(theirs, folder)
    with DataManager.at(_made(mine)).session("mine") as session:
        session["a"] = 1
    for path in (theirs, mine):
        dataman = DataManager.at(path)
        dataman.merge(theirs if path is mine else mine)
        for use in USES:
            score["uses"] += 1
            attempt(lambda use=use, dataman=dataman: use(dataman), score)
        for words in COMMANDS:
            score["uses"] += 1
            done = CliRunner().invoke(command, [*words.split(), str(path)])
            if done.exception is not None and not isinstance(done.exception, SystemExit):
                say(f"CRASH of {words}: {done.exception!r}")
                score["crashes"] += 1
    score["executed"] += len(os.listdir(folder))
    if os.listdir(folder):
        say("EXECUTED:", *os.listdir(folder))
    # They are good canaries: whoever is told to trust them, runs them.
    trusting = DataManager.at(theirs, trusted=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for key in sorted(set(trusting)):
            attempt(lambda key=key: trusting.get_all(key), Score())
    score["canaries"] = len(os.listdir(folder))


def each_value(dataman: DataManager) -> None:
    """Read each value on its own: most are refused."""
    for key in list(dataman):
        with contextlib.suppress(FutureFarmError):
            dataman.get_all(key)


def each_argument(dataman: DataManager) -> None:
    for record in dataman.records():
        with contextlib.suppress(FutureFarmError):
            _ = record.args


def each_value_of_a_session(dataman: DataManager) -> None:
    for name in ("theirs0", "theirs1"):
        with dataman.session(name) as session:
            for key in list(session):
                with contextlib.suppress(FutureFarmError):
                    _ = session[key]


USES: tuple[Callable[[DataManager], Any], ...] = (
    list,
    len,
    lambda dataman: [*dataman.keys()],
    lambda dataman: [*dataman.values()],
    lambda dataman: [*dataman.items()],
    lambda dataman: "mkdir-alone" in dataman,
    lambda dataman: dataman.get_pickle("plain"),
    lambda dataman: dataman.get_matching(""),
    lambda dataman: dataman.get_flat_matching("exec"),
    lambda dataman: [repr(record) for record in dataman.records()],
    lambda dataman: [*dataman.failures()],
    lambda dataman: [*dataman.history()],
    lambda dataman: dataman.check_readable(),
    lambda dataman: dataman.check(),
    lambda dataman: dataman.repair(),
    each_value,
    each_argument,
    each_value_of_a_session,
    lambda dataman: dataman.compact(),
    each_value,
)

COMMANDS = ("status", "status --json", "failed", "check", "check --json", "repair", "compact", "stop", "info")


def attempt(use: Callable[[], Any], score: Score) -> Any:
    """Do something to a hostile directory; only our own errors may come of it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return use()
    except FutureFarmError:
        score["refused"] += 1
    except Exception as error:
        score["crashes"] += 1
        if score["crashes"] < 20:
            traceback.print_exc()
            say(f"CRASH: {type(error).__name__}: {error}")
    return None


# -- names

NAMES = [
    *("", ".", "..", "../x", "../../x", "/tmp/x", "a/b", "a\\b", "..\\x", "./x", "~", "~root", "C:x", "-"),
    *(".hidden", "-rf", "--help", " x", "x ", "x.", "x\0", "\0", "x\n", "\n", "x\r\ny", "x\ty", "\x1b[31mx"),
    *("CON", "con", "NUL", "nul.txt", "aux", "PRN", "COM1", "lpt9.a.b", "x-wal", "x-shm", "x-journal"),
    *("ä", "x\u0301", "\u202ex", "x\u200b", "\ufeffx", "\uff58", "\u0445", "x\u2028y", "\ud800", "\uff11"),
    *("\u017f", "\u2024", "$(x)", "`x`", "x;y", "x|y", "x&y", "x*", "x?", "[x]", "x'y", 'x"y', "<x>"),
    *("x%00", "%2e%2e", "x" * 101, "x" * 250, "x" * 5000, "x@y", "x:y", "x y", "#x", "x+y", "x=y"),
]


def call_names(battery: Battery, score: Score) -> None:
    """Use hostile names for sessions, and give them to files that are sessions."""
    place = battery.folder / "names"
    path = _made(_made(place) / "here.data")
    dataman = DataManager.at(path)
    with dataman.session("s") as session:
        session["a"] = 1
    whole = (path / "s").read_bytes()
    for name in NAMES:
        score["names"] += 1
        for use in (dataman.session, dataman.locking_session, dataman.session_filename):
            made = attempt(lambda use=use, name=name: use(name), score)
            score["accepted"] += made is not None
        with contextlib.suppress(OSError, ValueError):  # a name that no file can have
            file = path / name
            if file.resolve().parent != path.resolve() or file.exists():
                continue
            file.write_bytes(whole)
            for use in (*USES[:5], lambda dataman: DataManager(str(place / "merged")).merge(dataman)):
                attempt(lambda use=use: use(dataman), score)
            file.unlink()
    strays = {p.name for p in place.iterdir()} - {"here.data", "merged.data"}
    strays |= {p.name for p in path.iterdir()} - {"s", ".farm"}
    for stray in strays:
        say(f"STRAY file: {stray!r}")
    score["strays"] = len(strays)


# -- mutated files


def mutate(whole: bytes, chance: random.Random) -> bytes:
    """Return a session file with some of its bytes changed."""
    data = bytearray(whole)
    for _ in range(chance.choice([1, 1, 1, 2, 4, 16])):
        kind = chance.randrange(8)
        at = chance.randrange(len(data)) if kind % 2 else chance.choice(hot(data, chance))
        if kind < 3:
            data[at] ^= 1 << chance.randrange(8)
        elif kind < 5:
            width = chance.choice([1, 2, 4, 8])
            number = chance.choice([0, 1, 0x7F, 0x80, 0xFF, 2**15, 2**31 - 1, 2**31, 2**63, 2**64 - 1])
            data[at : at + width] = number.to_bytes(8, "big")[-width:]
        elif kind == 5:
            size = chance.choice([1, 4, 100, 4096])
            other = chance.randrange(len(data))
            data[at : at + size] = data[other : other + size]
        elif kind == 6:
            page, other = (4096 * chance.randrange(len(data) // 4096 or 1) for _ in range(2))
            data[page : page + 4096] = data[other : other + 4096]
        elif chance.random() < 0.3:
            del data[at:]
            data += bytes(chance.choice([0, 0, 1, 4096]))
        data = data or bytearray(1)
    return bytes(data)


def hot(data: bytes, chance: random.Random) -> list[int]:
    """Return places that matter to SQLite: the header of the file, or the head of a page and its cells."""
    page = 4096 * chance.randrange(len(data) // 4096 or 1)
    begin = chance.choice([16, 18, 24, 28, 60, 96, page, page + 3, page + 5])
    return [min(len(data) - 1, begin + i) for i in range(8)]


def with_own_checksum(whole: bytes, chance: random.Random, path: Path) -> bytes:
    """Return a session file with changed pickles whose checksums fit, as an attacker's do."""
    path.write_bytes(whole)
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode = OFF")
    connection.execute("PRAGMA synchronous = OFF")
    for row, key, value in connection.execute("SELECT rowid, key, value FROM Dict").fetchall():
        changed = bytearray(value)
        for _ in range(chance.randrange(1, 4)):
            changed[chance.randrange(len(changed))] = chance.randrange(256)
        crc = zlib.crc32(changed, zlib.crc32(key)) if chance.random() < 0.9 else None
        connection.execute("UPDATE Dict SET value = ?, crc = ? WHERE rowid = ?", (bytes(changed), crc, row))
    connection.commit()
    connection.close()
    return path.read_bytes()


def originals(folder: Path, sprung: Path) -> list[dict[str, bytes]]:
    """Return the files of sessions, small ones: sealed, with a log, and one that another program wrote to."""
    dataman = DataManager.at(_made(folder))
    found = []
    for name in ("sealed", "foreign"):
        with dataman.session(name) as session:
            seed(session, sprung)
        if name == "foreign":
            with contextlib.closing(sqlite3.connect(session.path)) as connection:
                connection.execute("UPDATE Dict SET crc = NULL")
                connection.commit()
        found.append({"": Path(session.path).read_bytes()})
    with dataman.session("live") as session:
        seed(session, sprung)
        found.append({side: Path(f"{session.path}{side}").read_bytes() for side in ("", "-wal")})
    shutil.rmtree(folder)
    return found


def seed(session: Session, sprung: Path) -> None:
    session["canary"] = Canary(sprung / "mutated", "function")
    session["array"] = np.arange(4.0)
    session["plain"] = {"a": [1, 2.5, "text", None, (True, b"bytes")], "p": Params(k=1)}
    items = [pickle.dumps(value) for value in (Canary(sprung / "argument", "mkdir"), 1, Params(k=2))]
    outcomes = [outcome(i, item, item if i % 2 else None) for i, item in enumerate(items)]
    session.commit("sweep", json.dumps({"function": "m:f"}), outcomes)


# What is done with every mutated file, and what with some, as it takes longer.
ALWAYS: tuple[Callable[[DataManager], Any], ...] = (
    len,
    lambda dataman: collections.deque(iter(dataman.items()), 0),
    each_argument,
)
SOMETIMES: tuple[Callable[[DataManager], Any], ...] = (
    lambda dataman: [*iter(dataman)],
    lambda dataman: [*dataman.failures()],
    lambda dataman: [*dataman.history()],
    lambda dataman: dataman.check(),
    lambda dataman: dataman.session("s", lock_timeout=0).close(),
    lambda dataman: dataman.compact(),
    lambda dataman: dataman.repair(),
)


def mutants(shard: int, number: int, seed_: int, folder: Path, sprung: Path) -> None:
    """Read mutated files, one after the other, in bounded memory; print the score at the end."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    score: Score = Score(crashes=0, hangs=0, refused=0)
    kinds = originals(_made(folder) / "originals.data", sprung)
    theirs = _made(folder / "theirs.data")
    mine = DataManager.at(_made(folder / "mine.data"))
    dataman = DataManager.at(theirs)
    dataman.directory.create()
    os.chmod(theirs, 0o777)
    signal.signal(signal.SIGALRM, _too_long)
    begun = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for i in range(number):
        chance = random.Random(f"{seed_} {shard} {i}")
        files = dict(chance.choice(kinds))
        side = chance.choice(sorted(files))
        if chance.random() < 0.15 and len(files) == 1:
            files[""] = with_own_checksum(files[""], chance, folder / "scratch")
        else:
            files[side] = mutate(files[side], chance)
        for side, data in files.items():
            (theirs / f"s{side}").write_bytes(data)
        if i % 1000 == 999:
            print(i, flush=True)
        _read_one(dataman, mine, i, score)
        for path in theirs.glob("s*"):
            path.unlink()
        score["files"] += 1
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({**score, "peak_mb": peak // 1024, "grown_mb": (peak - begun) // 1024}), flush=True)


def _read_one(dataman: DataManager, mine: DataManager, i: int, score: Score) -> None:
    signal.alarm(HANG)
    try:
        for use in (*ALWAYS, mine.merge):
            attempt(lambda use=use: use(dataman), score)
        attempt(lambda: collections.deque(iter(mine.items()), 0), score)
        for use in SOMETIMES if i % 20 == 0 else ():
            attempt(lambda use=use: use(dataman), score)
    except _TooLongError:
        say(f"HANG at file {i}")
        score["hangs"] += 1
    finally:
        signal.alarm(0)
    for path in Path(mine.basepath).iterdir():
        if path.is_file():
            path.unlink()


class _TooLongError(BaseException):
    pass


def _too_long(*_: object) -> None:
    raise _TooLongError


def read_mutants(battery: Battery, score: Score) -> None:
    number = battery.choose(2_000, 100_000)
    sprung = _made(battery.folder / "mutants_sprung")
    shm = Path("/dev/shm")
    place = (shm if os.access(shm, os.W_OK) else battery.folder) / f"futurefarm-attack-{os.getpid()}"
    place.mkdir(mode=0o700)
    try:
        with contextlib.ExitStack() as stack:
            children = []
            for shard in range(SHARDS):
                words = "mutants", shard, number // SHARDS, battery.seed, place / str(shard), sprung
                child = Child(python(__file__, *words), battery.choose(60.0, 700.0))
                children.append(stack.enter_context(child))
            for shard, child in enumerate(children):
                _take(child, shard, score)
    finally:
        shutil.rmtree(place, ignore_errors=True)
    score["executed"] += len(os.listdir(sprung))


def _take(child: Child, shard: int, score: Score) -> None:
    """Take the score of a child; one that died without is a crash, one that was too late a hang."""
    last = ""
    for line in child.rest().splitlines():
        last = line
    if child.wait() != 0 or not last.startswith("{"):
        say(f"shard {shard} ended by {child.wait()} after file {last or 'none'}")
        score["hangs" if child.late else "crashes"] += 1
        return
    told = json.loads(last)
    for name in ("peak_mb", "grown_mb"):
        score[name] = max(score[name], told.pop(name))
    score.update(told)


def program(battery: Battery) -> Figures:
    score: Score = Score(crashes=0, executed=0, hangs=0, accepted=0, strays=0, files=0)
    for part in (sing, call_names, read_mutants):
        begun = time.monotonic()
        part(battery, score)
        say(f"{part.__name__}: {time.monotonic() - begun:.1f} s")
    return Figures(
        dict(score),
        {
            "files": f">= {battery.choose(2_000, 100_000)}",
            "names": ">= 60",
            "canaries": ">= 40",
            "peak_mb": "<= 200",
        }
        | dict.fromkeys(("accepted", "crashes", "executed", "hangs", "strays"), "== 0"),
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["mutants"]:
        mutants(*map(int, sys.argv[2:5]), *map(Path, sys.argv[5:7]))
    else:
        main(program)
