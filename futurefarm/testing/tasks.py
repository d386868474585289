"""What the suite farms out. Workers import it, so it imports nothing heavy."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from typing import Any


def square(x: float) -> tuple[float, float]:
    return x, x * x


def add(a: int, b: int) -> int:
    return a + b


def keep(item: Any) -> Any:
    return item


def named(k: int, tau: float = 1.0) -> tuple[int, float]:
    return k, tau


class UnloadableError(Exception):
    """Its pickle cannot be loaded: the class wants two arguments and passes one on."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(first)


def misbehave(kind: str) -> Any:
    """Fail in one of the ways in which tasks do, or return ``kind``."""
    if kind == "value":
        raise ValueError("bad value")
    if kind == "unloadable":
        raise UnloadableError("one", "two")
    if kind == "unpicklable":
        raise type("LocalError", (Exception,), {"lock": threading.Lock()})("local")
    if kind == "exit":
        raise SystemExit(3)
    if kind == "interrupt":
        raise KeyboardInterrupt
    if kind == "stopiteration":
        raise StopIteration
    if kind == "group":
        raise ExceptionGroup("several", [ValueError("a"), TypeError("b")])
    if kind == "lock":
        return threading.Lock()
    if kind == "generator":
        return (x for x in range(3))
    return kind


BAD_KINDS = {
    "value": "ValueError: bad value",
    "unloadable": "UnloadableError: one",
    "unpicklable": "LocalError: local",
    "exit": "SystemExit: 3",
    "interrupt": "KeyboardInterrupt",
    "stopiteration": "StopIteration",
    "group": "ExceptionGroup: several",
    "lock": "cannot be stored",
    "generator": "list(...)",
}


def fails_until(path: str, times: int) -> str:
    """Fail until it has been called so often; each call leaves a mark in a file."""
    with open(path, "a") as file:
        file.write("x")
    if os.path.getsize(path) <= times:
        raise OSError("not yet")
    return "at last"


def reports(report: Any) -> bool:
    for i in range(3):
        part = report.subtask(i, 3)
        part(0.5, f"part {i}")
        part(1.0)
    return bool(report.should_stop)


class Counter:
    """A task class: made once per worker, then called."""

    taskname = "counting"

    def __init__(self, start: int, step: int = 1, process_number: int = -1) -> None:
        self.start = start
        self.step = step
        self.process_number = process_number
        self.made_in = os.getpid(), threading.get_ident()
        self.calls = 0

    def __call__(self, x: int) -> tuple[int, int, int, tuple[int, int]]:
        self.calls += 1
        return self.start + self.step * x, self.process_number, self.calls, self.made_in


def numbers(pulled: list[int]) -> Iterator[int]:
    """Yield numbers for ever, noting how many were pulled."""
    while True:
        pulled[0] += 1
        yield pulled[0]
