"""Write the figures of docs/performance.json into docs/performance.md, so that the two cannot drift apart."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[2] / "docs"


def main() -> None:
    """Fill the page; with ``--check`` only exit with 1 if it would change."""
    page, report = DOCS / "performance.md", json.loads((DOCS / "performance.json").read_text())
    before = page.read_text()
    after = filled(before, report)
    if "--check" not in sys.argv[1:]:
        page.write_text(after)
    elif before != after:
        sys.exit("the page is not that of docs/performance.json: run this without --check")


def filled(page: str, report: dict[str, Any]) -> str:
    """Return the page with the tables between its markers ``<!-- NAME -->`` and ``<!-- end of NAME -->``."""
    tables = {"targets": targets(report), "figures": figures(report), "machine": machine(report)}
    for name, text in tables.items():
        before, begin, rest = page.partition(f"<!-- {name} -->\n")
        _, end, after = rest.partition(f"<!-- end of {name} -->")
        if not end:
            sys.exit(f"the page has no place for {name}")
        page = f"{before}{begin}\n{text}\n{end}{after}"
    return page


def targets(report: dict[str, Any]) -> str:
    rows = ["| case | what | target | median | least to most | |", "|---|---|---|---|---|---|"]
    for line in report["cases"]:
        case = f"`{line['case']}`"
        for target in line.get("targets", ()):
            spread = f"{number(target['least'])} to {number(target['most'])}"
            asked = target["target"].replace(">=", "≥").replace("<=", "≤").replace("==", "=")
            verdict = "met" if target["met"] else "**missed**"
            seen = number(target["median"])
            rows.append(f"| {case} | {target['title']} | {asked} | {seen} | {spread} | {verdict} |")
            case = ""
    return "\n".join(rows) + "\n"


def figures(report: dict[str, Any]) -> str:
    return "\n".join(_of_case(line) for line in report["cases"] if "figures" in line)


def _of_case(line: dict[str, Any]) -> str:
    """Return the medians of a case: a row for each figure, a column for each contender that has it."""
    contenders = [name for name, seen in line["figures"].items() if seen]
    names = list(dict.fromkeys(name for contender in contenders for name in line["figures"][contender]))
    rows = [f"### {line['case']}\n", f"{line['title']}\n"]
    rows.append("| | " + " | ".join(contenders) + " |")
    rows.append("|---" * (len(contenders) + 1) + "|")
    for name in names:
        seen = [line["figures"][contender].get(name) for contender in contenders]
        rows.append(
            f"| {name} | " + " | ".join(number(each["median"]) if each else "" for each in seen) + " |"
        )
    lost = [f"{line[who]:.1%} {who}" for who in ("used by others", "stolen") if who in line]
    rows.append(
        f"\n{line['rounds']} rounds, in {line['seconds']:.0f} s; of the processors {', '.join(lost)}.\n"
    )
    return "\n".join(rows)


def machine(report: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in report["machine"].items()) + ".\n"


def number(value: float) -> str:
    """Return three digits, or all before the point: 0.0123, 1.25, 53,200."""
    return f"{float(f'{value:.3g}'):,.0f}" if abs(value) >= 100 else f"{value:.3g}"


if __name__ == "__main__":
    main()
