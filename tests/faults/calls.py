"""Striking at one file-system call of a program, by strace, and looking at what is left on disk."""

from __future__ import annotations

import re
import shutil
import signal
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import writer
from futurefarm import DataManager
from harness import Battery, Child, events, python, say

HERE = Path(__file__).parent
T = TypeVar("T")
DEADLINE = 60.0
TASKS = 24

# fmt: off
CHANGING = [
    "openat", "write", "pwrite64", "fsync", "fdatasync", "ftruncate", "truncate", "fallocate", "fchmod",
    "rename", "renameat", "renameat2", "link", "linkat", "unlink", "unlinkat", "mkdir", "mkdirat", "rmdir",
]
LOOKING = [
    "read", "pread64", "newfstatat", "statx", "lseek", "fcntl", "flock", "getdents64", "close", "mmap",
    "ioctl",
]
# fmt: on

LINE = re.compile(r"(\d+) +(\w+)\((.*)")


@dataclass(frozen=True)
class Call:
    """A call of the first thread: its name, and that it is the ``number``-th of that name."""

    name: str
    number: int
    creates: bool


@dataclass
class Damage:
    """What is wrong with a directory, measured by what was acknowledged."""

    lost: int = 0
    wrong: int = 0
    doubled: int = 0
    error: str = ""

    def __bool__(self) -> bool:
        return bool(self.lost or self.wrong or self.doubled)


def prepare(template: Path, folder: Path) -> Path:
    """Make the folder of one run; all have paths of the same length, so that all make the same calls."""
    shutil.copytree(template, folder, copy_function=shutil.copy2)
    return folder


def trace(folder: Path, log: Path) -> list[Call]:
    """Run the writer undisturbed; return its calls that concern the folder."""
    command = ["strace", "-f", "--seccomp-bpf", "-qq", "-y", "-o", str(log)]
    command += ["-e", f"trace={','.join([*CHANGING, *LOOKING])}"]
    with Child([*command, *writing(folder)], DEADLINE) as child:
        if child.wait() != 0:
            raise RuntimeError(f"the writer ended with {child.wait()}")
    calls: list[Call] = []
    count: Counter[str] = Counter()
    first = ""
    for line in log.read_text(errors="replace").splitlines():
        if (match := LINE.match(line)) is None:
            continue
        thread, name, rest = match.groups()
        first = first or thread
        if thread != first:
            continue
        count[name] += 1
        if str(folder) in rest and f"{folder}/events" not in rest:
            calls.append(Call(name, count[name], "O_CREAT" in rest))
    return calls


def writing(folder: Path) -> list[str]:
    return python("-B", HERE / "writer.py", folder, TASKS)


@dataclass(frozen=True)
class Strike:
    """What came of it: whether it struck, whether the writer did not end in time, and its exit code."""

    struck: bool
    stuck: bool
    code: int


def strike(folder: Path, call: Call, what: str) -> Strike:
    """Run the writer and strike at a call, ``what`` as strace has it, or ``:for_ever`` from it on."""
    log = folder / "strace"
    # Without --seccomp-bpf, with which strace 6.1 strikes at nothing.
    command = ["strace", "-f", "-qq", "-y", "-o", str(log), "-e", f"trace={call.name}"]
    when = f"{call.number}{'+' if what.endswith(':for_ever') else ''}"
    command += ["-e", f"inject={call.name}:{what.removesuffix(':for_ever')}:when={when}"]
    with Child([*command, *writing(folder)], DEADLINE, stderr=folder / "complaints") as child:
        code = child.wait()
        stuck = child.late
    killed = code == -signal.SIGKILL and not stuck  # strace ends as its child did
    return Strike(killed or "(INJECTED)" in log.read_text(errors="replace"), stuck, code)


def look(folder: Path, complete: bool = False) -> Damage:
    """Compare what can be read with what was acknowledged, or with all that has to be there."""
    damage = Damage()
    tasks: set[int] = set(range(TASKS)) | set(writer.OTHER) if complete else set()
    keys: set[str] = {"first", "end", *map(str, range(writer.SHARED))} if complete else set()
    for kind, *words in events(folder / "events"):
        if kind == "tasks":
            tasks.update(map(int, words))
        else:
            keys.update(words)
    try:
        dataman = DataManager("farm", folder)
        items = list(dataman.items())
        recorded = Counter(record.number for record in dataman.records())
        if len(items) != len(dataman):
            damage.wrong += 1
    except Exception as error:
        return Damage(lost=len(tasks) + len(keys), error=f"{type(error).__name__}: {error}")
    named = {key: found for key, found in items if key.isdigit() or key in ("first", "end")}
    results = Counter(found[0] for key, found in items if key not in named)
    damage.lost += len(tasks - set(results)) + len(tasks - set(recorded)) + len(keys - set(named))
    damage.doubled += sum(n > 1 for n in results.values()) + sum(n > 1 for n in recorded.values())
    damage.wrong += sum(found != writer.value(found[0]) for key, found in items if key not in named)
    damage.wrong += sum(found != writer.value(int(key)) for key, found in named.items() if key.isdigit())
    return damage


def go_on(folder: Path) -> Damage:
    """Run the writer again, undisturbed, and see whether all is there."""
    try:
        writer.write(folder, TASKS)
    except Exception as error:
        return Damage(error=f"cannot go on: {type(error).__name__}: {error}")
    return look(folder, complete=True)


def sample(battery: Battery, calls: Sequence[T], number: int) -> list[T]:
    """Return some of the calls, evenly spread; which ones, the seed decides."""
    step = max(1.0, len(calls) / number)
    at = battery.random("sample").random() * step
    chosen = []
    while at < len(calls):
        chosen.append(calls[int(at)])
        at += step
    return chosen


def report(call: Call, what: str, damage: Damage) -> None:
    say(f"{call.name} {call.number} {what}: {damage}")
