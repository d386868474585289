"""When results came."""

from __future__ import annotations

import io
import time
from typing import Any

from harness import Figures, expect

__all__ = ["Clock"]


class Clock:
    """Notes when the first result was there, and when each tenth of them was."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.counted = 0
        self.first: float | None = None
        self.tenths: list[tuple[int, float]] = []
        self.begin = self.now = time.perf_counter()

    def count(self, number: int) -> None:
        self.now = time.perf_counter() - self.begin
        self.counted += number
        if self.first is None and number:
            self.first = self.now
        while len(self.tenths) < 10 and self.counted * 10 >= self.total * (len(self.tenths) + 1):
            self.tenths.append((self.counted, self.now))

    def figures(self) -> Figures:
        """Return what was seen. The first tenth holds the start, and the search for the right chunks."""
        expect("counted results", self.counted, self.total)
        assert self.first is not None
        last = self._rate(8, 9)
        first = self.tenths[0][0] / self.tenths[0][1]
        return {
            "tasks/s": self.total / self.now,
            "first result, s": self.first,
            "last tenth over first": last / first,
            "last tenth over second": last / self._rate(0, 1),
        }

    def _rate(self, one: int, other: int) -> float:
        (before, begin), (after, end) = self.tenths[one], self.tenths[other]
        return (after - before) / (end - begin) if end > begin else 0.0

    def bar(self) -> type[Any]:
        """Return a class for `run_tasks(progress=...)`: a bar that nobody sees, and that counts here."""
        from tqdm import tqdm

        clock = self

        class Bar(tqdm):  # type: ignore[misc,type-arg]
            def __init__(self, **options: Any) -> None:
                super().__init__(**options, file=io.StringIO())

            def update(self, n: float | None = 1) -> bool | None:
                clock.count(int(n or 0))
                return super().update(n)

        return Bar
