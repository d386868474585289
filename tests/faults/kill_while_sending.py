"""Kill a worker while it hands over a large result, as an out-of-memory killer likes to do.

A pool that moves results through a pipe may wait for ever for the rest of one.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from shutil import rmtree
from typing import Any

from futurefarm import DataManager, run_tasks
from harness import Battery, Child, Figures, events, main, python, record, say
from peers import farm

SMALL = 20  # tasks beside the large one
SENDING = 0.001  # seconds for a megabyte, at most
PATIENCE = 15.0  # seconds without an answer that make a hang
DEADLINE = 60.0


def run(battery: Battery) -> Figures:
    megabytes, kills = battery.choose(100, 300), battery.choose(4, 50)
    random = battery.random()
    delays = [random.uniform(0.0, SENDING * megabytes) for _ in range(kills)]

    def kill_one(number: int) -> Kill:
        executor = battery.peer or ("loky", "process")[number % 2]
        place = battery.folder / str(number)
        place.mkdir()
        kill = Kill(place, battery.peer, executor, megabytes, delays[number])
        sent = f"{delays[number]:.2f} s of sending"
        say(f"{executor}: killed after {sent}, {kill.end} {kill.seconds:.2f} s later")
        rmtree(place)
        return kill

    with ThreadPoolExecutor(2) as both_cores:
        done = list(both_cores.map(kill_one, range(kills)))
    ends = Counter(kill.end for kill in done)
    slowest = max(kill.seconds for kill in done)
    lost = sum(SMALL - kill.small for kill in done)
    seen = {"megabytes": megabytes, "kills": kills - ends["too late"], "too_late": ends["too late"]}
    seen |= {
        "hangs": ends["hang"],
        "wrong": ends["wrong"],
        "small_lost": lost,
        "slowest_s": round(slowest, 2),
    }
    targets = {"hangs": "== 0", "wrong": "== 0", "small_lost": "== 0", "slowest_s": "<= 2.5"}
    return Figures(seen, targets)


class Kill:
    """One kill: how the large task ended, and how many seconds later; how many small ones went well."""

    def __init__(self, place: Path, peer: str | None, executor: str, megabytes: int, delay: float) -> None:
        command = python(__file__, "peer" if peer else "ours", executor, megabytes, place)
        with Child(command, DEADLINE, place, place / "stderr") as child:
            answers = Answers(child)
            pid = self._sender(child, place)
            answers.large.wait(delay)
            self.end = "too late" if answers.large.is_set() else "killed"
            os.kill(pid, signal.SIGKILL)
            begin = time.monotonic()
            if not answers.large.wait(PATIENCE):
                self.end = "hang"
            self.seconds = time.monotonic() - begin
            if self.end != "hang":
                answers.join()
                if child.wait():
                    say((place / "stderr").read_text()[-2000:])
        self.small = answers.small
        if not peer and self.end != "hang":
            self._look(place, megabytes)

    def _sender(self, child: Child, place: Path) -> int:
        while child.process.poll() is None:
            for _, pid in events(place / "log"):
                return int(pid)
            time.sleep(0.002)
        raise RuntimeError(f"it ended before it sent: {(place / 'stderr').read_text()[-2000:]}")

    def _look(self, place: Path, megabytes: int) -> None:
        """Compare what is stored with what was answered."""
        dataman = DataManager("sending", place)
        records = {record.number: record for record in dataman.records()}
        large = records[0]
        good = [records[n] for n in range(1, SMALL + 1) if n in records and records[n].status == "ok"]
        self.small = sum(dataman[record.key] == record.number for record in good if record.key)
        if large.status == "ok":  # it was killed after it had committed, or while it waited for the next
            assert large.key is not None
            whole = len(dataman[large.key]) == megabytes << 20
            self.end = self.end if whole else "wrong"
        elif large.status != "crashed":
            self.end = "wrong"


class Answers(threading.Thread):
    """Reads what a child tells: a line with number and end for each answer."""

    def __init__(self, child: Child) -> None:
        super().__init__(daemon=True)
        self._child = child
        self.large = threading.Event()
        self.small = 0
        self.start()

    def run(self) -> None:
        number = 0
        while line := self._child.line():
            number += 1
            place, end = line.split()
            self.small += place != "0" and end == "ok"
            if place == "0" or number == SMALL + 1:
                self.large.set()
        self.large.set()


# -- the sweep, in a process of its own


def task(item: Any) -> Any:
    if isinstance(item, int):
        return item
    log, megabytes = item
    value = os.urandom(1 << 20) * megabytes
    record(log, "sending", os.getpid())
    return value


class Told:
    """A bar that tells its reader what it counts. It does not know the tasks; the last is the large one."""

    n = 0

    def __init__(self, **_: Any) -> None:
        pass

    def update(self, number: int) -> None:
        os.write(1, b"? counted\n" * number)

    def set_postfix(self, **_: Any) -> None:
        pass

    def refresh(self) -> None:
        pass

    def close(self) -> None:
        pass


def items_for(megabytes: str, place: str) -> list[Any]:
    return [[f"{place}/log", int(megabytes)], *range(1, SMALL + 1)]


def ours(executor: str, megabytes: str, place: str) -> None:
    run_tasks(
        DataManager("sending", place),
        task,
        items_for(megabytes, place),
        executor,
        workers=2,
        crash_limit=1,
        on_error="record",
        progress=Told,
    )


def theirs(peer: str, megabytes: str, place: str) -> None:
    def told(number: int, error: BaseException | None, value: Any) -> None:
        os.write(1, f"{number} {type(error).__name__ if error else 'ok'}\n".encode())

    farm(peer, task, items_for(megabytes, place), told)


if __name__ == "__main__":
    if sys.argv[1:2] == ["ours"]:
        ours(*sys.argv[2:])
    elif sys.argv[1:2] == ["peer"]:
        theirs(*sys.argv[2:])
    else:
        main(run, ["loky", "stdlib"])
