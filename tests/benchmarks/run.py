"""Run the benchmarks; print the line of each case as it comes, then what was asked for and what was seen."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from machine import describe

HERE = Path(__file__).parent
CASES = [
    "noop",
    "stream",
    "grain",
    "mixed",
    "commits",
    "large_results",
    "shared_argument",
    "reading",
    "startup",
    "features",
]
"""In the order of the report."""
DEADLINE = 600.0  # seconds that one case may take, far above what it should


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", action="store_true", help="small, to see that all of it works")
    parser.add_argument("--only", default="", help="names of cases, separated by commas")
    parser.add_argument("--rounds", type=int, help="instead of those of each case")
    parser.add_argument("--json", type=Path, help="write all figures to this file; other cases in it stay")
    parser.add_argument("--plot", type=Path, help="draw the targets into this file, SVG or PNG")
    options = parser.parse_args()
    chosen = [name for name in options.only.split(",") if name] or CASES
    if unknown := set(chosen) - set(CASES):
        parser.error(f"no such case: {', '.join(sorted(unknown))}; there are {', '.join(CASES)}")
    begin = time.monotonic()
    machine = describe()
    lines = [run(name, options.short, options.rounds) for name in chosen]
    print(table(lines), f"on {machine}", f"in {time.monotonic() - begin:.0f} s", sep="\n", file=sys.stderr)
    report = {"machine": machine, "cases": lines}
    if options.json:
        report = renew(options.json, report)
    if options.plot:
        from plot import draw  # late: matplotlib

        draw(report, options.plot)
    sys.exit(1 if any("error" in line for line in lines) else 0)


def renew(path: Path, report: dict[str, Any]) -> dict[str, Any]:
    """Write a report, with the cases of the old one that were not run, if they are of this machine."""
    old = json.loads(path.read_text()) if path.exists() else {}
    known = old.get("cases", ()) if old.get("machine") == report["machine"] else ()
    cases = {line["case"]: line for line in [*known, *report["cases"]]}
    renewed = {**report, "cases": [cases[name] for name in CASES if name in cases]}
    path.write_text(json.dumps(renewed, indent=1) + "\n")
    return renewed


def run(name: str, short: bool, rounds: int | None) -> dict[str, Any]:
    """Run one case, which has a process of its own and the machine to itself."""
    command = [sys.executable, str(HERE / f"{name}.py"), *["--short"] * short]
    command += ["--rounds", str(rounds)] if rounds else []
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    try:
        out, _ = process.communicate(timeout=DEADLINE)
        line: dict[str, Any] = json.loads(out)
    except subprocess.TimeoutExpired:
        process.terminate()  # it ends what it has started
        process.communicate()
        line = {"case": name, "error": f"did not end in {DEADLINE:.0f} s"}
    except json.JSONDecodeError:
        line = {"case": name, "error": f"printed no line of JSON, and ended with {process.returncode}"}
    print(json.dumps(line), flush=True)
    return line


def table(lines: list[dict[str, Any]]) -> str:
    """Return a line for each target: what was asked for, the median, least and most that was seen."""
    rows = []
    for line in lines:
        if "error" in line:
            rows.append(f"{line['case']:15} BROKEN  {line['error']}")
        for target in line.get("targets", ()):
            seen = "{median:8.4g} ({least:.4g} to {most:.4g})".format_map(target)
            verdict = "met   " if target["met"] else "missed"
            rows.append(f"{line['case']:15} {verdict} {target['target']:>8} {seen:32} {target['title']}")
    return "\n".join(rows)


if __name__ == "__main__":
    main()
