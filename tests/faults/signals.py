"""Send signals to sweeps whose tasks resist, and see when the program and the last of its family is gone.

A signal is sent when all workers stand in a task, to the whole group as a terminal does it, or to the parent
alone as a batch system does. The second Ctrl-C follows when the first one has been heard.
"""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from futurefarm import DataManager, StopFlag, run_tasks
from harness import Battery, Child, Figures, events, main, python, record, say, until_gone
from peers import farm

EXECUTORS = ("loky", "process", "thread", "serial")
TASKS = ("sleeps", "deaf", "family")
SIGNALS = ("INT", "INT INT", "INT INT INT", "TERM", "HUP", "KILL")
PEERS = ("loky", "stdlib", "joblib")
WORKERS, QUICK, ALL = 2, 4, 12
LIMIT = 5.0  # seconds for which a case is waited for, after its last signal
BOUND = 1.0


def run(battery: Battery) -> Figures:
    cases = list(itertools.product([battery.peer] if battery.peer else EXECUTORS, TASKS, SIGNALS))
    # A task of `serial` that ignores SIGINT has made the program itself ignore it: nobody hears Ctrl-C.
    cases = [case for case in cases if case[:2] != ("serial", "deaf") or "INT" not in case[2]]
    if battery.short:
        cases = battery.random().sample(cases, 12)
    seen: dict[str, Any] = {"cases": 0, "slowest_exit_s": 0.0, "slowest_descendant_s": 0.0, "acked_lost": 0}
    seen |= {"wrong_exit": 0, "late": 0, "unfinished": 0, "orphans_of_a_killed_program": 0}
    for number, (engine, kind, signals) in enumerate(cases):
        case = Case(battery.folder / str(number), engine, kind, signals.split(), battery.peer is not None)
        case.run()
        say(engine, kind, signals, case.figures)
        seen["cases"] += 1
        for name in ("acked_lost", "wrong_exit", "late", "unfinished", "orphans_of_a_killed_program"):
            seen[name] += case.figures.get(name, 0)
        for name in ("slowest_exit_s", "slowest_descendant_s"):
            seen[name] = max(seen[name], round(case.figures.get(name, 0.0), 3))
    targets = dict.fromkeys(["acked_lost", "wrong_exit", "late", "unfinished"], "== 0")
    targets |= {"slowest_exit_s": f"<= {BOUND}", "slowest_descendant_s": f"<= {BOUND}"}
    targets["cases"] = battery.choose("== 12", f"== {len(cases)}")
    return Figures(seen, targets)


class Case:
    """One sweep, and the signals that it gets."""

    def __init__(self, folder: Path, engine: str, kind: str, signals: list[str], peer: bool) -> None:
        self._folder, self._engine, self._kind = folder, engine, kind
        self._signals, self._peer = signals, peer
        self.figures: dict[str, Any] = {}
        folder.mkdir()
        if self._gentle:
            (folder / "gentle").touch()

    @property
    def _gentle(self) -> bool:
        return self._signals == ["INT"]

    def run(self) -> None:
        role = "peer" if self._peer else "ours"
        command = python(__file__, role, self._engine, self._kind, self._folder)
        with Child(command, 60.0, self._folder, self._folder / "stderr") as child:
            standing = 1 if self._engine == "serial" else WORKERS
            await_events(child, self._folder, "stand", standing)
            family = psutil.Process(child.pid).children(recursive=True)
            for count, name in enumerate(self._signals, 1):
                self._send(child, getattr(signal, f"SIG{name}"))
                if count < len(self._signals) and not self._peer:
                    await_events(child, self._folder, "heard", count)
            if self._gentle:
                (self._folder / "open").touch()
            self._judge(child, family)
        self._count()

    def _send(self, child: Child, number: int) -> None:
        try:
            (os.killpg if number in (signal.SIGINT, signal.SIGHUP) else os.kill)(child.pid, number)
        except ProcessLookupError:
            return

    def _judge(self, child: Child, family: list[psutil.Process]) -> None:
        begin = time.monotonic()
        while child.process.poll() is None and time.monotonic() - begin < (30.0 if self._gentle else LIMIT):
            time.sleep(0.002)
        exit_s = time.monotonic() - begin
        _, left = until_gone(family, max(0.0, LIMIT - exit_s))
        gone_s = time.monotonic() - begin
        self.figures["exit"] = child.process.poll()
        number = getattr(signal, f"SIG{self._signals[-1]}")
        expected = {0} if self._gentle else {-number, 128 + number}
        self.figures["wrong_exit"] = int(child.process.poll() not in expected)
        if self.figures["wrong_exit"]:
            say((self._folder / "stderr").read_text()[-2000:])
        self.figures["late"] = int(child.late)
        if self._gentle:
            return
        self.figures["slowest_exit_s"] = exit_s
        if self._signals == ["KILL"] and self._engine in ("thread", "serial"):
            # Nobody is left who could end what tasks in the program itself had started.
            self.figures["orphans_of_a_killed_program"] = len(left)
        else:
            self.figures["slowest_descendant_s"] = gone_s

    def _count(self) -> None:
        if self._peer:
            return
        heard = list(events(self._folder / "log"))
        acked = sum(int(words[1]) for words in heard if words[0] == "acked")
        dataman = DataManager("sweep", self._folder)
        stored = list(dataman.values())
        ended = len(stored) + len(list(dataman.failures()))  # a task that Ctrl-C struck may count as failed
        self.figures["acked_lost"] = max(0, acked - ended) + len(stored) - len(set(stored))
        if self._gentle:
            begun = {int(words[1]) for words in heard if words[0] == "stand"}
            self.figures["unfinished"] = len(begun - set(stored))


