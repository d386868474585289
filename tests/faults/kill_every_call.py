"""Kill a program at each file-system call of creating, committing, sealing, merging and compacting.

After each kill, what was acknowledged has to be there and right, and the same program has to go on and
complete: everything once, nothing twice.
"""

from __future__ import annotations

import multiprocessing
import shutil
from pathlib import Path

import writer
from calls import CHANGING, Call, Damage, go_on, look, prepare, report, sample, strike, trace
from harness import Battery, Figures, main, say

KILL = "signal=SIGKILL"


def run(battery: Battery) -> Figures:
    template = battery.folder / "template"
    template.mkdir()
    writer.make_other(template)
    calls = trace(prepare(template, battery.folder / "run-00000"), battery.folder / "trace")
    # A call that changes nothing leaves the disk as the next one finds it.
    changing = [call for call in calls if call.name in CHANGING and (call.name != "openat" or call.creates)]
    say(f"{len(calls)} calls, {len(changing)} of them change something")
    points = sample(battery, changing, battery.choose(42, 320))
    jobs = [(template, battery.folder / f"run-{n:05}", call) for n, call in enumerate(points, 1)]
    figures = {"calls": len(calls), "points": 0, "lost": 0, "wrong": 0, "doubled": 0, "cannot_go_on": 0}
    with multiprocessing.get_context("fork").Pool(2) as pool:
        for call, killed, after, later in pool.imap_unordered(kill_at, jobs):
            figures["points"] += killed
            figures["lost"] += after.lost + later.lost
            figures["wrong"] += after.wrong + later.wrong
            figures["doubled"] += after.doubled + later.doubled
            figures["cannot_go_on"] += bool(later.error)
            for damage in (after, later):
                if damage or damage.error:
                    report(call, KILL, damage)
    targets = {"points": battery.choose(">= 40", ">= 300"), "lost": "== 0", "wrong": "== 0"}
    return Figures(figures, targets | {"doubled": "== 0", "cannot_go_on": "== 0"})


def kill_at(job: tuple[Path, Path, Call]) -> tuple[Call, bool, Damage, Damage]:
    template, folder, call = job
    prepare(template, folder)
    struck = strike(folder, call, KILL).struck
    after = look(folder)
    later = go_on(folder)
    shutil.rmtree(folder)
    return call, struck, after, later


if __name__ == "__main__":
    main(run)
