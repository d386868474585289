"""Run the fault battery; print the lines of its programs as they come, then a table."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from pathlib import Path
from typing import Any

from harness import adopt_orphans, kill_descendants, python, say

HERE = Path(__file__).parent
NOT_PROGRAMS = {"calls", "harness", "large", "peers", "run", "writer"}
TIMED = [
    "crash_loop",
    "culprits",
    "kill_while_sending",
    "lock_zoo",
    "massacre",
    "signals",
    "soak",
    "two_runs",
]
"""Programs with a target in seconds: each has the machine to itself. The others run two at a time."""
SHORT, LONG = 120.0, 900.0  # seconds that one program may take, far above what it should


def main() -> None:
    programs = sorted(path.stem for path in HERE.glob("*.py") if path.stem not in NOT_PROGRAMS)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", action="store_true", help="a sample, for every change")
    parser.add_argument("--only", default="", help="names, separated by commas")
    parser.add_argument("--seed", type=int, default=1, help="of all that is random (default: 1)")
    options = parser.parse_args()
    chosen = [name for name in options.only.split(",") if name] or programs
    if unknown := set(chosen) - set(programs):
        parser.error(f"no such program: {', '.join(sorted(unknown))}; there are {', '.join(programs)}")
    adopt_orphans()
    begin = time.monotonic()
    timed = [name for name in chosen if name in TIMED or len(chosen) == 1]
    lines = [run(name, options.short, options.seed) for name in timed]
    others = deque(name for name in chosen if name not in timed)
    lanes = [
        threading.Thread(target=lane, args=(others, options.short, options.seed, lines)) for _ in range(2)
    ]
    for thread in lanes:
        thread.start()
    for thread in lanes:
        thread.join()
    if len(chosen) > 1:
        say(table(lines), f"in {time.monotonic() - begin:.0f} s")
    sys.exit(0 if all(line["passed"] for line in lines) else 1)


def lane(names: deque[str], short: bool, seed: int, lines: list[dict[str, Any]]) -> None:
    """Run programs, each by a run of its own of this file, which adopts what the program loses sight of."""
    while names:
        try:
            name = names.popleft()
        except IndexError:  # the other lane was faster
            return
        command = python(__file__, "--only", name, "--seed", seed, *(["--short"] if short else []))
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        print(done.stdout, end="", flush=True)
        lines.append(_parsed(done.stdout) or {"program": name, "passed": False, "seconds": 0.0})


def run(name: str, short: bool, seed: int) -> dict[str, Any]:
    """Run one program in a folder of its own, and leave nothing of it behind."""
    deadline = SHORT if short else LONG
    begin = time.monotonic()
    # Not below TMPDIR, whose name may be long: that of the fork server's socket has at most 107 bytes.
    with tempfile.TemporaryDirectory(prefix="faults-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        process = subprocess.Popen(
            python(HERE / f"{name}.py", "--seed", seed, *(["--short"] if short else [])),
            cwd=folder,
            env={**os.environ, "TMPDIR": folder},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            out, _ = process.communicate(timeout=deadline)
            problem = ""
        except subprocess.TimeoutExpired:
            out, problem = "", f"did not end in {deadline:.0f} s"
        left = kill_descendants()  # the program itself, if it is late, and what it has lost sight of
        process.communicate()
    line = _parsed(out)
    if line is None:
        problem = problem or f"printed no line of JSON, and ended with exit code {process.returncode}"
        line = {"program": name, "passed": False, "seconds": round(time.monotonic() - begin, 1)}
    elif left:
        problem = f"left {left} processes running"
    if problem:
        line |= {"error": problem, "passed": False}
    print(json.dumps(line), flush=True)
    return line


def _parsed(out: str) -> dict[str, Any] | None:
    try:
        line = json.loads(out)
    except json.JSONDecodeError:
        return None
    return line if isinstance(line, dict) else None


def table(lines: list[dict[str, Any]]) -> str:
    """Return the summary: each program, how long it took, and its figures that have a target."""
    rows = []
    for line in lines:
        targets = line.get("targets", {})
        figures = ", ".join(f"{name} {line[name]} ({target})" for name, target in targets.items())
        verdict = "passed" if line["passed"] else "FAILED"
        rows.append(
            f"{line['program']:22} {verdict} {line['seconds']:6.1f} s  {line.get('error') or figures}"
        )
    failed = sum(not line["passed"] for line in lines)
    rows.append(f"{len(lines)} programs, {failed} failed,")
    return "\n".join(rows)


if __name__ == "__main__":
    main()
