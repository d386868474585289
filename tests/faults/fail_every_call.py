"""Let each file-system call of a program fail, once or from then on: EIO, ENOSPC, EDQUOT, ENOLCK.

The program has to complete, or to end with an error of futurefarm's own. What was acknowledged has to be
there and right, and the same program has to go on and complete: everything once, nothing twice.
"""

from __future__ import annotations

import multiprocessing
import shutil
from collections.abc import Iterator
from pathlib import Path

import writer
from calls import Call, Damage, Strike, go_on, look, prepare, report, sample, strike, trace
from harness import Battery, Figures, main, say

SPACE = {"openat", "write", "pwrite64", "fsync", "fdatasync", "ftruncate", "mkdir", "link", "rename"}
LOCKS = {"fcntl", "flock"}
INPUT = {"read", "pread64", "newfstatat", "lseek", "getdents64", "unlink"}
AT_A_TIME = 4  # more than cores: where all locks fail, SQLite takes them for busy, and waits ten seconds
ONCE = {"write", "openat", *INPUT}  # without these, Python itself would not get far


def run(battery: Battery) -> Figures:
    template = battery.folder / "template"
    template.mkdir()
    writer.make_other(template)
    calls = trace(prepare(template, battery.folder / "run-00000"), battery.folder / "trace")
    faults = list(faults_of(calls))
    say(f"{len(calls)} calls, {len(faults)} faults")
    chosen = sample(battery, faults, battery.choose(42, 320))
    jobs = [(template, battery.folder / f"run-{n:05}", *fault) for n, fault in enumerate(chosen, 1)]
    names = ["faults", "recovered", "refused", "foreign", "lost", "wrong", "doubled", "stuck", "cannot_go_on"]
    figures = dict.fromkeys(names, 0)
    with multiprocessing.get_context("fork").Pool(AT_A_TIME) as pool:
        for call, what, struck, after, later, complaint in pool.imap_unordered(fail_at, jobs):
            figures["faults"] += struck.struck
            figures["recovered"] += struck.code == 0
            figures["refused"] += struck.code == writer.GAVE_UP
            foreign = not struck.stuck and struck.code not in (0, writer.GAVE_UP)
            figures["foreign"] += foreign
            figures["stuck"] += struck.stuck
            figures["lost"] += after.lost + later.lost
            figures["wrong"] += after.wrong + later.wrong
            figures["doubled"] += after.doubled + later.doubled
            figures["cannot_go_on"] += bool(later.error)
            for damage in (after, later):
                if damage or damage.error:
                    report(call, what, damage)
            if foreign or struck.stuck:
                say(f"{call.name} {call.number} {what}: exit code {struck.code}: {complaint}")
    targets = {"faults": battery.choose(">= 40", ">= 300")}
    zero = ("foreign", "lost", "wrong", "doubled", "stuck", "cannot_go_on")
    return Figures(figures, targets | dict.fromkeys(zero, "== 0"))


def faults_of(calls: list[Call]) -> Iterator[tuple[Call, str]]:
    """Yield each call with each error that it may have, in turn once and for ever."""
    for position, call in enumerate(calls):
        names = ["EIO"] if call.name in SPACE | INPUT else []
        if call.name in SPACE and (call.name != "openat" or call.creates):
            names += ["ENOSPC", "EDQUOT"]
        if call.name in LOCKS:
            names += ["ENOLCK"]
        for number, name in enumerate(names):
            for_ever = call.name not in ONCE and (position + number) % 2 == 1
            yield call, f"error={name}" + (":for_ever" if for_ever else "")


def fail_at(job: tuple[Path, Path, Call, str]) -> tuple[Call, str, Strike, Damage, Damage, str]:
    template, folder, call, what = job
    prepare(template, folder)
    struck = strike(folder, call, what)
    after = look(folder)
    later = go_on(folder)
    complaint = (folder / "complaints").read_text(errors="replace").strip()[-1500:]
    shutil.rmtree(folder)
    return call, what, struck, after, later, complaint


if __name__ == "__main__":
    main(run)
