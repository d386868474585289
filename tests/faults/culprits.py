"""Three of two hundred tasks kill their worker: only those may be lost, and little time."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from futurefarm import DataManager, run_tasks
from harness import Battery, Child, Figures, main, python, say
from peers import PEERS, farm

TASKS = 200
CULPRITS = {20: "SIGKILL", 77: "SIGSEGV", 150: "exit code 3"}
SECONDS = 0.02
GRACE = 10.0  # seconds, beside twice the undisturbed time
DEADLINE = 60.0


def run(battery: Battery) -> Figures:
    executors = [battery.peer] if battery.peer else battery.choose(["loky"], ["loky", "process"])
    seen: dict[str, Any] = {"tasks": TASKS, "culprits": len(CULPRITS), "wrongly_blamed": 0, "not_blamed": 0}
    seen |= {"results": TASKS, "over_time_s": 0.0}
    for executor in executors:
        undisturbed = sweep(battery, executor, "none")
        disturbed = sweep(battery, executor, "culprits")
        say(f"{executor}: {undisturbed['seconds']} s undisturbed, {disturbed['seconds']} s with culprits")
        seen[f"{executor}_undisturbed_s"] = undisturbed["seconds"]
        seen[f"{executor}_s"] = disturbed["seconds"]
        blamed = disturbed["blamed"]
        seen["wrongly_blamed"] += len(blamed - CULPRITS.keys())
        seen["not_blamed"] += len(CULPRITS.keys() - blamed)
        seen["results"] = min(seen["results"], disturbed["results"])
        over = disturbed["seconds"] - 2 * undisturbed["seconds"] - GRACE
        seen["over_time_s"] = max(seen["over_time_s"], round(over, 1))
    targets = {"wrongly_blamed": "== 0", "not_blamed": "== 0", "results": f"== {TASKS - len(CULPRITS)}"}
    return Figures(seen, {**targets, "over_time_s": "<= 0"})


def sweep(battery: Battery, executor: str, mode: str) -> dict[str, Any]:
    """Run one sweep; return how long it took, how many good results it left and whom it blames."""
    place = battery.folder / f"{executor}-{mode}"
    place.mkdir()
    command = python(__file__, "peer" if battery.peer else "ours", executor, mode, place)
    begin = time.monotonic()
    with Child(command, DEADLINE, place, place / "stderr") as child:
        out = child.rest()
        if child.process.returncode:
            say(f"exit code {child.process.returncode}", (place / "stderr").read_text()[-2000:])
    seconds = round(time.monotonic() - begin, 2)
    results, blamed = of_peer(out) if battery.peer else of_ledger(place)
    return {"seconds": seconds, "results": results, "blamed": blamed}


def of_ledger(place: Path) -> tuple[int, set[int]]:
    dataman = DataManager("culprits", place)
    results, blamed = 0, set()
    for record in dataman.records():
        if record.key is not None:
            results += dataman[record.key] == record.number**2
        elif record.status != "crashed":
            say(f"task {record.number} ended {record.status}: {record.error}")
        else:
            blamed.add(record.number)
            if CULPRITS.get(record.number, "") not in (record.error or ""):
                say(f"task {record.number}, {CULPRITS.get(record.number)}, is said to have: {record.error}")
                blamed.discard(record.number)
    return results, blamed


def of_peer(out: str) -> tuple[int, set[int]]:
    answers = [line.split() for line in out.splitlines()]
    good = sum(end == "ok" for _, end in answers)
    return good, {int(number) for number, end in answers if end != "ok"}


# -- the sweep, in a process of its own


def task(item: list[Any]) -> int:
    number, end = item
    time.sleep(SECONDS)
    if end == "SIGKILL":
        os.kill(os.getpid(), signal.SIGKILL)
    elif end == "SIGSEGV":
        ctypes.string_at(0)
    elif end:
        os._exit(3)
    return int(number) ** 2


def items_for(mode: str) -> list[list[Any]]:
    return [[number, CULPRITS.get(number) if mode == "culprits" else None] for number in range(TASKS)]


def ours(executor: str, mode: str, place: str) -> None:
    dataman = DataManager("culprits", place)
    run_tasks(dataman, task, items_for(mode), executor, workers=2, on_error="record", progress=False)


def theirs(peer: str, mode: str, _: str) -> None:
    def told(number: int, error: BaseException | None, value: Any) -> None:
        print(number, "ok" if error is None and value == number**2 else type(error).__name__, flush=True)

    farm(peer, task, items_for(mode), told)


if __name__ == "__main__":
    if sys.argv[1:2] == ["ours"]:
        ours(*sys.argv[2:])
    elif sys.argv[1:2] == ["peer"]:
        theirs(*sys.argv[2:])
    else:
        main(run, PEERS)
