"""Run a function over many arguments; every result is on disk the moment it is done.

::

    import numpy as np
    from futurefarm import DataManager, run_tasks

    def area(radius):
        return radius, np.pi * radius**2

    if __name__ == "__main__":
        dataman = DataManager("circles")            # the directory circles.data/
        run_tasks(dataman, area, np.linspace(0, 1, 100), resume=True)
        for radius, square in dataman.values():
            print(radius, square)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .dataman import DataManager
    from .errors import FutureFarmError, TasksFailedError
    from .farm import Summary, run_tasks
    from .ledger import Record
    from .spaces import Params
    from .stop import StopFlag

__all__ = [
    "DataManager",
    "FutureFarmError",
    "Params",
    "Record",
    "StopFlag",
    "Summary",
    "TasksFailedError",
    "__version__",
    "run_tasks",
]

# Loaded when first used: a worker that imports futurefarm must not load numpy, tqdm or loky for it.
_HOMES = {
    "DataManager": "dataman",
    "FutureFarmError": "errors",
    "Params": "spaces",
    "Record": "ledger",
    "StopFlag": "stop",
    "Summary": "farm",
    "TasksFailedError": "errors",
    "run_tasks": "farm",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("futurefarm")
    if name in _HOMES:
        value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
