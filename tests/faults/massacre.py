"""Kill a worker that runs a task about every 100 ms, until all tasks are done all the same."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections import Counter
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from futurefarm import DataManager, run_tasks
from harness import Battery, Child, Figures, events, main, python, record, say
from peers import PEERS, farm

EVERY = 0.1
SECONDS = 0.005
DEADLINE = 400.0


def run(battery: Battery) -> Figures:
    tasks = battery.choose(200, 2000)
    executors = [battery.peer] if battery.peer else battery.choose(["loky"], ["loky", "process"])
    seen: dict[str, Any] = dict.fromkeys(["kills", "missing", "doubled", "wrong", "failed", "late"], 0)
    for executor in executors:
        place = battery.folder / executor
        place.mkdir()
        share = tasks // len(executors)
        command = python(__file__, "peer" if battery.peer else "ours", executor, share, place)
        begin = time.monotonic()
        with Child(command, DEADLINE, place, place / "stderr") as child:
            kills = massacre(battery, child, place / "log", executor)
            out = child.rest()
            seen["late"] += child.late
            if child.process.returncode:
                seen["failed"] += 1
                say((place / "stderr").read_text()[-2000:])
        seconds = time.monotonic() - begin
        say(f"{executor}: {kills} kills among {share} tasks, {seconds:.1f} s")
        results = of_peer(out) if battery.peer else list(DataManager("massacre", place).values())
        numbers = Counter(number for number, _ in results)
        seen["kills"] += kills
        seen["missing"] += sum(number not in numbers for number in range(share))
        seen["doubled"] += sum(times - 1 for times in numbers.values())
        seen["wrong"] += sum(square != number**2 for number, square in results)
    zeros = dict.fromkeys(["missing", "doubled", "wrong", "failed", "late"], "== 0")
    return Figures({"tasks": tasks, **seen}, zeros | {"kills": battery.choose(">= 5", ">= 100")})


def massacre(battery: Battery, child: Child, log: Path, name: str) -> int:
    """Kill, about every 100 ms, one of the workers that run a task; return how many were killed."""
    random = battery.random(name)
    kills = 0
    dead: set[int] = set()
    while True:
        time.sleep(EVERY * random.uniform(0.5, 1.5))
        if child.process.poll() is not None:
            return kills
        running: dict[int, str] = {}
        for event, pid in events(log):
            running[int(pid)] = event
        busy = [pid for pid, event in running.items() if event == "begin" and pid not in dead]
        if busy:
            victim = random.choice(busy)
            with suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL)
            dead.add(victim)
            kills += 1


def of_peer(out: str) -> list[tuple[int, int]]:
    return [(int(number), int(value)) for number, value in (line.split() for line in out.splitlines())]


# -- the sweep, in a process of its own


def task(log: str, number: int) -> tuple[int, int]:
    record(log, "begin", os.getpid())
    time.sleep(SECONDS)
    record(log, "end", os.getpid())
    return number, number**2


def ours(executor: str, tasks: str, place: str) -> None:
    run_tasks(
        DataManager("massacre", place),
        partial(task, f"{place}/log"),
        range(int(tasks)),
        executor,
        workers=2,
        crash_limit=1_000,
        progress=False,
    )


def theirs(peer: str, tasks: str, place: str) -> None:
    def told(number: int, error: BaseException | None, value: Any) -> None:
        if error is None:
            print(*value, flush=True)

    farm(peer, partial(task, f"{place}/log"), range(int(tasks)), told)


if __name__ == "__main__":
    if sys.argv[1:2] == ["ours"]:
        ours(*sys.argv[2:])
    elif sys.argv[1:2] == ["peer"]:
        theirs(*sys.argv[2:])
    else:
        main(run, PEERS)
