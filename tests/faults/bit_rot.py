"""Damage of all kinds: flipped bits, cuts, zeroed blocks, foreign files.

A sealed session, and the file and log that a killed writer left, are damaged at one place at a time, and then
read in every way that a `DataManager` offers. Each reading has to give the truth, or to tell by name that
there is damage: by an error, or, for the last commit of a log, which a power cut may have torn, by a warning.
What `repair` can still find is counted after each damage; `repair` itself runs after a sample of them.

A log is not cut: what is left is the state of an earlier moment, as a crash leaves it, and nothing can tell.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import random
import shutil
import sqlite3
import sys
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from futurefarm import DataManager
from futurefarm.errors import FutureFarmError
from futurefarm.store.beside import Beside
from futurefarm.store.salvage import salvage
from futurefarm.task import Outcome, Task
from harness import Battery, Child, Figures, main, python, say
from large import large_from

RECORD = json.dumps({"function": "bit_rot:simulate", "host": "laptop"})
NAME = "ann.laptop.0123456789"
PAGE = 4096
LARGE = 2_000  # bytes; a third of the values is larger, and lies beside the session


def results(number: int) -> Iterator[Outcome]:
    """What a sweep may have left: results of all sizes, and failures with long tracebacks."""
    chance = random.Random(number)
    for i in range(number):
        task = Task(i, b"%016d" % i, 0, 2, pickle.dumps((i, "argument")))
        value = pickle.dumps((i, chance.randbytes(chance.choice([10, 100, 600, 6000]))))
        yield Outcome(task, "ok", value, None, None, "laptop", 42, 1.7e9 + i, 0.125 * i, None)
        traceback = "line\n" * chance.choice([1, 90])
        failed = task._replace(identity=b"%016d" % (i + 1000), attempt=1)
        yield Outcome(
            failed, "error", None, f"ValueError: {i}", traceback, "laptop", 42, 1.7e9, 0.5, "printed"
        )


def fill(folder: Path, number: int, *, die: bool = False) -> None:
    """Write a session with a commit for each result; ``die``: be killed before it is closed."""
    large_from(LARGE)
    session = DataManager.at(folder).session(NAME)
    for i, outcome in enumerate(results(number)):
        session.commit(f"sweep{i % 2}", RECORD, [outcome])
    session["mine"] = {"a": [1, 2, 3]}
    session["buffers"] = [pickle.PickleBuffer(bytearray([n]) * LARGE) for n in (1, 2)]
    if die:
        os.kill(os.getpid(), 9)
    session.close()


# -- one damage


class Damage(NamedTuple):
    """What is done to the files: at ``at`` (a bit, or a byte) of the file with this ending."""

    kind: str
    ending: str
    at: int

    def do(self, data: bytes) -> bytes:
        if self.kind == "cut":
            return data[: self.at]
        changed = bytearray(data)
        if self.kind == "flip":
            changed[self.at // 8] ^= 1 << self.at % 8
        else:
            size = int(self.kind.removeprefix("zero"))
            changed[self.at : self.at + size] = bytes(len(changed[self.at : self.at + size]))
        return bytes(changed)


class Place:
    """A directory with one session, which can be damaged and put back as it was, in the very same files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / NAME
        self.files = {e: Path(f"{self.path}{e}").read_bytes() for e in ("", "-wal", ".blobs") if self._has(e)}
        self.note = (folder / ".farm" / "locks" / f"{NAME}.json").read_bytes()
        self._clock = 10**18
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.keys = sorted(DataManager.at(folder).keys())
        self.truth = {name: Counter(rows) for name, (rows, _, _) in readings(folder, self.keys).items()}
        self.rows = self.walk()

    def _has(self, ending: str) -> bool:
        return Path(f"{self.path}{ending}").exists()

    def put(self, damage: Damage | None) -> None:
        Path(f"{self.path}-shm").unlink(missing_ok=True)
        self._clock += 10**9
        for ending, data in self.files.items():
            path = Path(f"{self.path}{ending}")
            with path.open("r+b") as file:
                file.write(damage.do(data) if damage and damage.ending == ending else data)
                file.truncate()
            # The clock of the file system is too coarse to tell one damage from the next.
            os.utime(path, ns=(self._clock, self._clock))

    def walk(self) -> set[tuple[Any, ...]]:
        """Return what `repair` finds that is good."""
        with Beside(self.path) as beside:
            return {
                (found.table, found.columns)
                for found in salvage(self.path)
                if found.whole and not (found.table == "Dict" and beside.fault(found.columns[1]))
            }


