"""A row of the ledger, as a user sees it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from .store import Attempt, verified_key
from .trust import Loader

__all__ = ["Record"]


@lru_cache(maxsize=64)
def _function(record: str) -> str:
    """Return the name of the function in a sweep's provenance, which all rows of the sweep share."""
    try:
        found = json.loads(record)
    except (ValueError, RecursionError):  # not of our making, but it costs only the name
        return ""
    return str(found.get("function", "")) if isinstance(found, dict) else ""


@dataclass(frozen=True, slots=True)
class Record:
    """One attempt at one task: what was called, where, when, and how it ended.

    Attributes:
        sweep: the id of the ``run_tasks`` call.
        function: ``module:name`` of the function.
        number: the place of the task in ``args``, from 0.
        identity: the fingerprint of function and arguments, 16 bytes.
        replicate: the task's number among those of the same identity, from 0.
        attempt: the number of the try, from 1.
        status: ``ok``, ``error``, ``timeout``, ``crashed`` or ``stopped``.
        key: of the result in the DataManager; None unless the status is ``ok``.
        error: type and text of the exception, or None.
        traceback: the traceback in the worker, or None.
        host: the computer on which it ran.
        pid: the process in which it ran.
        started: seconds since 1970.
        seconds: how long the function ran.
        output: the tail of what the task printed, or None.
        session: the name of the session that holds this record.
        item: the pickled arguments; ``args`` is the object.
        loader: what unpickles them.
    """

    sweep: str
    function: str
    number: int
    identity: bytes
    replicate: int
    attempt: int
    status: str
    key: str | None
    error: str | None
    traceback: str | None
    host: str
    pid: int
    started: float
    seconds: float
    output: str | None
    session: str
    item: bytes
    loader: Loader = field(repr=False, compare=False)

    @classmethod
    def of(cls, loader: Loader, row: Attempt) -> Record:
        return cls(
            sweep=row.sweep,
            function=_function(row.record),
            number=row.number,
            identity=row.identity,
            replicate=row.replicate,
            attempt=row.attempt,
            status=row.status,
            key=verified_key(loader.path, row.key) if row.key is not None else None,
            error=row.error,
            traceback=row.traceback,
            host=row.host,
            pid=row.pid,
            started=row.started,
            seconds=row.seconds,
            output=row.output,
            session=loader.path.name,
            item=row.item,
            loader=loader,
        )

    @property
    def args(self) -> Any:
        """The element of ``args`` that the task was made from; unpickled at each access.

        Raises:
            UntrustedValueError: it is more than plain data, and others may have written it.
            UnreadableValueError: it cannot be unpickled here; ``item`` has the bytes.
        """
        return self.loader.loads(self.item, None, f"the argument of task {self.number}")
