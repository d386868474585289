"""What ran: the record that each sweep leaves in every session that holds results of it."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from .directory import computer_name
from .identity import function_name

__all__ = ["new_sweep_id", "sweep_record"]


def new_sweep_id() -> str:
    """Return a unique id that sorts by time: ``20261122-131707-3f9a2c``."""
    return f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{os.urandom(3).hex()}"


def sweep_record(
    function: Callable[..., Any], executor: str, workers: int, total: int | None, shared: Mapping[str, str]
) -> str:
    """Return the provenance of a sweep as JSON: code, environment, host, time.

    ``shared`` are the fingerprints of what its tasks share, by names.
    """
    return json.dumps(
        {
            "function": function_name(function),
            "source": _source_hash(function),
            "executor": executor,
            "workers": workers,
            "total": total,
            "shared": dict(shared),
            "by": computer_name(),
            "pid": os.getpid(),
            "argv": sys.argv,
            "cwd": os.getcwd(),
            "python": platform.python_version(),
            "platform": platform.platform(),
            "started": time.time(),
        }
    )


def _source_hash(function: Callable[..., Any]) -> str | None:
    """Return a hash of the source text, or None where there is none (built-in, typed at a prompt)."""
    try:
        source = inspect.getsource(inspect.unwrap(getattr(function, "func", function)))
    except (OSError, TypeError):
        return None
    return hashlib.blake2b(source.encode(), digest_size=8).hexdigest()
