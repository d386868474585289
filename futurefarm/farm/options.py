"""The options of ``run_tasks``, checked."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from ..errors import UsageError, UsageTypeError
from ..limit import Limit
from ..progress import check_progress
from ..stop import StopFlag

__all__ = ["Options"]


@dataclass(frozen=True, kw_only=True)
class Options:
    """How a sweep is to go; see ``run_tasks`` for what each means.

    Raises:
        UsageError: one of them cannot work.
    """

    workers: int | None
    inner_threads: int | None
    resume: bool
    retries: int
    retry_on: type[BaseException] | tuple[type[BaseException], ...]
    backoff: float
    crash_limit: int
    timeout: float | str | None
    max_failures: int | None
    on_error: str
    total: int | None
    progress: Any
    capture: bool
    stop: StopFlag | None

    def __post_init__(self) -> None:
        for name, least in (("retries", 0), ("crash_limit", 1)):
            _check_number(name, getattr(self, name), least)
        for name, least in (("workers", 1), ("inner_threads", 1), ("max_failures", 1), ("total", 0)):
            if getattr(self, name) is not None:
                _check_number(name, getattr(self, name), least)
        _check_seconds("backoff", self.backoff)
        Limit(self.timeout)
        check_progress(self.progress)
        if self.on_error not in ("raise", "record", "stop"):
            raise UsageError(f"on_error must be 'raise', 'record' or 'stop', not {self.on_error!r}.")
        if not all(isinstance(error, type) and issubclass(error, BaseException) for error in self.errors):
            raise UsageTypeError(
                f"retry_on must be an exception class or a tuple of such, not {self.retry_on!r}."
            )
        if self.stop is not None and not isinstance(self.stop, StopFlag):
            raise UsageTypeError(f"stop must be a StopFlag, not {self.stop!r}.")

    @property
    def errors(self) -> tuple[type[BaseException], ...]:
        """The exceptions after which a task is tried again."""
        return self.retry_on if isinstance(self.retry_on, tuple) else (self.retry_on,)

    @property
    def failures(self) -> int | None:
        """How many tasks may fail before no more are begun, or None for any number."""
        return 1 if self.on_error == "stop" else self.max_failures


def _check_number(name: str, value: Any, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise UsageError(f"{name} must be a whole number of at least {least}, not {value!r}.")


def _check_seconds(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise UsageError(f"{name} must be a number of seconds, not {value!r}.")
