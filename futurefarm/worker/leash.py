"""The tie between a worker process and the process that called ``run_tasks``."""

from __future__ import annotations

import multiprocessing
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

from ..status import descendants, process_start, this_process

__all__ = [
    "end_descendants",
    "hold",
    "is_child_of",
    "kill",
    "prepare_process",
    "prepare_process_of_loky",
    "signals_held",
]

LOOK = 0.25
"""Seconds between two looks at the parent, where the kernel does not tell of its death by itself."""


def prepare_process(parent: tuple[str, int, int]) -> None:
    """Make a worker process deaf to Ctrl-C, about which its parent decides, and tie it to that parent.

    The terminal sends Ctrl-C to the workers, too, and SIGHUP when it is closed: by that they would die before
    what their tasks have started can be ended. Ignoring it is not enough: simulators install handlers of
    their own when they are imported. Brian 2's ends the running simulation and returns what there is, which
    would be stored as a result. Hence it stays blocked, too, as in `signals_held`.
    """
    with suppress(ValueError):  # not the main thread: then Python delivers no signal here anyway
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if hasattr(signal, "SIGHUP"):
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    hold(parent)  # last: its thread inherits what is blocked


def prepare_process_of_loky(parent: tuple[str, int, int]) -> None:
    """Prepare a worker of loky, also for tasks that start processes of the standard library.

    loky makes its own way of starting processes the default one, and those do not know it and die. Python's
    default is no choice: it may be to fork, with the locks that our threads hold. It stands here, and not in
    the room of loky's executor, which workers would load for it with all the executors.
    """
    methods = multiprocessing.get_all_start_methods()
    multiprocessing.set_start_method("forkserver" if "forkserver" in methods else "spawn", force=True)
    prepare_process(parent)


@contextmanager
def signals_held() -> Iterator[None]:
    """Hold signals back in this block.

    Processes that start in it inherit that, so Ctrl-C cannot kill them before they are made deaf to it.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    # A fork server keeps them blocked for good, which is right: it ends with the program.
    held = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, held)


def is_child_of(parent: tuple[str, int, int]) -> bool:
    """Whether this process was made by the one that called ``run_tasks``, and is to end with it."""
    host, pid, _ = parent
    if host != this_process()[0] or pid == os.getpid():
        return False
    made_by = multiprocessing.parent_process()
    return os.getppid() == pid or (made_by is not None and made_by.pid == pid)


_held: set[tuple[str, int, int]] = set()


def hold(parent: tuple[str, int, int]) -> None:
    """End this process when its parent dies.

    The pools of loky and of the standard library leave orphans, which go on with what was queued. Linux's
    ``PR_SET_PDEATHSIG`` was rejected: under a fork server the parent that it watches is the server.
    """
    if parent not in _held:
        _held.add(parent)
        threading.Thread(target=_watch, args=parent[1:], name="futurefarm-leash", daemon=True).start()


def _watch(pid: int, started: int) -> None:
    with suppress(AttributeError, OSError):  # not Linux, or gone already
        fd = os.pidfd_open(pid)
        if process_start(pid) == started:
            poll = select.poll()
            poll.register(fd, select.POLLIN)
            poll.poll()
    while process_start(pid) == started:
        time.sleep(LOOK)
    end_descendants()
    os._exit(1)  # a commit that is cut off here leaves the session as it was before it


def end_descendants(thread: int | None = None) -> None:
    """End what tasks in this process, or in one thread of it, have started (see `status.descendants`).

    When only a thread ends, the process goes on and needs its servants.
    """
    _kill(descendants(os.getpid(), thread, but=() if thread is None else _servants()))


_SERVANTS = (
    ("multiprocessing.resource_tracker", "_resource_tracker", "_pid"),
    ("multiprocessing.forkserver", "_forkserver", "_forkserver_pid"),
    ("loky.backend.resource_tracker", "_resource_tracker", "_pid"),
)


def _servants() -> set[int]:
    """Return the processes that serve all of this one, although the task that needed them first made them.

    They have no public name. Modules that are not loaded have made none.
    """
    keepers = [(getattr(sys.modules.get(module), name, None), pid) for module, name, pid in _SERVANTS]
    return {getattr(keeper, pid, None) or 0 for keeper, pid in keepers}


def kill(pid: int) -> None:
    """End a process of this host at once, and what it has started; one that is gone already is no error."""
    with suppress(ProcessLookupError, AttributeError):
        os.kill(pid, signal.SIGSTOP)  # so that it starts nothing more
    _kill([pid, *descendants(pid)])


def _kill(processes: Iterable[int]) -> None:
    for pid in processes:
        with suppress(ProcessLookupError):
            os.kill(pid, getattr(signal, "SIGKILL", signal.SIGTERM))  # Windows ends a process by SIGTERM, too
