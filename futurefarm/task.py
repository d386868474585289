"""What travels to a worker and back: a chunk of tasks out, a receipt home.

Everything crosses as opaque bytes. So every engine can run functions of ``__main__`` and of notebooks, no
keyword of the user's collides with one of the engine's, and no exception class or result that fails to
unpickle can break a pool: an exception that comes out of a future is always the engine's own.
"""

from __future__ import annotations

import functools
import io
import pickle
import sys
import types
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal, NamedTuple

from .errors import UnstorableError

__all__ = ["RECEIPT_SIZE", "Chunk", "Job", "Outcome", "Receipt", "Status", "Task", "call_of"]

Status = Literal["ok", "error", "timeout", "crashed", "stopped"]

PROTOCOL = 5

RECEIPT_SIZE = 512
"""Bytes that a receipt may have: POSIX promises that pipes pass so many in one piece.

loky and the standard library's pool wait for ever for the rest of a message whose sender was killed
halfway; of a message that is sent in one piece there is no rest.
"""

LARGEST = 10**9 - 10**6
"""Bytes of an argument: a row of SQLite has at most 10**9, and there is more in it."""

MAX_FAILED = 48
"""Failed tasks that one receipt names; a worker ends its chunk early when it has so many."""


class Task(NamedTuple):
    """One call of the user's function.

    ``number`` is its place in ``args``, ``item`` the pickled element of ``args``, ``identity`` the
    fingerprint of the call and ``replicate`` its number among the calls of that identity.
    """

    number: int
    identity: bytes
    replicate: int
    attempt: int
    item: bytes


class Outcome(NamedTuple):
    """How one attempt at a task ended.

    ``value`` is the pickled result, ``started`` seconds since 1970, ``output`` the tail of what was printed.
    """

    task: Task
    status: Status
    value: bytes | None
    error: str | None
    traceback: str | None
    host: str
    pid: int
    started: float
    seconds: float
    output: str | None


class Receipt(NamedTuple):
    """A worker's answer to a chunk: how many of its tasks ended, which of them failed, and where they are.

    ``ended`` counts from the front of the chunk; the rest was not begun, because the sweep was stopped or
    the chunk took too long. The first ``unstored`` of the rest did end, but the disk stayed full: they have
    to be run again. ``failed`` are the places in the chunk of tasks that may be tried again, and ``final`` of
    those that failed by an error for which that was not asked. ``outcomes`` is empty but for a worker that
    cannot commit where it is. One that ``lacks`` what the tasks share has begun none: it does not see it.
    """

    ended: int
    failed: tuple[int, ...]
    final: tuple[int, ...]
    seconds: float
    session: str | None
    unstored: int = 0
    lacks: bool = False
    outcomes: tuple[Outcome, ...] = ()

    @classmethod
    def lacking(cls) -> Receipt:
        """Return the receipt of a worker that needs what the tasks share sent to it."""
        return cls(0, (), (), 0.0, None, lacks=True)

    def dumps(self) -> bytes:
        """Return the receipt as at most `RECEIPT_SIZE` bytes, unless it carries outcomes."""
        outcomes = tuple((tuple(outcome.task), *outcome[1:]) for outcome in self.outcomes)
        return pickle.dumps((*self[:-1], outcomes), PROTOCOL)

    @classmethod
    def loads(cls, data: bytes) -> Receipt:
        *head, outcomes = pickle.loads(data)
        return cls._make((*head, tuple(Outcome(Task(*task), *rest) for task, *rest in outcomes)))


class Job(NamedTuple):
    """What all tasks of a sweep share; it is pickled once and unpickled once per worker."""

    sweep: str
    record: str  # the sweep's provenance, JSON; it goes into every session that holds results of it
    function: bytes
    directory: str
    directory_id: str
    stop_seen: tuple[int, int] | None  # the stop file that lay there before the sweep began
    timeout: float | str | None  # as in limit.Limit
    parent: tuple[str, int, int]  # host, pid and start of the process that called run_tasks
    capture: bool  # what tasks print is kept from the terminal
    full_wait: float  # seconds for which a full disk is waited for
    shared: bytes = b""  # what `bundle.unpack` makes of it goes to every call


class Chunk(NamedTuple):
    """A job and some of its tasks, as a worker gets them.

    ``shared`` is what they share, whole, for a worker that lacks it; else None.
    """

    job: Job
    tasks: list[Task]
    shared: bytes | None

    @staticmethod
    def dumps(job: bytes, tasks: Sequence[Task], shared: bytes | None = None) -> bytes:
        return pickle.dumps((job, [tuple(task) for task in tasks], shared), PROTOCOL)

    @staticmethod
    def loads(data: bytes) -> tuple[bytes, list[Task], bytes | None]:
        job, tasks, shared = pickle.loads(data)
        return job, [Task._make(task) for task in tasks], shared


_PLAIN = frozenset({int, float, str, bytes, bool, type(None), complex})


