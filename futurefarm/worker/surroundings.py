"""What a task finds around it in its process, and what is put back after one that has changed it."""

from __future__ import annotations

import os
import sys
import threading
from contextlib import suppress

__all__ = ["ProcessSurroundings", "Surroundings"]


class Surroundings:
    """Puts back what belongs to the thread: tracing and profiling, which would also see our own code."""

    def __init__(self) -> None:
        self._trace = sys.gettrace()
        self._profile = sys.getprofile()

    def put_back(self) -> None:
        if sys.gettrace() is not self._trace:
            sys.settrace(self._trace)
        if sys.getprofile() is not self._profile:
            sys.setprofile(self._profile)

    def close(self) -> None:
        """Let go of what it holds."""


class ProcessSurroundings(Surroundings):
    """Puts back what belongs to a worker process, where that costs next to nothing.

    That is its directory, the mode of new files, the depth of recursion, the tracing of new threads. It is
    not the environment, the locale, warning filters and random generators: to look at them would cost more
    than a small task, and many a task relies on what an earlier one has set up.
    """

    def __init__(self) -> None:
        super().__init__()
        self._directory = os.open(".", os.O_RDONLY | os.O_CLOEXEC)
        self._umask = os.umask(0o077)
        os.umask(self._umask)
        self._depth = sys.getrecursionlimit()

    def put_back(self) -> None:
        super().put_back()
        try:
            os.fchdir(self._directory)  # also into one that was moved or removed
        except OSError:
            pass  # the task closed all descriptors
        os.umask(self._umask)
        if sys.getrecursionlimit() != self._depth:
            sys.setrecursionlimit(self._depth)
        if threading.gettrace() is not self._trace:
            threading.settrace(self._trace)

    def close(self) -> None:
        with suppress(OSError):
            os.close(self._directory)