def readings(
    folder: Path, keys: list[str], *, brief: bool = False
) -> dict[str, tuple[list[Any], bool, str | None]]:
    """Read all in every way; return what was given, whether damage was told of, and what else went wrong."""
    dataman = DataManager.at(folder)
    ways: dict[str, Callable[[], Iterable[Any]]] = {
        "items": lambda: ((key, repr(value)) for key, value in dataman.items()),
        "keys": dataman.keys,
        "count": lambda: [dataman.itemcount()],
        "records": lambda: map(_plain, dataman.records()),
        "history": dataman.history,
        "failures": lambda: map(_plain, dataman.failures()),
        **{f"lookup {key}": lambda key=key: [repr(dataman[key])] for key in keys},
    }
    return {
        name: _read(way) for name, way in ways.items() if not brief or name in ("items", "count", "records")
    }


def _plain(record: Any) -> str:
    return repr(record)


def _read(way: Callable[[], Iterable[Any]]) -> tuple[list[Any], bool, str | None]:
    given: list[Any] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            given.extend(way())
        except FutureFarmError as error:
            return given, NAME in str(error), None if NAME in str(error) else repr(error)
        except KeyError:
            pass  # of a key that is there: the reading is short, and nobody was told
        except Exception as error:
            return given, False, repr(error)
    return given, any(NAME in str(warning.message) for warning in caught), None


def suffer(place: Place, damage: Damage, repair: bool) -> Counter[str]:
    """Do one damage, read, walk, perhaps repair; count what is not as it should be."""
    seen: Counter[str] = Counter()
    place.put(damage)
    told_of = 0
    # Cuts are many, and nearly all of them leave nothing to look up.
    for name, (given, told, crash) in readings(place.folder, place.keys, brief=damage.kind == "cut").items():
        extra = Counter(given) - place.truth[name]
        seen["crashes"] += crash is not None
        # A number that comes with a warning is as far as one can count.
        seen["wrong"] += bool(extra) and not (name == "count" and told)
        seen["undetected"] += Counter(given) != place.truth[name] and not told
        told_of += told
        if crash or (Counter(given) != place.truth[name] and not told):
            say(damage, name, crash or f"{len(given)} given, nothing told")
    found = place.rows if damage.kind == "cut" and not repair else place.walk()
    seen["noticed"] += bool(told_of)
    seen["invented"] += len(found - place.rows)
    seen["lost"] = len(place.rows - found)
    if repair and told_of:
        seen["repairs"] += 1
        seen["not_recovered"] += _after_repair(place, found)
    place.put(None)
    return seen


def _after_repair(place: Place, found: set[tuple[Any, ...]]) -> int:
    """Repair a copy; return how many good values are not back, plus one if it is not fine then."""
    copy = place.folder.with_name(f"copy-{os.getpid()}.data")
    shutil.copytree(place.folder, copy)
    try:
        dataman = DataManager.at(copy)
        dataman.repair()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            back = set(dataman.keys())
            values = {columns[0].decode() for table, columns in found if table == "Dict"}
            return len(values - back) + (not dataman.check().fine)
    except FutureFarmError as error:
        say(f"repair: {error}")
        return 1
    finally:
        shutil.rmtree(copy)


# -- all damages


def flips(place: Place, chance: random.Random, number: int) -> Iterator[Damage]:
    sizes = {ending: 8 * len(data) for ending, data in place.files.items()}
    for _ in range(number):
        ending = chance.choice(sorted(sizes))
        yield Damage("flip", ending, chance.randrange(sizes[ending]))