def await_events(child: Child, folder: Path, name: str, count: int) -> None:
    """Wait until so many events of a name are recorded, or the program has ended."""
    while child.process.poll() is None:
        if sum(words[0] == name for words in events(folder / "log")) >= count:
            return
        time.sleep(0.002)


# -- the sweep


class Loud(StopFlag):
    """A stop flag that records each time that it is set."""

    def __init__(self, log: str) -> None:
        super().__init__()
        self._log = log

    def set(self, reason: str = "", *, now: bool = False) -> None:
        super().set(reason, now=now)
        record(self._log, "heard", reason)


class Told:
    """A bar that records what it counts."""

    n = 0

    def __init__(self, log: str, **_: Any) -> None:
        self._log = log

    def update(self, number: int) -> None:
        record(self._log, "acked", number)

    def set_postfix(self, **_: Any) -> None:
        pass

    @staticmethod
    def write(text: str, file: Any) -> None:
        print(text, file=file)

    def refresh(self) -> None:
        pass

    def close(self) -> None:
        pass


def task(folder: str, kind: str, number: int) -> int:
    if number < QUICK:
        return number
    if kind == "deaf":
        try:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        except ValueError:
            pass  # in a thread nobody can be deaf
    if kind == "family":
        family = subprocess.Popen(
            ["sh", "-c", "trap '' INT HUP; sleep 300 & echo; wait"], stdout=subprocess.PIPE
        )
        assert family.stdout is not None
        family.stdout.readline()
    record(f"{folder}/log", "stand", number)
    deadline = time.monotonic() + 60
    while not os.path.exists(f"{folder}/open") and time.monotonic() < deadline:
        # In one piece, unless the task is to end by itself some day.
        time.sleep(0.01 if os.path.exists(f"{folder}/gentle") else 60)
    if kind == "family":
        for process in psutil.Process(family.pid).children():
            process.kill()
        family.wait()
    return number


def ours(engine: str, kind: str, folder: str) -> None:
    run_tasks(
        DataManager("sweep", folder),
        partial(task, folder, kind),
        range(ALL),
        engine,
        workers=WORKERS,
        progress=type("Bar", (Told,), {"__init__": lambda self, **kw: Told.__init__(self, f"{folder}/log")}),
        stop=Loud(f"{folder}/log"),
    )


def peer(engine: str, kind: str, folder: str) -> None:
    farm(engine, partial(task, folder, kind), range(ALL), lambda *_: None)


if __name__ == "__main__":
    if sys.argv[1:2] == ["ours"]:
        ours(*sys.argv[2:])
    elif sys.argv[1:2] == ["peer"]:
        peer(*sys.argv[2:])
    else:
        main(run, PEERS)
