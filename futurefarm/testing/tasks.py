"""What the suite farms out. Workers import it, so it imports nothing heavy."""

from __future__ import annotations

import math
import os
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple


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


class SpeechlessError(BaseException):
    """Its text cannot be had."""

    def __str__(self) -> str:
        raise SystemExit("of an error's text")


class Reduces:
    """A value that does something when it is pickled."""

    def __init__(self, do: Callable[[], Any]) -> None:
        self.do = do

    def __reduce__(self) -> Any:
        return self.do()


def _raise(error: BaseException, cause: BaseException | None = None) -> None:
    raise error from cause


def _recurse() -> None:
    _recurse()


def _nest(depth: int) -> list[Any]:
    nest: list[Any] = []
    for _ in range(depth):
        nest = [nest]
    return nest


async def _awaited() -> None:
    """Do nothing, when it is awaited."""


def _coroutine() -> Any:
    coroutine = _awaited()
    coroutine.close()  # or Python would complain that nobody awaited it
    return coroutine


def _local_error() -> BaseException:
    error: BaseException = type("LocalError", (Exception,), {"lock": threading.Lock()})("local")
    return error


_BAD: dict[str, tuple[Callable[[], Any], str]] = {
    "value": (lambda: _raise(ValueError("bad value")), "ValueError: bad value"),
    "unloadable": (lambda: _raise(UnloadableError("one", "two")), "UnloadableError: one"),
    "unpicklable": (lambda: _raise(_local_error()), "LocalError: local"),
    "speechless": (lambda: _raise(SpeechlessError()), "SpeechlessError"),
    "endless text": (lambda: _raise(ValueError("x" * 10_000_000)), "ValueError: xxx"),
    "half a surrogate": (lambda: _raise(ValueError("caf\udce9")), "ValueError: caf\\udce9"),
    "exit": (lambda: _raise(SystemExit(3)), "SystemExit: 3"),
    "interrupt": (lambda: _raise(KeyboardInterrupt()), "KeyboardInterrupt"),
    "stopiteration": (lambda: _raise(StopIteration()), "StopIteration"),
    "generatorexit": (lambda: _raise(GeneratorExit()), "GeneratorExit"),
    "cause": (lambda: _raise(ValueError("a"), cause=UnloadableError("one", "two")), "ValueError: a"),
    "group": (lambda: _raise(ExceptionGroup("several", [ValueError("a"), TypeError()])), "several"),
    "recursion": (_recurse, "RecursionError"),
    "lock": (threading.Lock, "cannot be stored"),
    "generator": (lambda: (x for x in range(3)), "list(...)"),
    "coroutine": (_coroutine, "asyncio.run(...)"),
    "deep": (lambda: _nest(200_000), "RecursionError"),
    "fails to pickle": (lambda: Reduces(lambda: _raise(LookupError("no pickle"))), "no pickle"),
    "exits to pickle": (lambda: Reduces(lambda: _raise(SystemExit(4))), "SystemExit: 4"),
}

BAD_KINDS = {kind: text for kind, (_, text) in _BAD.items()}
"""The ways in which `misbehave` fails, and what the error of each has to tell."""


def misbehave(kind: str) -> Any:
    """Fail in one of the ways in which tasks do, or return ``kind``."""
    return _BAD[kind][0]() if kind in _BAD else kind


class Named(NamedTuple):
    """A named tuple."""

    x: int


def odd_values() -> list[Any]:
    """Return values that a careless engine might take for a failure, or change on the way."""
    import numpy as np

    odd = [None, False, math.nan, ValueError("returned"), Named(1), b"", (), np.array(3.0), np.nan]
    return [*odd, np.array([1, 2])[::-1], {1: {2}}, KeyboardInterrupt(), NotImplemented, "caf\udce9"]


def odd(number: int) -> Any:
    return odd_values()[number]


def prints(text: str) -> None:
    if text:
        sys.stdout.write(f"{text}\n")


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
