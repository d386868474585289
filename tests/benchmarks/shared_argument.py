"""One array of 100 MB that all of 20 tasks need: seconds, and what it takes of memory in the parent."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

import tasks
from harness import WORKERS, Bench, Figures, Ratio, Value, expect, main
from memory import forget_peak, peak, resident
from pools import farm, joblib_results, numbers_of

TASKS = 20


def weights(bench: Bench) -> np.ndarray[Any, Any]:
    return np.arange(bench.choose(1_000_000, 100_000_000) // 8, dtype=float)


def measured(bench: Bench, call: Callable[[np.ndarray[Any, Any]], None]) -> Figures:
    """Return the seconds of a call whose workers are warm, and the memory that it takes beside the array."""
    shared = weights(bench)
    before = resident()
    forget_peak()
    begin = time.perf_counter()
    call(shared)
    return {"s": time.perf_counter() - begin, "memory, MB": peak() - before}


def futurefarm(bench: Bench) -> Figures:
    """The array is named as shared."""
    return farmed(bench, lambda shared: {"items": range(TASKS), "shared": {"weights": shared}})


def futurefarm_items(bench: Bench) -> Figures:
    """The array is part of each item, and is to be recognised."""
    return farmed(bench, lambda shared: {"items": [(number, shared) for number in range(TASKS)]})


def farmed(bench: Bench, options: Callable[[np.ndarray[Any, Any]], dict[str, Any]]) -> Figures:
    from futurefarm import DataManager, run_tasks

    farm(bench.folder / "warm up", tasks.sleep, [(number, 0.05) for number in range(2 * WORKERS)])
    dataman = DataManager("results", bench.folder)

    def call(shared: np.ndarray[Any, Any]) -> None:
        rest = options(shared)
        run_tasks(dataman, tasks.look_up, rest.pop("items"), workers=WORKERS, progress=False, **rest)

    figures = measured(bench, call)
    expect("results", sorted(dataman.values()), expected())
    return figures


def expected() -> list[tuple[int, float]]:
    return [(number, float(number)) for number in range(TASKS)]


def joblib(bench: Bench) -> Figures:
    """Its own automatic mapping of large arrays."""
    numbers_of(joblib_results(tasks.sleep, [(number, 0.05) for number in range(2 * WORKERS)]), 2 * WORKERS)

    def call(shared: np.ndarray[Any, Any]) -> None:
        items = [(number, shared) for number in range(TASKS)]
        expect("results", sorted(joblib_results(tasks.look_up, items)), expected())

    return measured(bench, call)


def loky(bench: Bench) -> Figures:
    """Pickle it for each task."""
    from loky import get_reusable_executor

    executor = get_reusable_executor(max_workers=WORKERS)
    list(executor.map(partial(tasks.sleep, seconds=0.05), range(2 * WORKERS)))

    def call(shared: np.ndarray[Any, Any]) -> None:
        expect("results", list(executor.map(tasks.look_up, range(TASKS), [shared] * TASKS)), expected())

    return measured(bench, call)


if __name__ == "__main__":
    main(
        [futurefarm, futurefarm_items, joblib, loky],
        [
            Ratio("named as shared, over joblib's memmap", "futurefarm: s", "joblib: s", "<= 1.0"),
            Value("named as shared, parent's memory, MB", "futurefarm: memory, MB", "<= 20"),
            Ratio("in each item, over joblib's memmap", "futurefarm items: s", "joblib: s", "<= 1.0"),
            Value("in each item, parent's memory, MB", "futurefarm items: memory, MB", "<= 20"),
        ],
    )