def cuts(place: Place, chance: random.Random, number: int | None) -> Iterator[Damage]:
    """Cut at so many places, or, if ``number`` is None, all over the file.

    That is at each byte of the first page, which has the header and the schema, and of the last, and at every
    16th between: what is left there differs only in where a page ends.
    """
    blobs = len(place.files.get(".blobs", b""))
    yield from (Damage("cut", ".blobs", at) for at in range(0, blobs, max(1, blobs // 50)))
    size = len(place.files[""])
    all_over = [at for at in range(size) if at < PAGE or at >= size - PAGE or at % 16 == 0]
    places = all_over if number is None else sorted(chance.sample(range(size), number))
    yield from (Damage("cut", "", at) for at in places)


def zeros(place: Place) -> Iterator[Damage]:
    for ending, data in place.files.items():
        for size in (512, PAGE):
            yield from (Damage(f"zero{size}", ending, at) for at in range(0, len(data), size))


def suffer_all(folder: Path, damages: list[Damage], every: int) -> Counter[str]:
    place = Place(folder)
    total: Counter[str] = Counter()
    worst: dict[str, int] = {}
    for i, damage in enumerate(damages):
        seen = suffer(place, damage, i % every == 0)
        lost = seen.pop("lost")
        worst[damage.kind] = max(lost, worst.get(damage.kind, 0))
        total += seen
        total[damage.kind.rstrip("0123456789")] += 1
    total["most_lost_per_flip"] = worst.get("flip", 0)
    total["most_lost_per_page"] = worst.get(f"zero{PAGE}", 0)
    return total


def ours(battery: Battery) -> Figures:
    number = 12
    sealed = _filled(battery.folder / "sealed.data", number)
    killed = _filled(battery.folder / "killed.data", number, die=True)
    small = _filled(battery.folder / "small.data", 1)
    work: list[tuple[Path, list[Damage], int]] = []
    for folder in (sealed, killed):
        place, chance = Place(folder), battery.random(folder.name)
        damages = list(flips(place, chance, battery.choose(300, 5000)))
        damages += battery.choose(list(zeros(place))[::9], list(zeros(place)))
        if battery.short:
            damages += cuts(place, chance, 20)
        work.append((folder, damages, battery.choose(15, 20)))
    every_cut = list(cuts(Place(small), battery.random("cuts"), battery.choose(40, None)))
    work.append((small, every_cut, 500))
    total = _in_parallel(battery, work)
    total += strangers(battery)
    names = ("flip", "cut", "zero", "foreign", "noticed", "repairs", "wrong", "undetected", "crashes")
    names += ("invented", "not_recovered", "most_lost_per_flip", "most_lost_per_page")
    return Figures(
        {name: total[name] for name in names},
        {
            "flip": f">= {battery.choose(600, 10_000)}",
            "foreign": ">= 20",
            "wrong": "== 0",
            "undetected": "== 0",
            "crashes": "== 0",
            "invented": "== 0",
            "not_recovered": "== 0",
            "most_lost_per_flip": "<= 1",
        },
    )


def _filled(folder: Path, number: int, *, die: bool = False) -> Path:
    DataManager(folder.with_suffix(""))
    with Child(python(__file__, "fill", folder, number, int(die)), 60) as child:
        child.wait()
    return folder


def _in_parallel(battery: Battery, work: list[tuple[Path, list[Damage], int]]) -> Counter[str]:
    """Let each processor damage copies of its own."""
    total: Counter[str] = Counter()
    processors = len(os.sched_getaffinity(0))
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processors, mp_context=spawn) as pool:
        futures = []
        for folder, damages, every in work:
            for i in range(processors):
                copy = _moved(folder, battery.folder / f"{folder.stem}-{i}.data")
                futures.append(pool.submit(suffer_all, copy, damages[i::processors], every))
        for future in futures:
            seen = future.result(timeout=600)
            most = {name: max(total[name], seen[name]) for name in seen if name.startswith("most_")}
            total = total + seen
            total |= Counter(most)
            total.update({name: most[name] - total[name] for name in most})
    return total


def _moved(folder: Path, target: Path) -> Path:
    """Copy a directory so that the session is at home in the copy as it was in the original."""
    shutil.copytree(folder, target)
    note = target / ".farm" / "locks" / f"{NAME}.json"
    noted = json.loads(note.read_text())
    note.write_text(json.dumps({**noted, "inode": (target / NAME).stat().st_ino}))
    return target


# -- foreign files


def strangers(battery: Battery) -> Counter[str]:
    """Put foreign files beside a healthy session, one at a time."""
    folder = _filled(battery.folder / "beside.data", 3)
    place = Place(folder)
    seen: Counter[str] = Counter()
    for name, make in _foreign(place).items():
        path = folder / name
        make(path)
        seen["foreign"] += 1
        for reading, (given, told, crash) in readings(folder, place.keys).items():
            seen["crashes"] += crash is not None
            if Counter(given) != place.truth[reading] and not told:
                seen["undetected"] += 1
                say("foreign", name, reading, given, crash)
        problems = {problem.file for problem in DataManager.at(folder).check().problems}
        seen["undetected"] += path.name not in problems and not name.startswith(".")
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    return seen


def _foreign(place: Place) -> dict[str, Callable[[Path], Any]]:
    session = place.files[""]

    def zipped(path: Path) -> None:
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("a.txt", "text")

    def database(path: Path) -> None:
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("CREATE TABLE Dict (key BLOB UNIQUE NOT NULL, value BLOB NOT NULL)")

    return {
        ".DS_Store": lambda path: path.write_bytes(b"\0\0\0\1Bud1"),
        "._" + NAME: lambda path: path.write_bytes(b"\0\5\x16\7"),
        ".nfs000000000001": lambda path: path.write_bytes(session),
        ".directory": lambda path: path.write_text("[Dolphin]"),
        "Thumbs.db": lambda path: path.write_bytes(b"\xd0\xcf\x11\xe0" + bytes(600)),
        "desktop.ini": lambda path: path.write_text("[.ShellClassInfo]"),
        "notes.txt": lambda path: path.write_text("simulations of Tuesday"),
        "notes.txt~": lambda path: path.write_text("simulations of Monday"),
        "#notes.txt#": lambda path: path.write_text("simulations of"),
        ".notes.txt.swp": lambda path: path.write_bytes(b"b0VIM 9.0"),
        f"{NAME} (1)": lambda path: path.write_bytes(session),
        f"Copy of {NAME}": lambda path: path.write_bytes(session),
        f"{NAME}~": lambda path: path.write_bytes(session),
        "results.zip": zipped,
        "other.sqlite": database,
        "empty": lambda path: path.touch(),
        "blank": lambda path: path.write_bytes(bytes(9000)),
        "noise": lambda path: path.write_bytes(random.Random(1).randbytes(9000)),
        "folder": lambda path: path.mkdir(),
        "link": lambda path: path.symlink_to("nowhere"),
        "pipe": os.mkfifo,
        "plot.png": lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n"),
    }


# -- the others


def peer(battery: Battery) -> Figures:
    """Flip bits in what else keeps results in one file: a plain table of SQLite, or a shelf on it."""
    path = battery.folder / "peer"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE Dict (key BLOB UNIQUE NOT NULL, value BLOB NOT NULL)")
        pairs = [(b"%d" % i, outcome.value) for i, outcome in enumerate(results(24)) if outcome.value]
        connection.executemany("INSERT INTO Dict VALUES (?, ?)", pairs)
    data, truth = path.read_bytes(), dict(pairs)
    loads = pickle.loads if battery.peer == "shelve" else bytes
    expected = {key: loads(value) for key, value in truth.items()}
    chance = battery.random("peer")
    seen: Counter[str] = Counter(wrong=0, undetected=0, crashes=0)
    for _ in range(battery.choose(600, 10_000)):
        changed = bytearray(data)
        at = chance.randrange(8 * len(data))
        changed[at // 8] ^= 1 << at % 8
        path.write_bytes(changed)
        given: dict[bytes, Any] = {}
        told = False
        try:
            with closing(sqlite3.connect(path)) as connection:
                for key, value in connection.execute("SELECT key, value FROM Dict"):
                    given[key] = loads(value)
        except (sqlite3.Error, pickle.UnpicklingError):
            told = True
        except Exception:
            seen["crashes"] += 1
            told = True
        seen["flip"] += 1
        seen["wrong"] += any(expected.get(key) != value for key, value in given.items())
        seen["undetected"] += given != expected and not told
    return Figures(dict(seen), {"wrong": "== 0", "undetected": "== 0", "crashes": "== 0"})


def run(battery: Battery) -> Figures:
    return peer(battery) if battery.peer else ours(battery)


if __name__ == "__main__":
    if sys.argv[1:2] == ["fill"]:
        fill(Path(sys.argv[2]), int(sys.argv[3]), die=bool(int(sys.argv[4])))
    else:
        main(run, ["sqlite", "shelve"])
