"""100,000 tasks on loky and on threads, then hundreds of sweeps in one process: nothing grows with time.

A child farms tasks that a generator makes; some fail, some print, a few kill their worker. It is looked at
from outside, whenever it has finished a part: memory of the parent and of its workers, descriptors, threads,
processes, temporary files, semaphores in /dev/shm, files in the directory. It waits meanwhile: else the last
look would find it leaving, with two threads more for each worker that it ends. What may grow, and by how
much, is in `TARGETS`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import tqdm

from futurefarm import DataManager, run_tasks
from harness import Battery, Child, Figures, main, python, say, until_gone

DEADLINE = 400.0
PARTS = 40
WARM = PARTS // 4  # parts after which all caches are full

# The parent remembers 6 bytes of each task, which with Python's own needs is some 11; everybody else
# remembers nothing. What a figure of memory cannot tell from noise is in its bound. What is in flight grows
# until chunks are as large as they get, which takes 16,000 tasks.
TARGETS = {
    "parent_bytes_per_task": "<= 100",
    "worker_bytes_per_task": "<= 100",
    "bytes_per_sweep": "<= 40000",
    "files_per_session": "<= 3",  # the session itself, its lock, and the note beside that
} | dict.fromkeys(
    (
        "descriptors",
        "threads",
        "processes",
        "semaphores",
        "temporary_files",
        "left_processes",
        "left_semaphores",
        "left_temporary_files",
        "left_in_the_directory",
        "not_done",
    ),
    "== 0",
)


# -- what runs in the child


def task(number: int, warm: int, crashes: bool) -> tuple[int, bytes]:
    """Fail, print, kill the worker; the first results are large ones, which fill the caches of SQLite.

    Workers are killed early: those that take their place have caches of 16 MB to fill, too.
    """
    if number % 1000 == 0:
        raise ValueError(number)
    if number % 100 == 0:
        print("task", number)
    if crashes and number < warm // 2 and number % (warm // 8) == 500:
        os.kill(os.getpid(), signal.SIGKILL)
    return number, bytes(20_000 if number < warm else 10)


class Bar(tqdm.tqdm):  # type: ignore[type-arg]
    """Tells of each part that is done; shows nothing."""

    part = 1

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{**options, "disable": True})
        self.counted = 0

    def update(self, n: float | None = 1) -> bool | None:
        before, self.counted = self.counted, self.counted + int(n or 0)
        if before // self.part < self.counted // self.part:
            tell(self.counted)
        return None


def tell(number: int) -> None:
    """Tell how much is done, and wait until that was looked at."""
    with open(os.environ["LOOKED"], "rb", buffering=0) as looked:
        print(number, flush=True)
        looked.read(1)


def sweep(folder: str, engine: str, tasks: int) -> None:
    Bar.part = tasks // PARTS
    warm = min(tasks // PARTS * WARM, 10_000)
    items = ((number, warm, engine != "thread") for number in range(tasks))
    summary = run_tasks(
        DataManager.at(folder), task, items, engine, workers=2, on_error="record", crash_limit=1, progress=Bar
    )
    tell(summary.done + summary.failed)


def sweeps(folder: str, engine: str, number: int) -> None:
    dataman = DataManager.at(folder)
    part = max(1, number // PARTS)
    for done in range(1, number + 1):
        run_tasks(dataman, abs, range(20), engine, workers=2, progress=False)
        if done % part == 0:
            tell(done)
    tell(number)


# -- looking at it from outside


class Look(NamedTuple):
    """What was seen when so many tasks, or sweeps, were done."""

    done: int
    parent: int
    worker: int
    descriptors: int
    threads: int
    processes: int
    semaphores: int
    temporary_files: int
    files: int

    @classmethod
    def at(cls, done: int, parent: psutil.Process, folder: Path, temporary: Path) -> Look:
        family = [parent, *parent.children(recursive=True)]
        memory, descriptors, threads = [], 0, 0
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                memory.append(process.memory_info().rss)
                descriptors += process.num_fds()
                threads += process.num_threads()
        return cls(
            done,
            memory[0],
            max(memory[1:], default=0),
            descriptors,
            threads,
            len(family),
            semaphores(parent.pid),
            files(temporary),
            files(folder),
        )


def semaphores(pid: int) -> int:
    """Return how many there are of a process; loky has its id in their names."""
    return sum(f"-{pid}-" in name for name in os.listdir("/dev/shm"))


def files(folder: Path) -> int:
    return sum(len(names) for _, _, names in os.walk(folder))


def look_at(battery: Battery, what: str, engine: str, number: int) -> tuple[list[Look], dict[str, int]]:
    """Run a child and look at it at each part; return that, and what it left behind."""
    folder = battery.folder / f"{what}-{engine}.data"
    temporary = battery.folder / f"{what}-{engine}.tmp"
    folder.mkdir()
    temporary.mkdir()
    looked = battery.folder / f"{what}-{engine}.looked"
    os.mkfifo(looked)
    looks = []
    command = python(__file__, what, folder, engine, number)
    with (
        open(looked, "r+b", buffering=0) as go_on,  # to read, too: so it opens, and can be written to, alone
        Child(command, DEADLINE, TMPDIR=str(temporary), LOOKED=str(looked)) as child,
    ):
        parent = psutil.Process(child.pid)
        while line := child.line():
            looks.append(Look.at(int(line), parent, folder, temporary))
            go_on.write(b".")
        family = child.members()
        left = len(until_gone(family, 2.0)[1])
    farm = folder / ".farm"
    in_directory = [*farm.glob("stop*"), *farm.glob("workers/*"), *farm.glob("draft*"), *folder.glob("*-wal")]
    say(f"{what} on {engine}:", *looks[-2:-1])
    return looks, {
        "left_processes": left,
        "left_semaphores": semaphores(child.pid),
        "left_temporary_files": files(temporary),
        "left_in_the_directory": len(in_directory),
        "not_done": number - looks[-1].done,
    }


def slope(looks: list[Look], name: str) -> float:
    """Return by how much a figure grows with each task: least squares, over what came after the warm-up."""
    points = [(look.done, getattr(look, name)) for look in looks[:-1]][WARM:]
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / spread


def growth(looks: list[Look], name: str) -> int:
    """Return by how much the most of the last quarter is above the most of an earlier one."""
    values = [getattr(look, name) for look in looks[:-1]]
    return int(max(0, max(values[-WARM:]) - max(values[WARM : 2 * WARM])))


def program(battery: Battery) -> Figures:
    seen: dict[str, Any] = dict.fromkeys(TARGETS, 0)
    runs = [("sweep", engine, battery.choose(80_000, 100_000)) for engine in ("loky", "thread")]
    runs += [("sweeps", "thread", battery.choose(80, 200)), ("sweeps", "loky", battery.choose(0, 40))]
    for what, engine, number in runs:
        if not number:
            continue
        looks, left = look_at(battery, what, engine, number)
        figures: dict[str, float] = dict(left)
        if what == "sweep":
            figures["parent_bytes_per_task"] = slope(looks, "parent")
            figures["worker_bytes_per_task"] = slope(looks, "worker")
        else:
            figures["bytes_per_sweep"] = slope(looks, "parent")
            sessions = 1 if engine == "thread" else 2  # processes have one each
            figures["files_per_session"] = slope(looks, "files") / sessions
        for name in ("descriptors", "threads", "processes", "semaphores", "temporary_files"):
            figures[name] = growth(looks, name)
        say(f"{what} on {engine}: {figures}")
        for name, value in figures.items():  # the worst of all runs
            seen[name] = max(seen[name], round(value, 2))
    return Figures({"tasks": sum(n for what, _, n in runs if what == "sweep"), **seen}, TARGETS)


if __name__ == "__main__":
    if sys.argv[1:2] == ["sweep"]:
        sweep(sys.argv[2], sys.argv[3], int(sys.argv[4]))
    elif sys.argv[1:2] == ["sweeps"]:
        sweeps(sys.argv[2], sys.argv[3], int(sys.argv[4]))
    else:
        main(program)
