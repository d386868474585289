"""What features cost tasks that do nothing; there is no target, but the figures are to be known."""

from __future__ import annotations

from typing import Any

from harness import Bench, Figures, main
from pools import farm, rates
from tasks import add_nothing


def farmed(bench: Bench, executor: str = "loky", share: float = 1.0, **options: Any) -> Figures:
    count = round(bench.choose(2_000, 100_000) * share)
    return rates(
        lambda turn: farm(bench.folder / str(turn), add_nothing, range(count), executor, **options), count
    )


def plain(bench: Bench) -> Figures:
    return farmed(bench)


def without_capture(bench: Bench) -> Figures:
    return farmed(bench, capture=False)


def with_resume(bench: Bench) -> Figures:
    """Each task is claimed, so that two sweeps share the work."""
    return farmed(bench, resume=True)


def with_timeout(bench: Bench) -> Figures:
    return farmed(bench, timeout=60)


def thread(bench: Bench) -> Figures:
    return farmed(bench, "thread", 0.5)


def serial(bench: Bench) -> Figures:
    return farmed(bench, "serial", 0.5)


if __name__ == "__main__":
    main([plain, without_capture, with_resume, with_timeout, thread, serial], [], rounds=3)
