"""What the programs of the fault battery share: one line of JSON, children with a deadline, events on disk.

A program is a function that returns its figures and their targets, and `main` does the rest:

    def run(battery: Battery) -> Figures:
        ...
        return Figures({"lost": lost, "kills": 20}, {"lost": "== 0"})

    if __name__ == "__main__":
        main(run)
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import operator
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

__all__ = [
    "Battery",
    "Child",
    "Figures",
    "adopt_orphans",
    "events",
    "kill_descendants",
    "main",
    "python",
    "record",
    "say",
    "until_gone",
]

PR_SET_CHILD_SUBREAPER = 36
COMPARISONS = {"==": operator.eq, "<=": operator.le, ">=": operator.ge}


@dataclass(frozen=True)
class Battery:
    """How a program is asked to run: form, seed, an empty folder of its own, and the peer, None for ours."""

    short: bool
    seed: int
    folder: Path
    peer: str | None

    def choose(self, short: Any, long: Any) -> Any:
        return short if self.short else long

    def random(self, name: object = "") -> random.Random:
        """Return a random generator that gives the same numbers for the same seed and name."""
        return random.Random(f"{self.seed} {name}")


@dataclass(frozen=True)
class Figures:
    """What was seen, and what it had to be: ``{"lost": "== 0", "points": ">= 300"}``."""

    seen: dict[str, Any]
    targets: dict[str, str]

    def missed(self) -> list[str]:
        """Return the names of the targets that were missed."""
        return [name for name, target in self.targets.items() if not _holds(self.seen[name], target)]


def _holds(value: Any, target: str) -> bool:
    sign, bound = target.split()
    return value is not None and bool(COMPARISONS[sign](value, float(bound)))


def main(run: Callable[[Battery], Figures], peers: Sequence[str] = ()) -> None:
    """Run a program of the battery, print its one line, and exit: 0 if all targets were met."""
    program = Path(sys.argv[0]).stem
    parser = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__)
    parser.add_argument("--short", action="store_true", help="a sample, for every change")
    parser.add_argument("--seed", type=int, default=1, help="of all that is random (default: 1)")
    parser.add_argument("--peer", choices=peers or None, help="what to run instead of futurefarm")
    options = parser.parse_args()
    line: dict[str, Any] = {"program": program, "form": "short" if options.short else "long"}
    line |= {"seed": options.seed} | ({"peer": options.peer} if options.peer else {})
    begin = time.monotonic()
    adopt_orphans()
    hear_signals()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # children and folders are cleared away
    try:
        with tempfile.TemporaryDirectory(prefix=f"futurefarm-{program}-") as folder:
            battery = Battery(options.short, options.seed, Path(folder), options.peer)
            try:
                figures = run(battery)
            finally:
                kill_descendants()
    except Exception as error:
        traceback.print_exc()
        line |= {"error": f"{type(error).__name__}: {error}", "targets": {}, "passed": False}
    else:
        missed = figures.missed()
        line |= {**figures.seen, "targets": figures.targets, "passed": not missed}
        for name in missed:
            say(f"missed: {name} was {figures.seen[name]} and had to be {figures.targets[name]}")
    line["seconds"] = round(time.monotonic() - begin, 1)
    print(json.dumps(line), flush=True)
    sys.exit(0 if line["passed"] else 1)


def hear_signals() -> None:
    """Ignore no signal, even if we were started so (`nohup`, a background job): children inherit it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


def say(*words: object) -> None:
    """Tell whoever watches; stdout is for the one line."""
    print(*words, file=sys.stderr, flush=True)


def python(*arguments: object) -> list[str]:
    """Return the command that runs this Python, with warnings shown."""
    return [sys.executable, *map(str, arguments)]


