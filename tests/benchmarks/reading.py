"""A million stored results: read and counted, beside the same files read by hand; and a sweep that resumes.

They are made once, as workers make them: 100 sessions of 10,000 results, and one session of a million.
"""

from __future__ import annotations

import multiprocessing
import pickle
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

from harness import Bench, Figures, Ratio, Value, expect, main
from pools import numbers_of
from sessions import outcomes_of, tasks_of
from tasks import add_nothing

BATCH = 5_000
TIMES = 5
"""For what takes milliseconds: its median is taken."""


def count_of(bench: Bench) -> int:
    return bench.choose(20_000, 1_000_000)


def prepare(bench: Bench) -> Figures:
    """Fill both directories, each by a process of its own."""
    context = multiprocessing.get_context("fork")
    count = count_of(bench)
    fillers = [
        context.Process(target=fill, args=(bench.shared, "many", count, bench.choose(10, 100))),
        context.Process(target=fill, args=(bench.shared, "one", count, 1)),
    ]
    begin = time.perf_counter()
    for filler in fillers:
        filler.start()
    for filler in fillers:
        filler.join()
        expect("the exit code of who fills a directory", filler.exitcode, 0)
    return {"s": time.perf_counter() - begin}


def fill(folder: Path, name: str, count: int, sessions: int) -> None:
    from futurefarm import DataManager

    dataman = DataManager(name, folder)
    size = count // sessions
    for start in range(0, count, size):
        with dataman.session() as session:
            for at in range(start, start + size, BATCH):
                tasks = tasks_of(range(at, min(at + BATCH, start + size)))
                session.commit("sweep", "{}", outcomes_of(tasks))


def milliseconds(call: Callable[[], int], count: int) -> float:
    """Return the median of a few calls, each of which has to return the count."""
    seen = []
    for _ in range(TIMES):
        begin = time.perf_counter()
        result = call()
        seen.append((time.perf_counter() - begin) * 1000)
        expect("counted results", result, count)
    return median(seen)


def rate_of(results: Iterator[tuple[int, float]], count: int) -> float:
    begin = time.perf_counter()
    numbers_of(results, count)
    return count / (time.perf_counter() - begin)


def futurefarm(bench: Bench) -> Figures:
    from futurefarm import DataManager

    count = count_of(bench)
    figures = {
        "open and count, ms": milliseconds(lambda: DataManager("many", bench.shared).itemcount(), count)
    }
    for name in ("many", "one"):
        dataman = DataManager(name, bench.shared)
        expect("counted results", dataman.itemcount(), count)
        figures[f"count {name} again, ms"] = milliseconds(dataman.itemcount, count)
        figures[f"values of {name}, 1/s"] = rate_of(iter(dataman.values()), count)
    return figures


def by_hand(bench: Bench) -> Figures:
    count = count_of(bench)
    figures = {"open and count, ms": milliseconds(lambda: count_by_hand(files(bench, "many")), count)}
    for name in ("many", "one"):
        figures[f"values of {name}, 1/s"] = rate_of(read_by_hand(files(bench, name)), count)
    return figures


def files(bench: Bench, name: str) -> list[Path]:
    """Return the session files; large values, which these are not, would lie in files beside them."""
    return sorted(path for path in (bench.shared / f"{name}.data").iterdir() if path.is_file())


def count_by_hand(paths: list[Path]) -> int:
    total = 0
    for path in paths:
        connection = sqlite3.connect(path)
        total += connection.execute("SELECT value FROM Meta WHERE name = 'count'").fetchone()[0]
        connection.close()
    return total


def read_by_hand(paths: list[Path]) -> Iterator[tuple[int, float]]:
    for path in paths:
        connection = sqlite3.connect(path)
        for _, value in connection.execute("SELECT key, value FROM Dict"):
            yield pickle.loads(value)
        connection.close()


def resume(bench: Bench) -> Figures:
    """Seconds of a sweep whose results are all there."""
    from futurefarm import DataManager, run_tasks

    count = count_of(bench)
    figures = {}
    for name in ("many", "one"):
        dataman = DataManager(name, bench.shared)
        begin = time.perf_counter()
        summary = run_tasks(dataman, add_nothing, range(count), resume=True, progress=False)
        figures[f"{name}, s"] = time.perf_counter() - begin
        expect("what was done, and skipped", (summary.done, summary.skipped), (0, count))
    return figures


def ratio(title: str, figure: str, target: str) -> Ratio:
    return Ratio(title, f"futurefarm: {figure}", f"by hand: {figure}", target)


if __name__ == "__main__":
    main(
        [futurefarm, by_hand, resume],
        [
            ratio("all values of 100 sessions, over SQLite by hand", "values of many, 1/s", ">= 0.8"),
            ratio("all values of one session, over SQLite by hand", "values of one, 1/s", ">= 0.8"),
            ratio("100 sessions opened and counted, over SQLite by hand", "open and count, ms", "<= 1.3"),
            Value("100 sessions opened and counted, ms", "futurefarm: open and count, ms", "<= 20"),
            Value("100 sessions counted again, ms", "futurefarm: count many again, ms", "<= 5"),
            Value("a session of a million counted again, ms", "futurefarm: count one again, ms", "<= 5"),
            Value("resumed with nothing to do, 100 sessions, s", "resume: many, s", "<= 2"),
            Value("resumed with nothing to do, one session, s", "resume: one, s", "<= 2"),
        ],
        prepare=prepare,
    )
