"""Tasks of 0.1 ms and of 1 s in random order, beside the best schedule that there can be.

The best schedule is made by who knows how long each task takes: two bare processes with half of the long
tasks and half of the short ones each. The order is another one in each round.
"""

from __future__ import annotations

import random
import time

import tasks
from harness import Bench, Figures, Ratio, main
from pools import farm, joblib_results, numbers_of, run_bare, split

KINDS = ("spin", "sleep")
SHORT_TASK = 0.0001


def items(bench: Bench) -> list[tuple[int, float]]:
    """Return the arguments: long tasks first, in even numbers."""
    long_task = bench.choose(0.2, 1.0)
    seconds = [long_task] * bench.choose(4, 8) + [SHORT_TASK] * bench.choose(1_000, 20_000)
    return list(enumerate(seconds))


def shuffled(bench: Bench) -> list[tuple[int, float]]:
    mixed = items(bench)
    random.Random(bench.round).shuffle(mixed)
    return mixed


def best(bench: Bench) -> Figures:
    return {f"{kind}, s": run_bare(getattr(tasks, kind), split(items(bench))) for kind in KINDS}


def futurefarm(bench: Bench) -> Figures:
    farm(bench.folder / "warm up", tasks.sleep, [(n, 0.01) for n in range(20)])
    return {f"{kind}, s": farm(bench.folder / kind, getattr(tasks, kind), shuffled(bench)) for kind in KINDS}


def joblib(bench: Bench) -> Figures:
    numbers_of(joblib_results(tasks.sleep, [(n, 0.01) for n in range(20)]), 20)
    mixed = shuffled(bench)
    figures = {}
    for kind in KINDS:
        begin = time.perf_counter()
        numbers_of(joblib_results(getattr(tasks, kind), mixed), len(mixed))
        figures[f"{kind}, s"] = time.perf_counter() - begin
    return figures


if __name__ == "__main__":
    main(
        [best, futurefarm, joblib],
        [
            Ratio(f"over the best schedule, {kind}", f"futurefarm: {kind}, s", f"best: {kind}, s", "<= 1.1")
            for kind in KINDS
        ],
    )
