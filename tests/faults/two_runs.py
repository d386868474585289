"""Let four sweeps run in one directory at the same time, kill one of them at random, and see who did what.

All make the same call with ``resume=True``. Each task records when it begins and ends, and where. Nothing may
run twice while the sweep that ran it first lives; what the killed one had begun has to go on elsewhere.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections import Counter, defaultdict
from functools import partial
from pathlib import Path
from typing import Any

from futurefarm import DataManager, run_tasks
from harness import Battery, Child, Figures, events, main, python, record, say

RUNS = 4
DEADLINE = 90.0
SECONDS = 0.03


def run(battery: Battery) -> Figures:
    rounds, tasks = battery.choose((1, 200), (5, 400))
    zeros = ["twice_while_alive", "missing", "doubled", "failed", "late"]
    seen: dict[str, Any] = {"rounds": rounds, "tasks": rounds * tasks, "kills": 0}
    seen |= dict.fromkeys(zeros, 0) | {"rerun": 0, "slowest_takeover_s": 0.0}
    for number in range(rounds):
        folder = battery.folder / str(number)
        folder.mkdir()
        executor = ("loky", "process")[number % 2]
        contest = Contest(battery, folder, executor, tasks)
        contest.run()
        say(executor, dict(contest.tally), f"takeover {contest.takeover:.2f} s")
        for name in (*zeros, "kills", "rerun"):
            seen[name] += contest.tally[name]
        seen["slowest_takeover_s"] = max(seen["slowest_takeover_s"], round(contest.takeover, 3))
    targets = dict.fromkeys(zeros, "== 0") | {"slowest_takeover_s": "<= 2.0", "kills": f"== {rounds}"}
    return Figures(seen, targets)


class Contest:
    """Sweeps that do the same, and what came of it."""

    def __init__(self, battery: Battery, folder: Path, executor: str, tasks: int) -> None:
        self._random = battery.random(folder.name)
        self._folder, self._executor, self._tasks = folder, executor, tasks
        self.tally: Counter[str] = Counter()
        self.takeover = 0.0

    def run(self) -> None:
        command = python(__file__, "sweep", self._folder, self._executor, self._tasks)
        with contextlib.ExitStack() as stack:
            runs = [
                stack.enter_context(Child(command, DEADLINE, self._folder, self._folder / "stderr"))
                for _ in range(RUNS)
            ]
            victim = self._victim(runs)
            died = time.monotonic()
            victim.kill()
            victim.wait()
            self.tally["kills"] += 1
            for child in runs:
                child.wait()
                self.tally["late"] += child.late
                self.tally["failed"] += child is not victim and child.process.returncode != 0
        if self.tally["failed"]:
            say((self._folder / "stderr").read_text()[-3000:])
        self._check(victim.pid, died)

    def _victim(self, runs: list[Child]) -> Child:
        """Return the one to kill, when some share of the tasks is done and it has a part in it."""
        share = self._random.uniform(0.2, 0.6) * self._tasks
        victim = self._random.choice(runs)
        while True:
            begun = [words for words in events(self._folder / "log") if words[0] == "begin"]
            if len(begun) >= share and any(int(words[2]) == victim.pid for words in begun):
                return victim
            if victim.process.poll() is not None:
                raise RuntimeError((self._folder / "stderr").read_text()[-3000:])
            time.sleep(0.005)

    def _check(self, victim: int, died: float) -> None:
        runs = defaultdict(list)  # of each task: run, begin, end
        for event, number, of, at in events(self._folder / "log"):
            if event == "begin":
                runs[int(number)].append([int(of), float(at), None])
            else:
                next(r for r in reversed(runs[int(number)]) if r[0] == int(of))[2] = float(at)
        for times in runs.values():
            first, *again = sorted(times, key=lambda r: r[1])
            for later in again:
                self.tally["rerun"] += 1
                if first[0] != victim or later[1] < died:
                    self.tally["twice_while_alive"] += 1
        left = [times for times in runs.values() if min(times, key=lambda r: r[1])[0] == victim]
        began = [min(r[1] for r in times if r[0] != victim) - died for times in left if len(times) > 1]
        self.takeover = max(began, default=0.0)
        results = Counter(DataManager("shared", self._folder).values())
        self.tally["missing"] += sum(number not in results for number in range(self._tasks))
        self.tally["doubled"] += sum(times - 1 for times in results.values())


# -- the sweep


def task(log: str, number: int) -> int:
    of = os.environ["RUN"]
    record(log, "begin", number, of, time.monotonic())
    time.sleep(SECONDS)
    record(log, "end", number, of, time.monotonic())
    return number


def sweep(folder: str, executor: str, tasks: str) -> None:
    os.environ["RUN"] = str(os.getpid())  # no argument: all runs make the same call
    run_tasks(
        DataManager("shared", folder),
        partial(task, f"{folder}/log"),
        range(int(tasks)),
        executor,
        workers=1,
        resume=True,
        progress=False,
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["sweep"]:
        sweep(*sys.argv[2:])
    else:
        main(run)
