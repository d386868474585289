"""The arguments of ``run_tasks``, checked before anything runs."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterable, Iterator, Mapping, Sized
from dataclasses import dataclass
from typing import Any

from ..cores import limits_of_threads, usable_cores
from ..dataman import DataManager
from ..directory import stop_mark
from ..errors import UsageError, UsageTypeError
from ..executors import Engine, resolve
from ..identity import Fingerprint, function_name
from ..provenance import new_sweep_id, sweep_record
from ..status import this_process
from ..stop import StopFlag
from ..task import Job, dumps_function
from .common import Common
from .options import Options

__all__ = ["Plan", "make_plan"]

FULL_WAIT = 60.0
"""Seconds for which a sweep waits for space on a full disk, before it ends with an error."""


@dataclass(frozen=True)
class Plan:
    """The checked arguments of ``run_tasks``, and what is known from them before anything runs."""

    dataman: DataManager
    name: str
    function: tuple[Any, ...]  # and its bound arguments, and the errors after which it is tried again
    fingerprint: Fingerprint
    shared: dict[str, Any]  # by name, what all calls get
    job: Job
    args: Iterator[Any]
    total: int | None
    engine: Engine
    workers: int
    environment: Mapping[str, str]  # of worker processes, beyond that of this one
    options: Options
    flag: StopFlag


def make_plan(
    dataman: Any,
    fn: Any,
    args: Any,
    executor: Any,
    bound: tuple[Any, Any],
    shared: Any,
    options: Options,
) -> Plan:
    """Check everything else that can be checked before anything runs or is written; return the plan.

    Raises:
        UsageError, ExecutorError, DirectoryError, SessionError: as in ``run_tasks``.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise UsageError(
            "a worker process imports the script that started it, and so came to this call of run_tasks. "
            "Put what the script does under: if __name__ == '__main__':"
        )
    if not isinstance(dataman, DataManager):
        raise UsageTypeError(f"dataman must be a DataManager, not {dataman!r}: DataManager('name').")
    function = fn, *_checked_function(fn, *bound), options.errors
    pickled = _pickled(function)
    common = Common(fn, {} if shared is None else shared, args)
    iterator = _iterator(args)
    total = _length(args) if options.total is None else options.total
    engine = resolve(executor)
    workers = 1 if engine.name == "serial" else options.workers or usable_cores()
    dataman.check_readable()
    dataman.directory.check_writable()
    return Plan(
        dataman=dataman,
        name=function_name(fn).rpartition(":")[2],
        function=function,
        fingerprint=Fingerprint(fn, _told_apart(fn, function[1:3], common)),
        shared=common.values,
        job=Job(
            sweep=new_sweep_id(),
            record=sweep_record(
                fn, engine.name, workers, total, {n: f.hex() for n, f in common.fingerprints.items()}
            ),
            function=pickled,
            directory=dataman.basepath,
            directory_id=dataman.directory.id or "",
            stop_seen=stop_mark(dataman.directory.stop),
            timeout=options.timeout,
            parent=this_process(),
            capture=bool(options.capture),
            full_wait=FULL_WAIT,
        ),
        args=iterator,
        total=total,
        engine=engine,
        workers=workers,
        environment=limits_of_threads(workers, options.inner_threads),
        options=options,
        flag=options.stop or StopFlag(),
    )


def _told_apart(fn: Any, init: tuple[Any, ...], common: Common) -> tuple[Any, ...]:
    """Return what tells the calls of this sweep from those of the same function in another one."""
    bound = init if isinstance(fn, type) else ()
    return (*bound, common.fingerprints) if common.fingerprints else bound


def _checked_function(fn: Any, initargs: Any, initkwds: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if not callable(fn):
        raise UsageTypeError(f"fn must be a function, a class or another callable, not {fn!r}.")
    if (initargs or initkwds) and not isinstance(fn, type):
        raise UsageError("initargs and initkwds instantiate a task class, but fn is no class. Use a partial.")
    try:
        return tuple(initargs), dict(initkwds or {})
    except (TypeError, ValueError) as error:
        raise UsageTypeError(f"initargs must be a tuple and initkwds a dict ({error}).") from error


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
        if isinstance(args, Iterable) and not hasattr(args, "shape"):  # numpy's scalars claim to be
            raise  # its own mistake
        raise UsageTypeError(
            f"args must be iterable, not {args!r}. For a single task: [{args!r}]."
        ) from error


def _length(args: Any) -> int | None:
    """Return how many items there are, for the bar, or None where that is not known."""
    if not isinstance(args, Sized):
        return None
    try:
        return len(args)
    except Exception:  # more than Python can count, or unknown to the object itself
        return None
