"""How long a program waits: for the import, and for the first result of its workers."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

from harness import Bench, Figures, Ratio, Value, main

HERE = Path(__file__).parent

FUTUREFARM = """
import sys, time
from futurefarm import DataManager, run_tasks
from tasks import add_nothing

class Bar:
    "What shows progress: told as soon as a result is on disk."
    def __init__(self, **options):
        self.told = False
    def update(self, number):
        if number and not self.told:
            print(time.monotonic() - float(sys.argv[1]), flush=True)
            self.told = True
    def refresh(self):
        pass
    close = refresh

if __name__ == "__main__":
    run_tasks(DataManager("first", sys.argv[2]), add_nothing, range(20), workers=2, progress=Bar)
"""

LOKY = """
import sys, time
from concurrent.futures import as_completed
from loky import get_reusable_executor
from tasks import add_nothing

if __name__ == "__main__":
    executor = get_reusable_executor(max_workers=2)
    next(as_completed([executor.submit(add_nothing, number) for number in range(20)])).result()
    print(time.monotonic() - float(sys.argv[1]), flush=True)
    executor.shutdown()
"""


def imports(bench: Bench) -> Figures:
    """Milliseconds of a fresh interpreter; of one that imports futurefarm; and what that one takes longer."""
    bare, with_import = [], []
    for _ in range(bench.choose(3, 21)):
        bare.append(interpreter("pass"))
        with_import.append(interpreter("import futurefarm"))
    return {
        "bare, ms": median(bare),
        "import futurefarm, ms": median(with_import),
        "over bare, ms": median(one - other for one, other in zip(with_import, bare)),
    }


def interpreter(code: str) -> float:
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return (time.perf_counter() - begin) * 1000


def futurefarm(bench: Bench) -> Figures:
    return first_results(bench, FUTUREFARM)


def loky(bench: Bench) -> Figures:
    return first_results(bench, LOKY)


def first_results(bench: Bench, code: str) -> Figures:
    """Seconds from the start of a program until its first result, and until it has ended."""
    program = bench.folder / "program.py"
    program.write_text(code)
    runs = [run(program, bench.folder / str(number)) for number in range(bench.choose(1, 3))]
    return {
        "first result, s": median(first for first, _ in runs),
        "whole, s": median(whole for _, whole in runs),
    }


def run(program: Path, folder: Path) -> tuple[float, float]:
    path = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
    begin = time.monotonic()
    done = subprocess.run(
        [sys.executable, program, str(begin), folder],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        check=True,
    )
    return float(done.stdout), time.monotonic() - begin


if __name__ == "__main__":
    main(
        [imports, futurefarm, loky],
        [
            Value("import futurefarm over a bare interpreter, ms", "imports: over bare, ms", "<= 40"),
            Ratio(
                "first result, over loky", "futurefarm: first result, s", "loky: first result, s", "<= 1.2"
            ),
        ],
    )
