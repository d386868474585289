"""Names of executors."""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import MissingEngineError, UnknownExecutorError, UsageError, UsageTypeError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoints

__all__ = ["Engine", "Factory", "available", "known", "override", "register", "resolve"]

Factory = Callable[[int], Executor]

GROUP = "futurefarm.executors"
VARIABLE = "FUTUREFARM_EXECUTOR"

_NAME = re.compile(r"[A-Za-z0-9_-]+")

_registry: dict[str, str | Factory] = {
    "loky": "futurefarm.executors.loky:make",
    "process": "futurefarm.executors.process:make",
    "thread": "futurefarm.executors.thread:make",
    "serial": "futurefarm.executors.serial:make",
}
_overrides: list[str] = []


@dataclass(frozen=True)
class Engine:
    """Where a sweep runs: a factory of executors, or one executor of the user's.

    ``workers`` is how many the engine can use whatever it is asked for, or None.
    """

    name: str
    factory: Factory | None
    instance: Executor | None = None


def register(name: str, factory: Factory) -> None:
    """Give a factory of executors a name for ``run_tasks(..., executor=name)``.

    Args:
        name: letters, digits, ``_`` and ``-``.
        factory: ``factory(max_workers)`` returns a `concurrent.futures.Executor`.

    Raises:
        UsageError: the name is taken, or cannot be one.
        UsageTypeError: the factory cannot be called.

    Example:
        >>> from concurrent.futures import ThreadPoolExecutor
        >>> register("many-threads", lambda max_workers: ThreadPoolExecutor(10 * max_workers))
        >>> "many-threads" in known()
        True
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise UsageError(f"{name!r} cannot name an executor: use letters, digits, '_' and '-'.")
    if not callable(factory):
        raise UsageTypeError(f"the factory of executor {name!r} must be callable, not {factory!r}.")
    if name in known() and _registry.get(name) is not factory:
        raise UsageError(f"the executor name {name!r} is taken. Choose another one.")
    _registry[name] = factory


def known() -> tuple[str, ...]:
    """Return all names that can be asked for, sorted; their engines need not be installed."""
    return tuple(sorted({*_registry, *(point.name for point in _entry_points())}))


def available() -> dict[str, str | None]:
    """Return, for each known name, None if its engine can be used here, or what to do so that it can."""
    found: dict[str, str | None] = {}
    for name in known():
        try:
            _load(name)
        except MissingEngineError as error:
            found[name] = error.install
        else:
            found[name] = None
    return found


@contextmanager
def override(name: str) -> Iterator[None]:
    """Let every ``run_tasks`` in the block use another executor, whatever it asks for.

    For tests of code that calls ``run_tasks``; the environment variable ``FUTUREFARM_EXECUTOR`` and pytest's
    option ``--futurefarm-executor`` do the same.

    Example:
        >>> from futurefarm import DataManager, run_tasks
        >>> with override("serial"):
        ...     summary = run_tasks(DataManager("overridden"), abs, [-1, -2], progress=False)
        >>> summary.done
        2
    """
    if not isinstance(name, str):
        raise UsageTypeError(f"override takes the name of an executor, not {name!r}.")
    _load(name)
    _overrides.append(name)
    try:
        yield
    finally:
        _overrides.remove(name)


def resolve(executor: str | Executor | Factory) -> Engine:
    """Return the engine that is meant.

    Raises:
        UnknownExecutorError: there is none of this name; the error lists those that there are.
        MissingEngineError: it is known but not installed; the error says what to install.
        UsageTypeError: it is neither a name, nor an executor, nor a factory.
    """
    chosen: Any = _overrides[-1] if _overrides else os.environ.get(VARIABLE) or executor
    if isinstance(chosen, str):
        return Engine(chosen, _load(chosen))
    if isinstance(chosen, Executor):
        return Engine(type(chosen).__name__, None, chosen)
    if callable(chosen):
        return Engine(getattr(chosen, "__name__", type(chosen).__name__), chosen)
    raise UsageTypeError(
        f"executor must be a name ({', '.join(known())}), a concurrent.futures.Executor or a factory of "
        f"such, not {executor!r}."
    )


def _load(name: str) -> Factory:
    entry = _registry.get(name)
    if callable(entry):
        return entry
    points = [] if entry else [point for point in _entry_points() if point.name == name]
    if not entry and not points:
        raise UnknownExecutorError(
            f"there is no executor named {name!r}; known: {', '.join(known())}.", name=name, known=known()
        )
    try:
        if entry is None:
            loaded = points[0].load()
        else:
            module, _, attribute = entry.partition(":")
            loaded = getattr(importlib.import_module(module), attribute)
    except ImportError as error:
        install = f"pip install {error.name or name}"
        raise MissingEngineError(
            f"the executor {name!r} needs {error.name or 'a package'}, which is not installed. "
            f"Install it with: {install}",
            executor=name,
            install=install,
        ) from error
    factory: Factory = loaded
    return factory


def _entry_points() -> EntryPoints:
    from importlib.metadata import entry_points  # late: it takes long, and most sweeps run on engines of ours

    return entry_points(group=GROUP)
