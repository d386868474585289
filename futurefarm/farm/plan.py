"""The arguments of ``run_tasks``, checked before anything runs."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sized
from dataclasses import dataclass
from typing import Any

from ..dataman import DataManager
from ..directory import stop_mark
from ..errors import UsageError, UsageTypeError
from ..executors import Engine, resolve
from ..identity import Fingerprint, function_name
from ..limit import Limit
from ..progress import check_progress
from ..provenance import new_sweep_id, sweep_record
from ..status import this_process
from ..stop import StopFlag
from ..task import Job, dumps_function

__all__ = ["Plan", "make_plan", "usable_cores"]


@dataclass(frozen=True)
class Plan:
    """The checked arguments of ``run_tasks``, and what is known from them before anything runs."""

    dataman: DataManager
    name: str
    function: tuple[Any, ...]  # and its bound arguments, and the errors after which it is tried again
    fingerprint: Fingerprint
    job: Job
    args: Iterator[Any]
    total: int | None
    engine: Engine
    workers: int
    resume: bool
    retries: int
    backoff: float
    crash_limit: int
    max_failures: int | None
    on_error: str
    progress: Any
    flag: StopFlag


def make_plan(
    dataman: Any,
    fn: Any,
    args: Any,
    executor: Any,
    *,
    workers: Any,
    resume: bool,
    retries: Any,
    retry_on: Any,
    backoff: Any,
    crash_limit: Any,
    timeout: Any,
    max_failures: Any,
    on_error: Any,
    total: Any,
    progress: Any,
    capture: Any,
    stop: Any,
    bound: tuple[Any, Any],
) -> Plan:
    """Check everything that can be checked before anything runs or is written; return the plan.

    Raises:
        UsageError, ExecutorError, DirectoryError, SessionError: as in ``run_tasks``.
    """
    if not isinstance(dataman, DataManager):
        raise UsageTypeError(f"dataman must be a DataManager, not {dataman!r}: DataManager('name').")
    _check_options(
        on_error,
        stop,
        workers=(workers, 1),
        retries=(retries, 0),
        crash_limit=(crash_limit, 1),
        max_failures=(max_failures, 1),
        total=(total, 0),
    )
    Limit(timeout)
    check_progress(progress)
    function = fn, *_checked_function(fn, *bound), _checked_errors(retry_on)
    pickled = _pickled(function)
    iterator = _iterator(args)
    if total is None and isinstance(args, Sized):
        total = len(args)
    engine = resolve(executor)
    workers = 1 if engine.name == "serial" else workers or usable_cores()
    dataman.check_readable()
    dataman.directory.check_writable()
    return Plan(
        dataman=dataman,
        name=function_name(fn).rpartition(":")[2],
        function=function,
        fingerprint=Fingerprint(fn, function[1:3] if isinstance(fn, type) else ()),
        job=Job(
            sweep=new_sweep_id(),
            record=sweep_record(fn, engine.name, workers, total),
            function=pickled,
            directory=dataman.basepath,
            directory_id=dataman.directory.id or "",
            stop_seen=stop_mark(dataman.directory.stop),
            timeout=timeout,
            parent=this_process(),
            capture=bool(capture),
        ),
        args=iterator,
        total=total,
        engine=engine,
        workers=workers,
        resume=resume,
        retries=retries,
        backoff=_checked_backoff(backoff),
        crash_limit=crash_limit,
        max_failures=1 if on_error == "stop" else max_failures,
        on_error=on_error,
        progress=progress,
        flag=stop or StopFlag(),
    )


def _check_options(on_error: Any, stop: Any, **numbers: tuple[Any, int]) -> None:
    for name, (value, least) in numbers.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
            raise UsageError(f"{name} must be a whole number of at least {least}, not {value!r}.")
    if on_error not in ("raise", "record", "stop"):
        raise UsageError(f"on_error must be 'raise', 'record' or 'stop', not {on_error!r}.")
    if stop is not None and not isinstance(stop, StopFlag):
        raise UsageTypeError(f"stop must be a StopFlag, not {stop!r}.")


def _checked_function(fn: Any, initargs: Any, initkwds: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if not callable(fn):
        raise UsageTypeError(f"fn must be a function, a class or another callable, not {fn!r}.")
    if (initargs or initkwds) and not isinstance(fn, type):
        raise UsageError("initargs and initkwds instantiate a task class, but fn is no class. Use a partial.")
    try:
        return tuple(initargs), dict(initkwds or {})
    except (TypeError, ValueError) as error:
        raise UsageTypeError(f"initargs must be a tuple and initkwds a dict ({error}).") from error


def _checked_errors(retry_on: Any) -> tuple[type[BaseException], ...]:
    errors = retry_on if isinstance(retry_on, tuple) else (retry_on,)
    if not all(isinstance(error, type) and issubclass(error, BaseException) for error in errors):
        raise UsageTypeError(f"retry_on must be an exception class or a tuple of such, not {retry_on!r}.")
    return errors


def _checked_backoff(backoff: Any) -> float:
    if isinstance(backoff, bool) or not isinstance(backoff, int | float) or not 0 <= backoff < math.inf:
        raise UsageError(f"backoff must be a number of seconds, not {backoff!r}.")
    return float(backoff)


def _pickled(function: tuple[Any, ...]) -> bytes:
    try:
        return dumps_function(*function)
    except Exception as error:
        raise UsageTypeError(
            f"fn cannot be sent to workers ({type(error).__name__}: {error}). Define it at the top of a "
            f"module, and open files, locks and connections inside it."
        ) from error


def _iterator(args: Any) -> Iterator[Any]:
    try:
        return iter(args)
    except TypeError as error:
        raise UsageTypeError(
            f"args must be iterable, not {args!r}. For a single task: [{args!r}]."
        ) from error


def usable_cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "process_cpu_count"):
        return os.process_cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0)) or 1
    return os.cpu_count() or 1