def call_of(item: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the positional and keyword arguments that an element of ``args`` stands for.

    A ``tuple`` is unpacked, exactly as in Brian 1; a `futurefarm.spaces.Params` becomes keyword
    arguments; anything else, lists, dicts and rows of arrays included, is the single argument.

    Example:
        >>> call_of((1, 2)), call_of([1, 2])
        (((1, 2), {}), (([1, 2],), {}))
    """
    kind = type(item)
    if kind in _PLAIN:
        return (item,), {}
    if isinstance(item, tuple):
        return tuple(item), {}
    # Of its type: some objects have every attribute that they are asked for.
    as_keywords = getattr(kind, "__futurefarm_keywords__", None)
    return ((item,), {}) if as_keywords is None else ((), as_keywords(item))


def dumps_item(item: Any) -> bytes:
    """Pickle an element of ``args``, what ``__main__`` and notebooks define included by value."""
    if type(item) in _PLAIN:
        return _small_enough(pickle.dumps(item, PROTOCOL))
    parts = item if type(item) is tuple else (item,)
    for part in parts:
        kind = type(part)
        if kind not in _PLAIN and not (kind.__module__ == "numpy" and not _holds_objects(part)):
            return _small_enough(_dumps_by_value(item))
    return _small_enough(pickle.dumps(item, PROTOCOL))


def _holds_objects(part: Any) -> bool:
    return bool(getattr(getattr(part, "dtype", None), "hasobject", True))


def dumps_function(function: Callable[..., Any], *bound: Any) -> bytes:
    """Pickle the user's function, by value where a worker could not import it."""
    return _dumps_by_value((function, *bound))


def dumps_result(value: Any) -> bytes:
    """Pickle a result so that `shelve` reads it.

    Where pickle cannot find a class or function by its name, because only the script or notebook has it, that
    goes by value. Only then: cloudpickle would silently store half a simulator for the view of one of its
    variables, which pickle refuses for other reasons.

    Raises:
        UnstorableError: the value cannot be pickled.
    """
    return dumps_apart(value, sys.maxsize)[0]


def dumps_apart(value: Any, least: int) -> tuple[bytes, list[pickle.PickleBuffer]]:
    """Pickle a result as `dumps_result` does, but leave out the memory of arrays from ``least`` bytes on.

    Returns:
        The pickle, of any length, and the buffers that it asks for. They are the arrays' own memory.

    Raises:
        UnstorableError: the value cannot be pickled.
    """
    if type(value) in _PLAIN:  # many are, and have no buffers
        return pickle.dumps(value, PROTOCOL), []
    apart, in_band = _sieve(least)
    try:
        return pickle.dumps(value, PROTOCOL, buffer_callback=in_band), apart
    except (pickle.PicklingError, AttributeError) as not_found:
        apart.clear()
        try:
            return _dumps_by_value(value, in_band), apart
        except Exception:
            raise _unstorable(value, not_found) from not_found
    except Exception as error:
        raise _unstorable(value, error) from error


def dumps_shared(values: Any, least: int) -> tuple[bytes, list[pickle.PickleBuffer]]:
    """Pickle what tasks share: by value as `dumps_item`, without the memory of arrays as `dumps_apart`."""
    apart, in_band = _sieve(least)
    return _dumps_by_value(values, in_band), apart


def _sieve(least: int) -> tuple[list[pickle.PickleBuffer], Callable[[pickle.PickleBuffer], bool]]:
    """Return a list, and what a pickler asks whether a buffer stays in: large ones go to the list."""
    apart: list[pickle.PickleBuffer] = []

    def in_band(buffer: pickle.PickleBuffer) -> bool:
        small = buffer.raw().nbytes < least
        if not small:
            apart.append(buffer)
        return small

    return apart, in_band


def _small_enough(data: bytes) -> bytes:
    if len(data) > LARGEST:
        raise UnstorableError(
            f"an argument of {len(data):,} bytes cannot be stored: SQLite takes up to {LARGEST:,} in one "
            f"piece. Divide it, or put it into a file of your own and pass its name."
        )
    return data


def _dumps_by_value(value: Any, in_band: Callable[[pickle.PickleBuffer], bool] | None = None) -> bytes:
    file = io.BytesIO()
    pickler = _by_value()(file, PROTOCOL, in_band)
    pickler.dump(value)
    return file.getvalue()


@functools.cache
def _by_value() -> Any:
    """Return a pickler for what cannot be imported; it is made late, as its own import takes long."""
    import cloudpickle

    reduce = cloudpickle.Pickler.dispatch_table[types.CodeType]

    def reduce_code(code: types.CodeType) -> tuple[Any, ...]:
        # Some versions of cloudpickle forget the file, and tracebacks would show no line of the script.
        make, arguments, *rest = reduce(code)
        known = tuple(code.co_filename if part == "<dynamic-code>" else part for part in arguments)
        return (make, known, *rest)

    class ByValue(cloudpickle.Pickler):  # type: ignore[misc]
        dispatch_table: ClassVar[Any] = cloudpickle.Pickler.dispatch_table.new_child(
            {types.CodeType: reduce_code}
        )

    return ByValue


def _unstorable(value: Any, error: Exception) -> UnstorableError:
    hint = "numbers, arrays, lists or dicts"
    if isinstance(value, types.GeneratorType):
        hint = "list(...)"
    elif isinstance(value, types.CoroutineType):
        hint = "asyncio.run(...)"
    return UnstorableError(
        f"a result of type {type(value).__module__}.{type(value).__qualname__} cannot be stored "
        f"({type(error).__name__}: {error}). Return plain values: {hint}."
    )
