"""Run sweeps on a small file system until it is full, and then free space, or do not.

When it is full the sweep has to say so, begin nothing new and go on by itself once there is space, or end
with an error that names exactly the tasks that were not stored, which the next run then runs again. While it
is full, all that was acknowledged has to be readable.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from futurefarm import DataManager
from futurefarm.errors import SessionError
from harness import Battery, Child, Figures, events, main, python, say

TASKS = 40
SIZE = 2 << 20  # bytes of the file system
DEADLINE = 60.0

SWEEP = """
import json, os, sys, zlib
from pathlib import Path

import tqdm

from futurefarm import DataManager, run_tasks
from futurefarm.errors import StorageFullError
from futurefarm.farm import plan
from harness import record

folder, engine, wait, seed = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3]), int(sys.argv[4])
history = folder.parent / "events"
plan.FULL_WAIT = wait


def work(number):
    record(history, "ran", number)
    print("a task may print", number)
    return number, bytes([number]) * (20_000 + zlib.crc32(b"%d %d" % (seed, number)) % 80_000)


class Bar(tqdm.tqdm):
    def __init__(self, *args, **options):
        super().__init__(*args, **{**options, "disable": True})

    def update(self, n=1):
        record(history, "acknowledged", n)

    @classmethod
    def write(cls, text, **options):
        print("said", text, flush=True)


def main():
    options = {"workers": 2, "progress": Bar, "resume": True}
    try:
        summary = run_tasks(DataManager("farm", folder), work, range(int(sys.argv[5])), engine, **options)
    except StorageFullError as error:
        print("error", json.dumps(error.tasks), flush=True)
    else:
        print("done", summary.done, summary.skipped, summary.failed, flush=True)


if __name__ == "__main__":
    main()
"""


def run(battery: Battery) -> Figures:
    if not can_mount(battery.folder):
        if "FUTUREFARM_UNSHARED" in os.environ:
            raise RuntimeError("neither root nor a user namespace may mount a file system here")
        os.environ["FUTUREFARM_UNSHARED"] = "1"
        shutil.rmtree(battery.folder)
        os.execvp("unshare", ["unshare", "-rm", sys.executable, *sys.argv])
    program = battery.folder / "program.py"
    program.write_text(SWEEP)
    seen: Counter[str] = Counter()
    engines = battery.choose(["thread", "loky"], ["serial", "thread", "loky", "process"])
    for engine in engines:
        for number in range(battery.choose(1, 3)):
            for frees in (True, False):
                folder = battery.folder / f"{engine}-{number}-{frees}"
                folder.mkdir()
                with small_disk(folder / "disk") as disk:
                    found = Experiment(program, folder, disk, engine, battery.seed + number).run(frees)
                seen.update(found)
                say(engine, "space is freed:" if frees else "space is not freed:", dict(found))
    zero = ["lost", "wrong", "run_twice", "not_named", "silent", "stuck", "not_completed"]
    return Figures(
        {name: seen[name] for name in ("sweeps", "waited", "ended", *zero)}, dict.fromkeys(zero, "== 0")
    )


class Experiment:
    """A sweep that fills its disk."""

    def __init__(self, program: Path, folder: Path, disk: Path, engine: str, seed: int) -> None:
        self.program, self.folder, self.disk, self.engine, self.seed = program, folder, disk, engine, seed
        self.found: Counter[str] = Counter()

    def run(self, frees: bool) -> Counter[str]:
        told, last = self.sweep(wait=60.0 if frees else 1.0, on_message=self.enlarge if frees else None)
        self.found["silent"] += not told
        if frees:
            self.found["waited"] += 1
            self.found["not_completed"] += not last.startswith(f"done {TASKS} 0 0")
        else:
            self.found["ended"] += 1
            self.look_at_error(last)
            self.enlarge()
            _, last = self.sweep(wait=60.0)
            self.found["not_completed"] += not last.startswith("done")
        self.look(TASKS)
        ran = Counter(int(number) for kind, number in self.events() if kind == "ran")
        # What ended and could not be stored has to be run again, and nothing else.
        self.found["run_twice"] += sum((number not in self.again) for number, n in ran.items() if n > 1)
        return self.found

    def sweep(self, wait: float, on_message=None) -> tuple[bool, str]:  # type: ignore[no-untyped-def]
        """Run a sweep; return whether it said that the disk is full, and its last line."""
        self.found["sweeps"] += 1
        told, last = False, ""
        self.again: set[int] = getattr(self, "again", set())
        command = python(self.program, self.disk, self.engine, wait, self.seed, TASKS)
        here = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
        with Child(command, DEADLINE, PYTHONPATH=here) as child:
            while line := child.line():
                last = line
                if "said the disk is full" in line and not told:
                    told = True
                    self.look(self.acknowledged())
                    if on_message:
                        on_message()
            child.wait()
            self.found["stuck"] += child.late
        return told, last

    def look_at_error(self, line: str) -> None:
        """Compare the tasks that the error names with those that ran and are not stored."""
        kind, _, rest = line.partition(" ")
        if kind != "error":
            self.found["not_named"] += 1
            say("it ended with:", line)
            return
        self.again = set(json.loads(rest))
        ran = {int(number) for kind, number in self.events() if kind == "ran"}
        stored = {number for number, _ in self.values()}
        self.found["not_named"] += len(ran - stored - self.again) + len(stored & self.again)

    def look(self, number: int) -> None:
        """Count what is not there of what was acknowledged, or not what it should be."""
        values = self.values()
        self.found["lost"] += max(0, number - len(values))
        self.found["wrong"] += len(values) - len({value[0] for value in values})
        self.found["wrong"] += sum(set(data) != {number} for number, data in values if data)

    def values(self) -> list[tuple[int, bytes]]:
        """Return what can be read; an error comes last, and what is missing for it counts as lost."""
        values = []
        try:
            for value in DataManager("farm", self.disk).values():
                values.append(value)  # noqa: PERF402 - what was read before the error
        except SessionError as error:
            say(f"{type(error).__name__}: {error}")
        return values

    def acknowledged(self) -> int:
        return sum(int(n) for kind, n in self.events() if kind == "acknowledged")

    def events(self) -> list[list[str]]:
        return list(events(self.folder / "events"))

    def enlarge(self) -> None:
        subprocess.run(["mount", "-o", "remount,size=32m", self.disk], check=True)


def can_mount(folder: Path) -> bool:
    try:
        with small_disk(folder / "probe"):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False


@contextmanager
def small_disk(path: Path) -> Iterator[Path]:
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "none", str(path)]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", path], check=True)


if __name__ == "__main__":
    main(run)
