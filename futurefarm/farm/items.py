"""From the elements of ``args`` to tasks, one by one and only as they are needed."""

from __future__ import annotations

import pickle
import time
from collections.abc import Iterator
from typing import Any

from ..identity import SIZE
from ..status import this_process
from ..task import Outcome, Task, call_of, dumps_item
from ..worker import described
from .common import clash
from .plan import Plan
from .repeats import Repeats
from .replicates import Replicates

__all__ = ["Items"]


_FIRST = bytes(4)
"""The end of the claim of the first task of an identity."""


class Items:
    """Makes tasks of items, as they are pulled; items that cannot be one are refused, one by one."""

    def __init__(self, plan: Plan, repeats: Repeats | None = None) -> None:
        self._plan = plan
        self._repeats = repeats
        self._finished: dict[bytes, bool] = {}  # by claim: whether the item has come
        self._replicates = Replicates()
        self._refused: list[Outcome] = []
        self._skipped = 0
        self.error: BaseException | None = None
        """What the user's iterable raised; raised again when everything that was submitted has ended."""

    def skipped(self) -> int:
        """Return how many tasks were skipped since this was last asked."""
        skipped, self._skipped = self._skipped, 0
        return skipped

    def refused(self) -> list[Outcome]:
        """Return the items refused since this was last asked."""
        refused, self._refused = self._refused, []
        return refused

    def __iter__(self) -> Iterator[Task]:
        self._remember()
        of = self._plan.fingerprint.of
        next_replicate, finished = self._replicates.next, self._finished
        shared = self._plan.shared.keys()
        stand_in = None if self._repeats is None else self._repeats.stand_in
        for number, item in enumerate(self._items()):
            try:
                if stand_in is not None:
                    item = stand_in(item)
                positional, keywords = call_of(item)
                if shared and keywords:
                    clash(keywords.keys() & shared)
                identity = of(positional, keywords)
                came = finished.get(identity + _FIRST) if finished else None
                if came is False:  # numbered without a look at the others: there may be a million of them
                    finished[identity + _FIRST] = True
                    self._skipped += 1
                    continue
                replicate = next_replicate(identity) + (came is True)
                if finished and identity + replicate.to_bytes(4, "little") in finished:  # `claim_of`, in line
                    self._skipped += 1
                    continue
                data = dumps_item(item)  # not before: a sweep that resumes skips a million in a second
            except BaseException as error:  # the item may do anything when it is looked at
                self._let_through(error)
                self._refuse(number, item, error)
                continue
            yield Task(number, identity, replicate, 1, data)

    def _items(self) -> Iterator[Any]:
        number = 0
        while True:
            try:
                item = next(self._plan.args)
            except StopIteration:
                return
            except BaseException as error:
                self._let_through(error)
                error.add_note(
                    f"raised by args after {number} items; all that had begun is finished and stored"
                )
                self.error = error
                return
            yield item
            number += 1

    def _let_through(self, error: BaseException) -> None:
        """Raise the error again if it is Ctrl-C, by which a user ends the wait for an item."""
        if isinstance(error, KeyboardInterrupt) and self._plan.flag.is_set():
            raise error

    def _remember(self) -> None:
        """Read what the directory holds: what is finished, or which replicates there are."""
        if self._plan.options.resume:
            for claims in self._plan.dataman.done():
                self._finished.update(dict.fromkeys(claims, False))
            return
        for identity, replicate, _ in self._plan.dataman.history():
            self._replicates.note(identity, replicate)

    def _refuse(self, number: int, item: Any, error: BaseException) -> None:
        host, pid, _ = this_process()
        text, trace = described(error)
        task = Task(number, number.to_bytes(SIZE, "big"), 0, 1, pickle.dumps(object.__repr__(item)))
        self._refused.append(Outcome(task, "error", None, text, trace, host, pid, time.time(), 0.0, None))
