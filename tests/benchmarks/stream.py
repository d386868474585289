"""A million tasks from a generator: rate, first result, memory, and whether it slows down."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from clock import Clock
from harness import WORKERS, Bench, Figures, Ratio, Value, expect, main
from memory import forget_peak, peak, resident
from pools import joblib_results, numbers_of
from tasks import add_nothing

FEW = 200
"""Tasks of the first, small call of a program: it loads what is loaded once, and starts the workers."""

BLOCK = 1_000
"""Results after which the clock is looked at; to look at each would slow down who hands them out singly."""


def numbers(count: int) -> Iterator[int]:
    """Return a generator: nobody can ask how many there are."""
    yield from range(count)


def measured(bench: Bench, call: Callable[[int], Clock]) -> Figures:
    """Return the figures of a large call that follows a small one, and the memory that it takes, in MB."""
    start = resident()
    cold = call(FEW)
    before = resident()
    forget_peak()
    figures = call(bench.choose(20_000, 1_000_000)).figures()
    assert cold.first is not None
    return figures | {
        "first result of the program, s": cold.first,
        "memory, MB": peak() - before,
        "memory over the program's start, MB": peak() - start,
    }


def futurefarm(bench: Bench) -> Figures:
    def call(count: int) -> Clock:
        from futurefarm import DataManager, run_tasks

        dataman = DataManager(str(count), bench.folder)
        clock = Clock(count)
        run_tasks(dataman, add_nothing, numbers(count), workers=WORKERS, progress=clock.bar())
        clock.count(0)  # sealing is part of the call
        expect("stored results", dataman.itemcount(), count)
        return clock

    figures = measured(bench, call)
    count = bench.choose(20_000, 1_000_000)
    from futurefarm import DataManager

    numbers_of(DataManager(str(count), bench.folder).values(), count)  # when the memory has been looked at
    return figures


def joblib(bench: Bench) -> Figures:
    def call(count: int) -> Clock:
        clock = Clock(count)
        numbers_of(counted(clock, joblib_results(add_nothing, numbers(count))), count)
        return clock

    return measured(bench, call)


def counted(clock: Clock, results: Iterator[tuple[int, float]]) -> Iterator[tuple[int, float]]:
    yield next(results)
    clock.count(1)
    number = 1
    for number, result in enumerate(results, 2):
        yield result
        if not number % BLOCK:
            clock.count(number - clock.counted)
    clock.count(number - clock.counted)


if __name__ == "__main__":
    main(
        [futurefarm, joblib],
        [
            Ratio("over joblib without storage", "futurefarm: tasks/s", "joblib: tasks/s", ">= 1.0"),
            Value("parent's memory over its start, MB", "futurefarm: memory, MB", "<= 20"),
            Value("first result, s", "futurefarm: first result, s", "<= 0.5"),
            Value("first result, cold, s", "futurefarm: first result of the program, s", "<= 0.5"),
            Value("rate of the last tenth over the first", "futurefarm: last tenth over first", ">= 0.8"),
            Value("rate of the last tenth over the second", "futurefarm: last tenth over second", ">= 0.8"),
        ],
    )
