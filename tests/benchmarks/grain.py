"""Tasks of 1, 10 and 100 ms: how much of the time goes into them.

The ideal is two bare processes that do half of the tasks each, and neither send nor keep anything. All pools
are warm: they have run a few tasks.
"""

from __future__ import annotations

import time

import tasks
from harness import WORKERS, Bench, Figures, Ratio, main
from pools import farm, joblib_results, numbers_of, run_bare, split

MILLISECONDS = (1, 10, 100)
KINDS = ("spin", "sleep")


def work(bench: Bench) -> list[tuple[str, tasks.Task, list[tuple[int, float]]]]:
    """Return name, function and arguments of each measurement: two seconds if all goes well."""
    seconds = bench.choose(0.2, 2.0) * WORKERS
    return [
        (f"{kind} {size} ms, s", getattr(tasks, kind), [(n, size / 1000) for n in range(count)])
        for kind in KINDS
        for size in MILLISECONDS
        if (count := round(seconds * 1000 / size))
    ]


def bare(bench: Bench) -> Figures:
    return {name: run_bare(fn, split(items)) for name, fn, items in work(bench)}


def futurefarm(bench: Bench) -> Figures:
    farm(bench.folder / "warm up", tasks.sleep, [(n, 0.01) for n in range(20)])
    return {name: farm(bench.folder / name, fn, items) for name, fn, items in work(bench)}


def joblib(bench: Bench) -> Figures:
    numbers_of(joblib_results(tasks.sleep, [(n, 0.01) for n in range(20)]), 20)
    figures = {}
    for name, fn, items in work(bench):
        begin = time.perf_counter()
        numbers_of(joblib_results(fn, items), len(items))
        figures[name] = time.perf_counter() - begin
    return figures


def targets() -> list[Ratio]:
    """Return the efficiency, ideal over measured, that is asked for, and that it is not below joblib's."""
    found = []
    for kind in KINDS:
        for size, efficiency in zip(MILLISECONDS, (0.95, 0.98, 0.98)):
            ours, what = f"futurefarm: {kind} {size} ms, s", f"tasks that {kind} for {size} ms"
            found += [
                Ratio(f"efficiency, {what}", f"bare: {kind} {size} ms, s", ours, f">= {efficiency}"),
                Ratio(f"over joblib, {what}", f"joblib: {kind} {size} ms, s", ours, ">= 1.0"),
            ]
    return found


if __name__ == "__main__":
    main([bare, futurefarm, joblib], targets())
