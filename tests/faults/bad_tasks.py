"""Thirty kinds of bad tasks, each with fifty good ones beside it, on every local executor.

A bad task has to end as its kind says, and must cost no good one its result.
"""

from __future__ import annotations

import ctypes
import functools
import multiprocessing
import os
import random
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import Battery, Child, Figures, main, python, say
from peers import PEERS, farm

GOOD = 50
BAD = 10  # the place of the bad task
TIMEOUT = 2.0
DEADLINE = 40.0
EXECUTORS = ("loky", "process", "thread", "serial")
WITH_PROCESSES = ("loky", "process")


# -- the kinds


@dataclass(frozen=True)
class Kind:
    """A kind of bad task: how it must end (``a or b``), what its record must tell, and where it may run."""

    do: Callable[[Any], Any]
    ends: str
    tells: str = ""
    processes_only: bool = False


KINDS: dict[str, Kind] = {}


def kind(ends: str, tells: str = "", *, processes_only: bool = False) -> Callable[[Any], Any]:
    def add(do: Callable[[Any], Any]) -> Callable[[Any], Any]:
        KINDS[do.__name__] = Kind(do, ends, tells, processes_only)
        return do

    return add


class NeedsTwoError(Exception):
    """It pickles, and cannot be unpickled."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} {two}")


class HoldsLockError(Exception):
    def __init__(self) -> None:
        super().__init__("holds a lock")
        self.lock = threading.Lock()


class SpeechlessError(Exception):
    def __str__(self) -> str:
        raise ValueError("no text")


class Reduces:
    """Calls a function when it is pickled, or has it called when it is unpickled."""

    def __init__(self, *, when_dumped: Any = None, when_loaded: tuple[Any, ...] = ()) -> None:
        self.when_dumped, self.when_loaded = when_dumped, when_loaded

    def __reduce__(self) -> Any:
        if self.when_dumped:
            self.when_dumped()
        return self.when_loaded


def fail() -> None:
    raise ValueError("fails on purpose")


@kind("error", "ValueError: plain")
def raises(_: Any) -> None:
    raise ValueError("plain")


@kind("error", "NeedsTwoError: 1 2")
def raises_what_does_not_unpickle(_: Any) -> None:
    raise NeedsTwoError(1, 2)


@kind("error", "HoldsLockError")
def raises_what_does_not_pickle(_: Any) -> None:
    raise HoldsLockError


@kind("error", "SpeechlessError")
def raises_what_has_no_text(_: Any) -> None:
    raise SpeechlessError


@kind("error", "KeyboardInterrupt")
def raises_keyboard_interrupt(_: Any) -> None:
    raise KeyboardInterrupt


@kind("error", "SystemExit: 3")
def exits(_: Any) -> None:
    sys.exit(3)


@kind("error", "StopIteration")
def raises_stop_iteration(_: Any) -> None:
    next(iter(()))


@kind("error", "ExceptionGroup")
def raises_group_with_causes(_: Any) -> None:
    try:
        fail()
    except ValueError as error:
        raise ExceptionGroup("several", [error, NeedsTwoError(1, 2)]) from HoldsLockError()


@kind("error", "BrokenProcessPool")
def raises_an_error_of_the_engine(_: Any) -> None:
    raise BrokenProcessPool("not true")


@kind("error", "RecursionError")
def recurses(_: Any) -> None:
    recurses(_)


@kind("error", "MemoryError")
def wants_all_memory(_: Any) -> None:
    bytearray(1 << 60)


@kind("error", "lock")
def returns_a_lock(_: Any) -> Any:
    return threading.Lock()


@kind("error", "list(...)")
def returns_a_generator(_: Any) -> Any:
    return (number for number in range(3))


@kind("ok")
def returns_what_does_not_unpickle(_: Any) -> Any:
    return Reduces(when_loaded=(fail, ()))


@kind("error", "fails on purpose")
def returns_what_does_not_pickle(_: Any) -> Any:
    return Reduces(when_dumped=fail)


@kind("error", "RecursionError")
def returns_a_deep_nest(_: Any) -> Any:
    nest: list[Any] = []
    for _number in range(200_000):
        nest = [nest]
    return nest


@kind("error", "fails on purpose")
def argument_does_not_pickle(_: Any) -> None:
    return None


@kind("error", "fails on purpose")
def argument_does_not_unpickle(_: Any) -> None:
    return None


@kind("ok")
def changes_the_surroundings(_: Any) -> int:
    os.chdir("/")
    os.environ["HOME"] = "/nowhere"
    random.seed(0)
    os.umask(0o777)
    print("printed")
    os.write(1, b"written\n")
    sys.stdout = None  # type: ignore[assignment]
    return 1


@kind("ok")
def runs_a_pool_of_its_own(_: Any) -> int:
    context = multiprocessing.get_context("forkserver")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(abs, -1).result()


@kind("crashed", "SIGKILL", processes_only=True)
def is_killed(_: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@kind("crashed", "SIGSEGV", processes_only=True)
def has_a_segmentation_fault(_: Any) -> None:
    ctypes.string_at(0)


@kind("crashed", "SIGTERM", processes_only=True)
def is_terminated(_: Any) -> None:
    os.kill(os.getpid(), signal.SIGTERM)


@kind("crashed", "exit code 0", processes_only=True)
def leaves(_: Any) -> None:
    os._exit(0)


@kind("crashed", processes_only=True)
def dies_pickling_its_result(_: Any) -> Any:
    return Reduces(when_dumped=functools.partial(os._exit, 9))


@kind("crashed", processes_only=True)
def argument_ends_the_process(_: Any) -> None:
    return None


@kind("ok or crashed", processes_only=True)  # its result may be stored before the worker is lost
def closes_all_files(_: Any) -> int:
    os.closerange(3, 1024)
    return 1


@kind("ok", processes_only=True)
def forks_and_the_child_returns(_: Any) -> str:
    child = os.fork()
    if child:
        os.waitpid(child, 0)
    return "parent" if child else "child"


@kind("timeout", processes_only=True)
def hangs_with_the_interpreter_locked(_: Any) -> None:
    ctypes.PyDLL(None).sleep(3600)


@kind("timeout", processes_only=True)
def is_stopped(_: Any) -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


ARGUMENTS = {
    "argument_does_not_pickle": Reduces(when_dumped=fail),
    "argument_does_not_unpickle": Reduces(when_loaded=(fail, ())),
    "argument_ends_the_process": Reduces(when_loaded=(os._exit, (5,))),
}


def task(item: tuple[str, Any]) -> Any:
    name, argument = item
    if name != "good":
        return KINDS[name].do(argument)
    time.sleep(0.002)
    return name, argument


def items_for(name: str) -> list[list[Any]]:
    """Fifty good items and a bad one among them; lists, because a tuple would become several arguments."""
    items: list[list[Any]] = [["good", number] for number in range(GOOD)]
    items.insert(BAD, [name, ARGUMENTS.get(name)])
    return items


# -- the judge


@dataclass(frozen=True)
class Verdict:
    as_it_should: bool
    good_lost: int
    hung: bool
    seen: str


def run(battery: Battery) -> Figures:
    executors = [battery.peer] if battery.peer else list(EXECUTORS)
    cases = [
        (executor, name)
        for executor in executors
        for name, kind in KINDS.items()
        if battery.peer or executor in WITH_PROCESSES or not kind.processes_only
    ]
    if battery.short:  # each executor with every fourth kind, so that each kind has its turn
        cases = cases[:: 4 if not battery.peer else 1]
    with ThreadPoolExecutor(2) as both_cores:
        verdicts = list(both_cores.map(lambda case: judge(battery.folder, battery.peer, *case), cases))
    bad = Counter[str]()
    for (executor, name), verdict in zip(cases, verdicts):
        if not verdict.as_it_should:
            bad[executor] += 1
        if not verdict.as_it_should or verdict.good_lost or verdict.hung:
            say(f"{executor}, {name}: {verdict.seen}")
    seen = {
        "kinds": len({name for _, name in cases}),
        "cases": len(cases),
        "as_they_should": sum(verdict.as_it_should for verdict in verdicts),
        "not_as_they_should": sum(bad.values()),
        "confined": sum(v.as_it_should and not v.good_lost and not v.hung for v in verdicts),
        "good_lost": sum(verdict.good_lost for verdict in verdicts),
        "hung": sum(verdict.hung for verdict in verdicts),
    }
    targets = {"not_as_they_should": "== 0", "good_lost": "== 0", "hung": "== 0"}
    if not battery.short:
        targets["kinds"] = ">= 30"
    return Figures(seen, targets)


def judge(folder: Path, peer: str | None, executor: str, name: str) -> Verdict:
    """Run one kind on one executor in a process of its own, and look at what is left."""
    place = folder / f"{executor}-{name}"
    place.mkdir()
    command = python(__file__, "peer" if peer else "ours", executor, name, place)
    with Child(command, DEADLINE, place, place / "stderr") as child:
        out = child.rest()
        complaints = (place / "stderr").read_text()[-1500:]
        end = f"exit code {child.process.returncode}"
        hung = child.late
    answers = of_peer(out) if peer else of_ledger(place)
    good_lost = sum(answers.get(number) != ("ok", "") for number in range(GOOD + 1) if number != BAD)
    status, error = answers.get(BAD, ("nothing", ""))
    expected = KINDS[name]
    if peer:
        right = status in {"ok" if end == "ok" else "error" for end in expected.ends.split(" or ")}
        complaints = ""
    else:
        right = status in expected.ends.split(" or ") and expected.tells in error and end == "exit code 0"
    seen = f"ended {status} ({error[:200]}), {good_lost} good ones lost{', HUNG' if hung else ''}, {end}"
    return Verdict(right, good_lost, hung, seen if right and not hung else f"{seen}\n{complaints}")


def of_ledger(place: Path) -> dict[int, tuple[str, str]]:
    """Return how each task ended in the end, and what its record tells; results of good ones are read."""
    from futurefarm import DataManager

    dataman = DataManager("bad", place)
    answers = {}
    for record in dataman.records():
        status = record.status
        if status == "ok" and record.number != BAD:
            assert record.key is not None
            value = dataman[record.key]
            if value != ("good", record.number - (record.number > BAD)):
                status = f"wrong: {value!r}"
        answers[record.number] = status, record.error or ""
    return answers


def of_peer(out: str) -> dict[int, tuple[str, str]]:
    lines = [line.split(" ", 2) for line in out.splitlines() if line.startswith("answer ")]
    return {int(number): tuple(rest.split(" ", 1)) for _, number, rest in lines}  # type: ignore[misc]


# -- the sweep, in a process of its own


def ours(executor: str, name: str, place: str) -> None:
    from futurefarm import DataManager, run_tasks

    dataman = DataManager("bad", place)
    run_tasks(
        dataman,
        task,
        items_for(name),
        executor,
        workers=2,
        timeout=TIMEOUT if KINDS[name].ends == "timeout" else None,
        on_error="record",
        progress=False,
    )


def theirs(peer: str, name: str, _: str) -> None:
    line = os.dup(1)  # some tasks write to where peers print

    def told(number: int, error: BaseException | None, value: Any) -> None:
        if error is not None:
            answer = f"error {type(error).__name__}"
        elif number != BAD and value != ("good", number - (number > BAD)):
            answer = "wrong value"
        else:
            answer = "wrong child" if value == "child" else "ok "
        os.write(line, f"answer {number} {answer}\n".encode())

    farm(peer, task, items_for(name), told, TIMEOUT if KINDS[name].ends == "timeout" else None)


if __name__ == "__main__":
    if sys.argv[1:2] == ["ours"]:
        ours(*sys.argv[2:])
    elif sys.argv[1:2] == ["peer"]:
        theirs(*sys.argv[2:])
    else:
        main(run, PEERS)
