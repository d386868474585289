"""The machine that figures belong to."""

from __future__ import annotations

import os
import platform
import resource
import sqlite3
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

__all__ = ["describe", "stolen", "used_by_others"]

PACKAGES = ["futurefarm", "joblib", "mpire", "loky", "numpy", "filelock"]


def describe() -> dict[str, str | int]:
    """Return what of the machine and its software shows in the figures."""
    return {
        "cores": len(os.sched_getaffinity(0)),
        "processor": _processor(),
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "file system": _file_system(tempfile.gettempdir()),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "sqlite": sqlite3.sqlite_version,
        **{name: _version(name) for name in PACKAGES},
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _file_system(path: str) -> str:
    within = [part for part in psutil.disk_partitions(all=True) if Path(path).is_relative_to(part.mountpoint)]
    return max(within, key=lambda part: len(part.mountpoint)).fstype if within else "unknown"


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing"


def used_by_others() -> float:
    """Return the seconds of its processors that others have used, since some moment.

    Others are all but this process and those that it has waited for; also the kernel, where it works for
    nobody in particular.
    """
    times = psutil.cpu_times()
    own = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    ours = sum(usage.ru_utime + usage.ru_stime for usage in own)
    return float(times.user + times.nice + times.system - ours) / len(os.sched_getaffinity(0))


def stolen() -> float:
    """Return the seconds of its processors that this machine's host has given to other machines."""
    times = psutil.cpu_times()
    return float(getattr(times, "steal", 0.0)) / len(os.sched_getaffinity(0))
