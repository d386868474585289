"""futurefarm and its peers, called in the same way: results of a function, each checked for its number."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from harness import WORKERS, Figures, expect
from tasks import Task

__all__ = ["farm", "joblib_results", "mpire_pool", "numbers_of", "rates", "run_bare", "split"]


def farm(
    folder: Path,
    fn: Task,
    items: Iterable[Any],
    executor: str = "loky",
    **options: Any,
) -> float:
    """Return the seconds of a sweep, from the call until all results are on disk and sealed in plain files.

    Its results are looked at afterwards.
    """
    from futurefarm import DataManager, run_tasks

    dataman = DataManager("results", folder)
    begin = time.perf_counter()
    summary = run_tasks(dataman, fn, items, executor, workers=WORKERS, progress=False, **options)
    seconds = time.perf_counter() - begin
    expect("stored results", dataman.itemcount(), summary.done)
    expect("logs that are not folded", list(Path(dataman.basepath).glob("*-wal")), [])
    numbers_of(dataman.values(), summary.done)
    return seconds


def joblib_results(fn: Task, items: Iterable[Any], **options: Any) -> Iterator[tuple[int, float]]:
    from joblib import Parallel, delayed

    parallel = Parallel(n_jobs=WORKERS, batch_size="auto", return_as="generator_unordered", **options)
    calls = (delayed(fn)(*item) if isinstance(item, tuple) else delayed(fn)(item) for item in items)
    results: Iterator[tuple[int, float]] = parallel(calls)
    return results


def mpire_pool() -> Any:
    """Return a pool that keeps its workers from call to call."""
    from mpire import WorkerPool

    return WorkerPool(WORKERS, keep_alive=True)


def split(items: list[Any]) -> list[list[Any]]:
    """Return as many even parts as there are workers."""
    return [items[start::WORKERS] for start in range(WORKERS)]


def run_bare(fn: Task, parts: list[list[Any]]) -> float:
    """Return the seconds in which bare processes, one for each part, do no more than call the function."""
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_call_all, args=(fn, part)) for part in parts]
    begin = time.perf_counter()
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return time.perf_counter() - begin


def _call_all(fn: Task, items: list[Any]) -> None:
    for item in items:
        fn(*item)


def numbers_of(results: Iterable[tuple[int, float]], count: int) -> None:
    """Take all results, and verify that the tasks from 0 to ``count`` had one each."""
    seen = total = 0
    for number, _ in results:
        seen += 1
        total += number
    expect("results", (seen, total), (count, count * (count - 1) // 2))


def rates(call: Callable[[int], float], count: int) -> Figures:
    """Return the tasks a second of the first whole call in a program, and of the second.

    The first one is cold: it starts the workers, and these import what they need. The second is warm: it is
    made as a user makes it, and finds what the library keeps from call to call.
    """
    return {"cold, tasks/s": count / call(0), "warm, tasks/s": count / call(1)}
