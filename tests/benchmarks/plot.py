"""Draw how far each target was met, from the report of `run.py`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

__all__ = ["draw"]

GREY = "#808080"  # is read on white and on black
MET, MISSED = "#0072b2", "#e69f00"  # of Okabe and Ito: told apart by all eyes
FARTHEST = 8.0


def draw(report: dict[str, Any], path: Path) -> None:
    """Draw a bar for each target: to the right of the line it was met, twice over at 2."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "futurefarm"  # the same figures make the same file
    matplotlib.rcParams["svg.fonttype"] = "none"  # text stays text: small, and read by screen readers
    from matplotlib import pyplot

    bars = [
        (f"{line['case'].replace('_', ' ')}: {target['title']}  {target['target']}", target)
        for line in reversed(report["cases"])
        for target in reversed(line.get("targets", ()))
        if not target["target"].startswith("==")
    ]
    figure, axes = pyplot.subplots(figsize=(9.0, 0.6 + 0.27 * len(bars)))
    for place, (_, target) in enumerate(bars):
        _draw_bar(axes, place, target)
    axes.axvline(1.0, color=GREY, linewidth=1.2)
    axes.set_xscale("log", base=2)
    axes.set_xlim(1 / FARTHEST, FARTHEST * 1.6)
    ticks = [1 / 8, 1 / 4, 1 / 2, 1, 2, 4, 8]
    axes.set_xticks(ticks, ["1/8", "1/4", "1/2", "target", "2", "4", "8"])
    axes.set_yticks(range(len(bars)), [words for words, _ in bars])
    axes.set_ylim(-0.6, len(bars) - 0.4)
    axes.tick_params(colors=GREY, length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    undated = {"Date": None} if path.suffix == ".svg" else {}
    figure.savefig(path, transparent=True, bbox_inches="tight", metadata=undated)
    pyplot.close(figure)


def _draw_bar(axes: Any, place: int, target: dict[str, Any]) -> None:
    sign, bound = target["target"].split()

    def reached(value: float) -> float:
        share = value / float(bound) if sign == ">=" else float(bound) / max(value, 1e-9)
        return min(max(share, 1 / FARTHEST), FARTHEST)

    share = reached(target["median"])
    ends = sorted((reached(target["least"]), reached(target["most"])))
    axes.barh(
        place,
        share - 1,
        left=1,
        height=0.62,
        color=MET if target["met"] else MISSED,
        hatch=None if target["met"] else "////",
        edgecolor="white",
        linewidth=0,
    )
    axes.plot(ends, [place, place], color=GREY, linewidth=1.2, solid_capstyle="butt")
    axes.annotate(
        f"{target['median']:.3g}",
        (FARTHEST * 1.55, place),
        color=GREY,
        ha="right",
        va="center",
        fontsize=9,
    )


if __name__ == "__main__":
    draw(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))
