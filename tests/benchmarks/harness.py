"""What the cases of the benchmark share: contenders measured in turn, medians and ratios, one line of JSON.

A case is a program that names its contenders, functions that return their figures, and its targets:

    def futurefarm(bench: Bench) -> Figures:
        ...
        return {"s": seconds}

    if __name__ == "__main__":
        main([futurefarm, joblib], [Ratio("joblib's time", "joblib: s", "futurefarm: s", ">= 1.0")])

Each measurement is a fresh process in a session of its own, with a deadline. The contenders take turns, A B C
and again A B C: what disturbs the machine disturbs all of them, and a ratio is made of two of the same round.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import operator
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import psutil

from machine import stolen, used_by_others

__all__ = ["WORKERS", "Bench", "Figures", "Ratio", "Value", "WrongResultError", "expect", "main", "say"]

WORKERS = 2
"""Of every pool, ours and theirs."""

DEADLINE = 120.0
"""Seconds that one measurement may take, far above what it should."""

PR_SET_CHILD_SUBREAPER = 36

Figures = dict[str, float]
COMPARISONS = {"==": operator.eq, "<=": operator.le, ">=": operator.ge}


class WrongResultError(Exception):
    """A contender did not do what it was timed for."""


def expect(what: str, seen: Any, expected: Any) -> None:
    """Raise WrongResultError unless the two are equal."""
    if seen != expected:
        raise WrongResultError(f"{what}: {seen!r}, and had to be {expected!r}")


@dataclass(frozen=True)
class Bench:
    """How a contender is asked to run: form, number of the round, and two folders.

    ``folder`` is empty, and its own; ``shared`` is that of the case, for what is made once.
    """

    short: bool
    round: int
    folder: Path
    shared: Path

    def choose(self, short: Any, long: Any) -> Any:
        return short if self.short else long


Contender = Callable[[Bench], Figures]
Seen = dict[str, list[Figures]]
"""The figures of each contender, round by round."""


@dataclass(frozen=True)
class Value:
    """A target for a figure by itself: what it is about, ``"contender: figure"``, ``">= 2"``."""

    title: str
    figure: str
    target: str

    def names(self) -> list[str]:
        """Return the figures that it is made of."""
        return [self.figure]

    def is_known(self, rounds: Seen) -> bool:
        """Whether its contenders were asked, and could tell: one may need a tool that is not here."""
        return all(
            figure in rounds.get(contender, [{}])[0] for contender, figure in map(_split, self.names())
        )

    def seen(self, rounds: Seen) -> list[float]:
        return _figures(rounds, self.figure)

    def line(self, rounds: Seen) -> dict[str, Any]:
        values = self.seen(rounds)
        asked = {"title": self.title, "figure": self.figure, "target": self.target}
        return {**asked, **_spread(values), "met": self._met(values)}

    def _met(self, values: list[float]) -> bool:
        sign, bound = self.target.split()
        return bool(COMPARISONS[sign](median(values), float(bound)))


@dataclass(frozen=True)
class Ratio(Value):
    """A target for a figure over another one of the same round."""

    over: str

    def __init__(self, title: str, figure: str, over: str, target: str) -> None:
        super().__init__(title, figure, target)
        object.__setattr__(self, "over", over)

    def names(self) -> list[str]:
        return [self.figure, self.over]

    def seen(self, rounds: Seen) -> list[float]:
        return [one / other for one, other in zip(_figures(rounds, self.figure), _figures(rounds, self.over))]

    def line(self, rounds: Seen) -> dict[str, Any]:
        return {**super().line(rounds), "over": self.over}


def _split(name: str) -> tuple[str, str]:
    contender, _, figure = name.partition(": ")
    return contender, figure


def _figures(rounds: Seen, name: str) -> list[float]:
    contender, figure = _split(name)
    return [figures[figure] for figures in rounds[contender]]


def _spread(values: list[float]) -> dict[str, float]:
    """Return median, least and most, to four digits."""
    named = {"median": median(values), "least": min(values), "most": max(values)}
    return {name: float(f"{value:.4g}") for name, value in named.items()}


def main(
    contenders: Sequence[Contender],
    targets: Sequence[Value],
    *,
    prepare: Contender | None = None,
    rounds: int = 5,
) -> None:
    """Run a case, print its one line, and exit: 0 unless a contender broke or was wrong.

    A target that is missed is no failure: times are those of a machine, and belong to no test.

    Args:
        contenders: in the order in which they take turns; each is known by the name of its function.
        targets: what is judged.
        prepare: runs once before the rounds, to fill the folder that they share.
        rounds: how many there are in the long form; in the short form there is one.
    """
    named = {function.__name__.replace("_", " "): function for function in contenders}
    options = _options(list(named), rounds)
    if options.measure:
        function = prepare if options.measure == "prepare" else named[options.measure]
        assert function is not None
        figures = function(Bench(options.short, options.round, options.folder, options.shared))
        print(json.dumps(figures), flush=True)
        return
    chosen = [name for name in named if name in (options.contenders or named)]
    line: dict[str, Any] = {"case": Path(sys.argv[0]).stem, "title": _title()}
    line["form"] = "short" if options.short else "long"
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # children and folders are cleared away
    adopt_orphans()
    begin, before = time.monotonic(), (stolen(), used_by_others())
    line |= {"rounds": options.rounds, "load": round(os.getloadavg()[0], 2)}
    try:
        with tempfile.TemporaryDirectory(prefix="futurefarm-bench-", ignore_cleanup_errors=True) as folder:
            if prepare is not None:
                line["prepared"] = _measure("prepare", options.short, 0, Path(folder))
            seen = _rounds(chosen, options.rounds, options.short, Path(folder))
    except Exception as error:
        traceback.print_exc()
        line["error"] = f"{type(error).__name__}: {error}"
    else:
        line["figures"] = {
            name: {figure: _spread([each[figure] for each in measured]) for figure in measured[0]}
            for name, measured in seen.items()
        }
        line["targets"] = [target.line(seen) for target in targets if target.is_known(seen)]
    seconds = time.monotonic() - begin
    lost = zip(("stolen", "used by others"), before, (stolen(), used_by_others()))
    line |= {
        "seconds": round(seconds, 1),
        **{name: round(max(0.0, b - a) / seconds, 3) for name, a, b in lost},
    }
    print(json.dumps(line), flush=True)
    sys.exit(1 if "error" in line else 0)


def _title() -> str:
    """Return the first line of what the program says of itself."""
    return (sys.modules["__main__"].__doc__ or "").partition("\n")[0]


def _options(names: list[str], rounds: int) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__)
    parser.add_argument("--short", action="store_true", help="small, to see that all of it works")
    parser.add_argument("--rounds", type=int, help=f"how many (default: {rounds}, short: 1)")
    parser.add_argument("--contenders", type=lambda text: text.split(","), help=", ".join(names))
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    parser.add_argument("--round", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--shared", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if unknown := set(options.contenders or ()) - set(names):
        parser.error(f"no such contender: {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    options.rounds = options.rounds or (1 if options.short else rounds)
    return options


def _rounds(names: list[str], number: int, short: bool, folder: Path) -> Seen:
    seen: Seen = {name: [] for name in names}
    for current in range(1, number + 1):
        for name in names:
            seen[name].append(_measure(name, short, current, folder))
            say(f"round {current}, {name}: {_in_words(seen[name][-1])}")
    return seen


def _in_words(figures: Figures) -> str:
    return ", ".join(f"{name} {value:,.4g}" for name, value in figures.items())


def _measure(name: str, short: bool, number: int, shared: Path) -> Figures:
    """Run one contender in a process of its own, and leave nothing of it behind."""
    with tempfile.TemporaryDirectory(dir=shared, ignore_cleanup_errors=True) as folder:
        program = os.path.abspath(sys.argv[0])
        command = [sys.executable, program, *["--short"] * short, "--measure", name, "--round", str(number)]
        process = subprocess.Popen(
            [*command, "--folder", folder, "--shared", str(shared)],
            cwd=folder,
            env={**os.environ, "TMPDIR": folder, "PYTHONDONTWRITEBYTECODE": ""},  # as users have it
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            out, _ = process.communicate(timeout=DEADLINE)
        except subprocess.TimeoutExpired:
            raise WrongResultError(f"{name} did not end in {DEADLINE:.0f} s") from None
        finally:
            _end(process)
    try:
        figures: Figures = json.loads(out.splitlines()[-1])
    except (IndexError, json.JSONDecodeError):
        raise WrongResultError(f"{name} printed no figures, and ended with {process.returncode}") from None
    return figures


def _end(leader: subprocess.Popen[str]) -> None:
    """Kill, by id, all that a measurement has left: workers that idle would disturb the next one.

    All are waited for, as only then the system tells how much they have used.
    """
    while left := psutil.Process().children(recursive=True):
        for process in left:
            with contextlib.suppress(psutil.Error):
                process.kill()
        leader.wait()
        with contextlib.suppress(ChildProcessError):
            os.waitpid(-1, 0)


def adopt_orphans() -> None:
    """Become the parent of descendants whose parent has ended, so that none is lost sight of (Linux)."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def say(*words: object) -> None:
    """Tell whoever watches; stdout is for the one line."""
    print(*words, file=sys.stderr, flush=True)
