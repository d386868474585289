"""What ``run_tasks`` returns, and what it raises when tasks failed."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice

from ..dataman import DataManager
from ..errors import TasksFailedError

__all__ = ["Summary", "failure_of"]


@dataclass(frozen=True)
class Summary:
    """What a sweep did.

    Attributes:
        done: tasks that ended well; their results are stored.
        skipped: tasks that had been done before and were not run (``resume=True``).
        failed: tasks that failed, after all retries.
        left: tasks that were not run because the sweep was stopped; None if nobody knows how many there are.
        stopped: why the sweep ended early, or None.
        seconds: how long it took.
        sweep: its id, by which the ledger knows it.
    """

    done: int
    skipped: int
    failed: int
    left: int | None
    stopped: str | None
    seconds: float
    sweep: str

    def __str__(self) -> str:
        text = f"{self.done} done, {self.skipped} skipped, {self.failed} failed in {self.seconds:.1f} s"
        if self.stopped is None:
            return text
        left = "" if self.left is None else f", {self.left} left"
        return f"stopped by {self.stopped}: {text}{left}. Run again with resume=True for what is missing."


def failure_of(dataman: DataManager, summary: Summary) -> TasksFailedError:
    """Return the error that tells which tasks of a sweep failed, with what the first one showed."""
    failures = tuple(islice((f for f in dataman.failures() if f.sweep == summary.sweep), 10))
    first = f" The first: task {failures[0].number}, {failures[0].error}".rstrip(".") if failures else ""
    left = f" {summary.left} were not begun." if summary.stopped and summary.left else ""
    error = TasksFailedError(
        f"{summary.failed} of {summary.done + summary.failed} tasks failed.{left}{first}. All other results "
        f"are stored in {dataman.basepath}; dataman.failures() has the failures with their tracebacks, and "
        f"the same call with resume=True runs only what is missing.",
        summary=summary,
        failures=failures,
    )
    for record in failures[:1]:
        if record.traceback:
            error.add_note(f"In the worker:\n{record.traceback}")
        if record.output:
            error.add_note(f"What it printed:\n{record.output}")
    return error
