"""Tasks that do nothing, every result kept: beside pools that keep none, and one with a shelf."""

from __future__ import annotations

import time

from byhand import Shelf
from harness import Bench, Figures, Ratio, expect, main
from pools import farm, joblib_results, mpire_pool, numbers_of, rates
from tasks import add_nothing


def count_of(bench: Bench) -> int:
    return bench.choose(2_000, 200_000)


def futurefarm_loky(bench: Bench) -> Figures:
    return farmed(bench, "loky")


def futurefarm_process(bench: Bench) -> Figures:
    return farmed(bench, "process")


def farmed(bench: Bench, executor: str) -> Figures:
    count = count_of(bench)
    return rates(
        lambda turn: farm(bench.folder / str(turn), add_nothing, range(count), executor),
        count,
    )


def joblib(bench: Bench) -> Figures:
    count = count_of(bench)

    def call(turn: int) -> float:
        begin = time.perf_counter()
        numbers_of(joblib_results(add_nothing, range(count)), count)
        return time.perf_counter() - begin

    return rates(call, count)


def mpire(bench: Bench) -> Figures:
    count = count_of(bench)
    begin = time.perf_counter()
    with mpire_pool() as pool:

        def call(turn: int) -> float:
            start = time.perf_counter() if turn else begin
            numbers_of(pool.imap_unordered(add_nothing, range(count), iterable_len=count), count)
            return time.perf_counter() - start

        return rates(call, count)


def joblib_and_shelf(bench: Bench) -> Figures:
    """Fewer tasks, as they take so long; the rate is what counts."""
    count = bench.choose(50, 2_000)

    def call(turn: int) -> float:
        shelf = Shelf(bench.folder / str(turn))
        begin = time.perf_counter()
        for number, value in joblib_results(add_nothing, range(count)):
            shelf.store(f"{number:032x}", (number, value))
        seconds = time.perf_counter() - begin
        expect("results on the shelf", shelf.count(), count)
        return seconds

    return rates(call, count)


def ratio(title: str, state: str, peer: str, target: str) -> Ratio:
    return Ratio(title, f"futurefarm loky: {state}, tasks/s", f"{peer}: {state}, tasks/s", target)


if __name__ == "__main__":
    main(
        [futurefarm_loky, futurefarm_process, joblib, mpire, joblib_and_shelf],
        [
            ratio("over joblib without storage", "warm", "joblib", ">= 1.0"),
            ratio("over joblib without storage, both cold", "cold", "joblib", ">= 1.0"),
            ratio("over mpire without storage", "warm", "mpire", ">= 2"),
            ratio("over joblib and a shelf by hand", "warm", "joblib and shelf", ">= 100"),
        ],
    )
