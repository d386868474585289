"""Commits of small results by one session, in batches and one by one; and how often each syncs."""

from __future__ import annotations

import os
import pickle
import shutil
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from byhand import Shelf
from harness import Bench, Figures, Ratio, Value, WrongResultError, expect, main, say
from pools import numbers_of
from sessions import outcomes_of, tasks_of

BATCH = 256
BEGIN, END = "/begin-of-commits", "/end-of-commits"
"""Files that are not there; asking for them shows strace where the commits begin and end."""

SYNCS = ("fsync", "fdatasync", "msync", "sync_file_range")


def count_of(bench: Bench) -> int:
    return bench.choose(1_000, 20_000)


def batches(count: int) -> Iterator[range]:
    return (range(start, min(start + BATCH, count)) for start in range(0, count, BATCH))


def singly(count: int) -> Iterator[range]:
    return (range(number, number + 1) for number in range(count))


def timed(count: int, call: Callable[[], None]) -> float:
    """Return how many results a second."""
    begin = time.perf_counter()
    call()
    return count / (time.perf_counter() - begin)


def futurefarm(bench: Bench) -> Figures:
    count = count_of(bench)
    return {
        "in batches, results/s": in_batches(bench.folder, count),
        "one by one, results/s": one_by_one(bench.folder, count),
    }


def in_batches(folder: Path, count: int) -> float:
    """Commit as a worker does: results with the ledger's rows of their tasks."""
    from futurefarm import DataManager

    dataman = DataManager("batches", folder)
    tasks = tasks_of(range(count))

    def commit_all() -> None:
        os.access(BEGIN, os.F_OK)
        for batch in batches(count):
            session.commit("sweep", "{}", outcomes_of(tasks[batch.start : batch.stop]))
        os.access(END, os.F_OK)

    with dataman.session() as session:
        rate = timed(count, commit_all)
    numbers_of(dataman.values(), count)
    return rate


def one_by_one(folder: Path, count: int) -> float:
    from futurefarm import DataManager

    dataman = DataManager("singly", folder)

    def commit_all() -> None:
        os.access(BEGIN, os.F_OK)
        for number in range(count):
            session[f"{number:032x}"] = number, number * 0.5
        os.access(END, os.F_OK)

    with dataman.session() as session:
        rate = timed(count, commit_all)
    numbers_of(dataman.values(), count)
    return rate


class Log:
    """An append-only log: checksum, lengths, key and value of each, and a sync for each write."""

    HEAD = struct.Struct("<IHQ")

    def __init__(self, path: Path) -> None:
        self.descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def write(self, numbers: range) -> None:
        os.write(self.descriptor, b"".join(map(self._entry, numbers)))
        os.fdatasync(self.descriptor)

    def _entry(self, number: int) -> bytes:
        key, value = f"{number:032x}".encode(), pickle.dumps((number, number * 0.5), 5)
        return self.HEAD.pack(zlib.crc32(value, zlib.crc32(key)), len(key), len(value)) + key + value

    def close(self) -> None:
        os.close(self.descriptor)


def log(bench: Bench) -> Figures:
    count = count_of(bench)
    return {
        "in batches, results/s": logged(bench.folder / "batches", batches(count), count),
        "one by one, results/s": logged(
            bench.folder / "singly", (range(n, n + 1) for n in range(count)), count
        ),
    }


def logged(path: Path, parts: Iterator[range], count: int) -> float:
    log = Log(path)

    def write_all() -> None:
        for part in parts:
            log.write(part)

    rate = timed(count, write_all)
    log.close()
    expect("bytes in the log", path.stat().st_size > count * 48, True)
    return rate


def gdbm_by_hand(bench: Bench) -> Figures:
    """Fewer of them, as they take so long; the rate is what counts."""
    count = bench.choose(50, 2_000)
    shelf = Shelf(bench.folder / "shelf")

    def store_all() -> None:
        for number in range(count):
            shelf.store(f"{number:032x}", (number, number * 0.5))

    rate = timed(count, store_all)
    expect("results on the shelf", shelf.count(), count)
    return {"one by one, results/s": rate}


def system_calls(bench: Bench) -> Figures:
    """Syncs for each commit, counted by strace."""
    if shutil.which("strace") is None:
        say("strace is missing: syncs are not counted")
        return {}
    return {
        "syncs in a batch": syncs(bench.folder / "batches", in_batches, 20 * BATCH) / 20,
        "syncs in a single commit": syncs(bench.folder / "singly", one_by_one, 200) / 200,
    }


def syncs(folder: Path, function: Callable[[Path, int], float], count: int) -> int:
    folder.mkdir()
    code = f"import pathlib, commits; commits.{function.__name__}(pathlib.Path({str(folder)!r}), {count})"
    traced = "trace=" + ",".join(f"?{name}" for name in ("access", "faccessat", "faccessat2", *SYNCS))
    command = ["strace", "-f", "-qq", "-e", traced, "-o", folder / "trace", sys.executable, "-c", code]
    subprocess.run(command, cwd=Path(__file__).parent, check=True)
    _, begun, rest = (folder / "trace").read_text().partition(BEGIN)
    during, ended, _ = rest.partition(END)
    if not begun or not ended:
        raise WrongResultError("strace did not show where the commits begin and end")
    return sum(f" {name}(" in line for line in during.splitlines() for name in SYNCS)


def ratio(title: str, how: str, peer: str, target: str) -> Ratio:
    return Ratio(title, f"futurefarm: {how}, results/s", f"{peer}: {how}, results/s", target)


if __name__ == "__main__":
    main(
        [futurefarm, log, gdbm_by_hand, system_calls],
        [
            ratio("batches of 256, over an append-only log", "in batches", "log", ">= 0.3"),
            ratio("one by one, over gdbm by hand", "one by one", "gdbm by hand", ">= 8"),
            Value("syncs of a batch", "system calls: syncs in a batch", "== 1"),
            Value("syncs of a single commit", "system calls: syncs in a single commit", "== 1"),
        ],
    )
