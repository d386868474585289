"""Other engines, run as their manuals say: each function here farms one function over items on two workers.

``told(number, error, value)`` is called for each item as its answer comes; ``error`` is None if it went well.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future, as_completed
from typing import Any

__all__ = ["PEERS", "farm"]

Told = Callable[[int, "BaseException | None", Any], None]

PEERS = ("loky", "stdlib", "joblib", "mpire", "pebble")
WORKERS = 2


def farm(peer: str, function: Any, items: Sequence[Any], told: Told, timeout: float | None = None) -> None:
    """Run a function over items; ``timeout`` seconds per item count for the peers that have such a thing."""
    {"loky": _loky, "stdlib": _stdlib, "joblib": _joblib, "mpire": _mpire, "pebble": _pebble}[peer](
        function, items, told, timeout
    )


def _loky(function: Any, items: Sequence[Any], told: Told, timeout: float | None) -> None:
    from loky import ProcessPoolExecutor

    with ProcessPoolExecutor(WORKERS) as executor:
        _submit_all(executor, function, items, told)


def _stdlib(function: Any, items: Sequence[Any], told: Told, timeout: float | None) -> None:
    from concurrent.futures import ProcessPoolExecutor

    context = multiprocessing.get_context("forkserver")
    with ProcessPoolExecutor(WORKERS, mp_context=context) as executor:
        _submit_all(executor, function, items, told)


def _submit_all(executor: Executor, function: Any, items: Sequence[Any], told: Told) -> None:
    futures: dict[Future[Any], int] = {}
    for number, item in enumerate(items):
        try:
            futures[executor.submit(function, item)] = number
        except Exception as error:  # the pool is broken, and takes nothing more
            told(number, error, None)
    _collect(futures, told)


def _pebble(function: Any, items: Sequence[Any], told: Told, timeout: float | None) -> None:
    from pebble import ProcessPool

    with ProcessPool(WORKERS, context=multiprocessing.get_context("forkserver")) as pool:
        futures = {
            pool.schedule(function, args=[item], timeout=timeout): number for number, item in enumerate(items)
        }
        _collect(futures, told)


def _collect(futures: dict[Future[Any], int], told: Told) -> None:
    for future in as_completed(futures):
        try:
            value = future.result()
        except BaseException as error:
            told(futures[future], error, None)
        else:
            told(futures[future], None, value)


def _joblib(function: Any, items: Sequence[Any], told: Told, timeout: float | None) -> None:
    from joblib import Parallel, delayed

    waiting = set(range(len(items)))
    parallel = Parallel(WORKERS, return_as="generator_unordered", timeout=timeout)
    try:
        for number, value in parallel(delayed(_numbered)(function, *pair) for pair in enumerate(items)):
            waiting.discard(number)
            told(number, None, value)
    except BaseException as error:  # it ends the whole call
        for number in waiting:
            told(number, error, None)


def _numbered(function: Any, number: int, item: Any) -> tuple[int, Any]:
    return number, function(item)


def _mpire(function: Any, items: Sequence[Any], told: Told, timeout: float | None) -> None:
    from mpire import WorkerPool

    with WorkerPool(WORKERS, start_method="forkserver") as pool:
        answers = [pool.apply_async(function, (item,), task_timeout=timeout) for item in items]
        for number, answer in enumerate(answers):
            try:
                value = answer.get()
            except BaseException as error:
                told(number, error, None)
            else:
                told(number, None, value)
