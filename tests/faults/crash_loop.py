"""Kill a sweep again and again, all of it or its parent alone, until it completes; then count.

Every life of the sweep is the same call with ``resume=True``. It is killed after a random number of tasks
that its bar has counted, or at a random moment, mostly while it starts.
"""

from __future__ import annotations

import os
import random
import sys
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

from futurefarm import DataManager, run_tasks
from harness import Battery, Child, Figures, events, main, python, record, say

LIFE = 40  # tasks that a life counts, at most, when it is killed by their number
START = 1.0  # seconds from its start, at most, when it is killed by the clock
DEADLINE = 60.0


def run(battery: Battery) -> Figures:
    loops = [
        Loop(battery, executor, mode, battery.choose(short, long))
        for mode, short, long in [("group", 6, 100), ("parent", 4, 50)]
        for executor in ["loky", "process"]
    ]
    tally: Counter[str] = Counter()
    for loop in loops:
        loop.run()
        say(loop.name, dict(loop.tally))
        tally.update(loop.tally)
    zeros = ["missing", "doubled", "acked_lost", "wrong", "orphans", "late", "failed_lives"]
    seen: dict[str, Any] = {name: tally[name] for name in ["group_kills", "parent_kills", "tasks", *zeros]}
    kills = seen["group_kills"] + seen["parent_kills"]
    seen["rerun"] = tally["rerun"]
    seen["finished_but_rerun_per_kill"] = round(tally["rerun"] / kills, 3)
    seen["slowest_orphan_s"] = round(max(loop.slowest for loop in loops), 3)
    targets = dict.fromkeys(zeros, "== 0")
    # Of 20 kills, two tasks are chance. The rate is that of the long form.
    targets["finished_but_rerun_per_kill"] = battery.choose("<= 0.2", "<= 0.05")
    targets["slowest_orphan_s"] = "<= 1.0"
    targets |= {
        "group_kills": battery.choose("== 12", "== 200"),
        "parent_kills": battery.choose("== 8", "== 100"),
    }
    return Figures(seen, targets)


class Loop:
    """Lives and deaths of sweeps on one executor."""

    def __init__(self, battery: Battery, executor: str, mode: str, kills: int) -> None:
        self.name = f"{mode}-{executor}"
        self.tally: Counter[str] = Counter()
        self.slowest = 0.0
        self._executor, self._mode, self._kills = executor, mode, kills
        self._tasks = kills * LIFE // 2
        self._random = battery.random(self.name)
        self._battery = battery

    def run(self) -> None:
        sweeps = 0
        while self.tally[f"{self._mode}_kills"] < self._kills:
            folder = self._battery.folder / f"{self.name}-{sweeps}"
            folder.mkdir()
            acked, completed = 0, False
            while not completed:
                counted, completed = self._live(folder)
                acked += counted
                stored = DataManager("sweep", folder).itemcount()
                self.tally["acked_lost"] += max(0, acked - stored)
                acked = min(acked, stored)  # what is lost counts once
            self._check(folder)
            sweeps += 1

    def _live(self, folder: Path) -> tuple[int, bool]:
        """Let the sweep live once; return what its bar counted, and whether it completed."""
        kill = self.tally[f"{self._mode}_kills"] < self._kills
        command = python(__file__, "sweep", folder, self._executor, self._tasks)
        with Child(command, DEADLINE, folder, folder / "stderr") as child:
            counted = self._strike(child) if kill else 0
            died = kill and child.process.poll() is None
            if died:
                child.kill_group() if self._mode == "group" else child.kill()
                child.wait()
                self.tally[f"{self._mode}_kills"] += 1
                seconds, left = child.until_empty(5.0)
                self.tally["orphans"] += len(left)
                self.slowest = max(self.slowest, seconds)
            counted += sum(map(int, child.rest().split()))
            self.tally["late"] += child.late
        if not died and child.process.returncode:
            self.tally["failed_lives"] += 1
            say((folder / "stderr").read_text()[-2000:])
            if self.tally["failed_lives"] > 3:
                raise RuntimeError("sweeps fail that nobody killed")
        return counted, not died and child.process.returncode == 0

    def _strike(self, child: Child) -> int:
        """Return, with what the bar has counted, at the moment of the kill."""
        if self._random.random() < 0.3:
            end_of_life(child, self._random.uniform(0, START))
            return 0
        counted, enough = 0, self._random.randint(1, LIFE)
        delay = self._random.uniform(0, 0.02)
        while counted < enough and (line := child.line()):
            counted += int(line)
        end_of_life(child, delay)
        return counted

    def _check(self, folder: Path) -> None:
        results = list(DataManager("sweep", folder).values())
        numbers = Counter(number for number, _ in results)
        ends = Counter(number for event, number in events(folder / "log") if event == "end")
        self.tally["tasks"] += self._tasks
        self.tally["missing"] += sum(number not in numbers for number in range(self._tasks))
        self.tally["doubled"] += sum(times - 1 for times in numbers.values())
        self.tally["wrong"] += sum(square != number**2 for number, square in results)
        self.tally["rerun"] += sum(times - 1 for times in ends.values())


def end_of_life(child: Child, seconds: float) -> None:
    """Let it live for some seconds more, or until it ends."""
    end = time.monotonic() + seconds
    while child.process.poll() is None and time.monotonic() < end:
        time.sleep(min(0.005, max(0.0, end - time.monotonic())))


# -- the sweep


class Told:
    """A bar that tells its reader what it counts."""

    n = 0

    def __init__(self, **_: Any) -> None:
        pass

    def update(self, number: int) -> None:
        os.write(1, f"{number}\n".encode())

    def refresh(self) -> None:
        pass

    def close(self) -> None:
        pass


def task(log: str, number: int) -> tuple[int, int]:
    record(log, "begin", number)
    time.sleep(random.Random(number).uniform(0.01, 0.03))
    record(log, "end", number)
    return number, number**2


def sweep(folder: str, executor: str, tasks: str) -> None:
    dataman = DataManager("sweep", folder)
    run_tasks(
        dataman,
        partial(task, f"{folder}/log"),
        range(int(tasks)),
        executor,
        workers=2,
        resume=True,
        progress=Told,
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["sweep"]:
        sweep(*sys.argv[2:])
    else:
        main(run)
