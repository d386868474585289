"""Sessions as workers fill them, without the sweep around it."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tasks import add_nothing

if TYPE_CHECKING:
    from futurefarm.task import Outcome

__all__ = ["outcomes_of", "tasks_of"]


def tasks_of(numbers: range) -> list[Any]:
    """Return the tasks that a sweep of `tasks.add_nothing` makes of these items."""
    from futurefarm.identity import Fingerprint
    from futurefarm.task import Task

    identity_of = Fingerprint(add_nothing).of
    return [Task(n, identity_of((n,), {}), 0, 1, pickle.dumps(n, 5)) for n in numbers]


def outcomes_of(tasks: Sequence[Any]) -> list[Outcome]:
    """Return what a worker commits when these tasks have ended well; their results are pickled here."""
    from futurefarm.task import Outcome

    return [
        Outcome(
            task,
            "ok",
            pickle.dumps((task.number, task.number * 0.5), 5),
            error=None,
            traceback=None,
            host="host",
            pid=1,
            started=0.5 * task.number,
            seconds=0.001,
            output=None,
        )
        for task in tasks
    ]