class Child:
    """A program in a session of its own, ended with all that it started: at a deadline, or with the block.

    Its stdout is read by `line` and `rest`; its stderr goes to ours, or to the file ``stderr``.

    Args:
        command: what to run; `python` helps.
        deadline: seconds after which it is ended, and `late` says so. Python then prints where it was.
        folder: where it runs.
        stderr: a path, for a child whose complaints belong to the experiment.
    """

    def __init__(
        self,
        command: Sequence[str],
        deadline: float,
        folder: Path | None = None,
        stderr: Path | None = None,
        **environment: str,
    ) -> None:
        self.late = False
        with contextlib.ExitStack() as files:
            errors = files.enter_context(open(stderr, "ab")) if stderr else None
            self.process = subprocess.Popen(
                command,
                cwd=folder,
                env={**os.environ, "PYTHONFAULTHANDLER": "1", **environment},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,
            )
        self.pid = self.process.pid
        self._timer = threading.Timer(deadline, self._deadline)
        self._timer.daemon = True
        self._timer.start()

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        self.kill_all()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def _deadline(self) -> None:
        self.late = True
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGABRT)  # faulthandler shows where it hangs
        self.until_empty(1.0)
        self.kill_all()

    def line(self) -> str:
        """Return the next line that it prints, or nothing when it has ended."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().rstrip("\n")

    def rest(self) -> str:
        """Return all that it still prints, until it has ended."""
        assert self.process.stdout is not None
        text = self.process.stdout.read()
        self.process.wait()
        return text

    def wait(self) -> int:
        """Wait until it has ended, at the latest by its deadline; return its exit code."""
        return self.process.wait()

    def members(self) -> list[psutil.Process]:
        """Return the living processes of its session: itself and what it started, orphans among them."""
        found = []
        for name in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
                if os.getsid(int(name)) == self.pid and _lives(process := psutil.Process(int(name))):
                    found.append(process)
        return found

    def until_empty(self, seconds: float) -> tuple[float, list[psutil.Process]]:
        """Wait until its session has no process left; return how long that took and who is left."""
        begin = time.monotonic()
        while (left := self.members()) and time.monotonic() - begin < seconds:
            until_gone(left, begin + seconds - time.monotonic())
        return time.monotonic() - begin, left

    def kill(self) -> None:
        """Kill it alone, as an out-of-memory killer would."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def kill_group(self) -> None:
        """Kill its whole process group at once, as a batch system would."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    def kill_all(self) -> None:
        """Kill all of its session, one by one where a group does not reach."""
        self.kill_group()
        for process in self.members():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()


def until_gone(processes: Iterable[psutil.Process], seconds: float) -> tuple[float, list[psutil.Process]]:
    """Wait until the processes are gone, or the time is up; return how long it took and who is left."""
    begin = time.monotonic()
    left = [process for process in processes if _lives(process)]
    while left and time.monotonic() - begin < seconds:
        time.sleep(0.002)
        left = [process for process in left if _lives(process)]
    return time.monotonic() - begin, left


def _lives(process: psutil.Process) -> bool:
    """Whether a process runs; one that has ended and was left to us is taken off the system's table."""
    try:
        if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
            return True
        # `subprocess` wants the exit codes of those that we started: each is the leader of its session.
        if process.ppid() == os.getpid() and os.getsid(process.pid) != process.pid:
            os.waitpid(process.pid, os.WNOHANG)
    except (psutil.NoSuchProcess, ProcessLookupError, ChildProcessError):
        pass
    return False


def adopt_orphans() -> None:
    """Become the parent of descendants whose parent dies, so that none of them escapes us (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def kill_descendants(of: int | None = None) -> int:
    """Kill, by id, all that a process (this one, unless told) has started; return how many there were."""
    killed = 0
    with contextlib.suppress(psutil.NoSuchProcess):
        while alive := [p for p in psutil.Process(of).children(recursive=True) if _lives(p)]:
            killed += len(alive)
            for process in alive:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            until_gone(alive, 5.0)
    return killed


def record(path: str | os.PathLike[str], *words: object) -> None:
    """Append an event by a single write: whole or not there, whoever is killed and whoever else writes."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, (" ".join(map(str, words)) + "\n").encode())
    finally:
        os.close(descriptor)


def events(path: str | os.PathLike[str]) -> Iterator[list[str]]:
    """Yield the words of each event that was recorded."""
    with contextlib.suppress(FileNotFoundError), open(path) as lines:
        for line in lines:
            yield line.split()
