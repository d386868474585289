"""How many cores this process may use, and how many threads of each library that leaves a worker.

Libraries of linear algebra and OpenMP start a thread for each core of the computer. In as many workers as
there are cores that makes far more threads than can run, and everything slower.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress
from pathlib import Path, PurePosixPath
from typing import Any

__all__ = ["limits_of_threads", "threads_limited_here", "usable_cores"]

VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMBA_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)
"""What the libraries ask for when they are loaded; later nobody hears."""

_CGROUPS = Path("/sys/fs/cgroup")


def usable_cores() -> int:
    """Return the number of cores that this process may use, at least 1.

    Counted are those to which it is bound, as by ``taskset`` and batch systems, and the quota of its control
    group, as of containers: 1.5 cores of time count as 2, and 1.4 as 1.
    """
    if hasattr(os, "process_cpu_count"):
        cores = os.process_cpu_count() or 1
    elif hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    for quota in _quotas():
        cores = min(cores, int(quota + 0.5))
    return max(1, cores)


def _quotas(root: Path = _CGROUPS, own: Path = Path("/proc/self/cgroup")) -> Iterator[float]:
    """Yield the quotas, in cores, of the control groups around this process."""
    with suppress(OSError):  # not Linux
        for line in own.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            for folder in (*PurePosixPath(path).parents, PurePosixPath(path)):
                # In a container the path may be that of its host; what is mounted then is the group itself.
                inside = str(folder).lstrip("/")
                if not controllers:
                    yield from _quota(root / inside / "cpu.max")
                elif "cpu" in controllers.split(","):
                    yield from _quota(root / "cpu" / inside / "cpu.cfs_quota_us", "cpu.cfs_period_us")


def _quota(path: Path, beside: str | None = None) -> Iterator[float]:
    """Yield a quota, if there is one: of version 2 from one file (``max 100000``), of version 1 from two."""
    with suppress(OSError):
        text = path.read_text() + (f" {path.with_name(beside).read_text()}" if beside else "")
        found = re.fullmatch(r"\s*(\d+)\s+([1-9]\d*)\s*", text)  # no quota: "max", or -1
        if found:
            yield int(found[1]) / int(found[2])


def limits_of_threads(workers: int, threads: int | None) -> dict[str, str]:
    """Return the variables that a worker process needs, so that all together have a thread for each core.

    Args:
        workers: how many there are.
        threads: how many each shall have, whatever the user's environment says; by default its fair share,
            and what the user has set himself is left as it is.

    Example:
        >>> limits_of_threads(2, 3)["OMP_NUM_THREADS"]
        '3'
    """
    if threads is not None:
        return dict.fromkeys(VARIABLES, str(threads))
    share = max(1, usable_cores() // workers)
    return {name: str(share) for name in VARIABLES if name not in os.environ}


def threads_limited_here(threads: int) -> AbstractContextManager[Any] | None:
    """Return a block in which libraries that this process has loaded use so many threads.

    None without the package threadpoolctl: a library that is loaded does not look at the environment again.
    """
    try:
        from threadpoolctl import threadpool_limits
    except ImportError:
        return None
    return threadpool_limits(threads)  # type: ignore[no-any-return]
