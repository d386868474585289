"""One worker process, and the executor that it serves."""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future
from dataclasses import dataclass
from typing import Any

from ..errors import WorkerDiedError
from ..worker import kill

__all__ = ["Call", "Ship", "dismiss"]

MAX_STARTS = 3
"""Times in a row that a call is handed to a worker which turns out to be dead already."""

UNNOTICED = 1.0
"""Seconds after which the death of a process counts although its executor has not noticed it."""

SETTLE = 1.0
"""Seconds to wait for the exit code of a process that is known to be dead."""

QUICK = 0.25
SEEN = 8
"""A call waits with a ship if that took less than so many seconds for each of its last calls."""

LEAVE = 3.0
"""Seconds for a process to leave when it may; a thread that a task has left behind would keep it for ever."""


@dataclass(frozen=True, eq=False)
class Call:
    """What a ship is to run, and the future that waits for it."""

    future: Future[Any]
    submit_to: Callable[[Executor], Future[Any]]


class Ship:
    """One worker: an executor with one process, made when it is needed, and made again when it dies.

    Args:
        make: makes an executor with one process.
        kind: what tells it from ships whose processes were started otherwise.
    """

    def __init__(self, make: Callable[[], Executor], kind: Hashable = None) -> None:
        self._make = make
        self.kind = kind
        self._executor: Executor | None = None
        self._processes: dict[int, Any] = {}
        self._dead_since: float | None = None
        self.calls: list[Call] = []
        """What it runs, and what it will run next."""
        self._took: deque[float] = deque(maxlen=SEEN)
        self._since = 0.0
        self._starting = threading.Lock()

    @property
    def is_warm(self) -> bool:
        """Whether it has a process that waits for calls."""
        return not self.calls and self._executor is not None and not self._is_dead

    @property
    def is_quick(self) -> bool:
        """Whether its calls end so soon that one may stand behind the one that runs."""
        return len(self._took) == SEEN and max(self._took) < QUICK

    def board(self, call: Call) -> None:
        """Note that it has to run a call."""
        if not self.calls:
            self._since = time.monotonic()
        self.calls.append(call)

    def lighten(self, call: Call) -> None:
        """Note that a call has ended."""
        now = time.monotonic()
        self._took.append(now - self._since)
        self._since = now
        self.calls.remove(call)

    def run(
        self,
        call: Call,
        ended: Callable[[Ship, Call, Future[Any]], None],
        died: Callable[[Ship, WorkerDiedError], None],
    ) -> None:
        """Start a call; ``ended`` is called with the future that has its result, or ``died``."""
        try:
            with self._starting:
                inner = self._start(call)
        except WorkerDiedError as error:
            died(self, error)
            return

        def answer(inner: Future[Any]) -> None:
            if isinstance(inner.exception(), BrokenExecutor):
                if call in self.calls:  # else this was told by another call
                    died(self, self.bury())
            else:
                ended(self, call, inner)

        inner.add_done_callback(answer)

    def _start(self, call: Call) -> Future[Any]:
        starts = 0
        while True:
            if self._is_dead:
                self._give_up_unless_alone(call)
            if self._executor is None:
                self._executor = self._make()
            try:
                inner = call.submit_to(self._executor)
            except BrokenExecutor:
                died = self._give_up_unless_alone(call)
                starts += 1
                if starts == MAX_STARTS:
                    raise died from None
                continue
            except Exception as error:
                # No process could be started, say; but the call is in its queue, and nobody may run it now.
                self._note_processes()
                self.kill()
                self.bury()
                problem = f"a worker could not be started ({type(error).__name__}: {error})."
                raise WorkerDiedError(problem, pid=None, exitcode=None) from error
            self._note_processes()
            return inner

    def _give_up_unless_alone(self, call: Call) -> WorkerDiedError:
        """Bury a process that died while nothing ran on it; raise the error if something did."""
        died = self.bury()
        if self.calls[0] is not call:
            raise died
        return died

    def tell(self, message: Callable[[], object]) -> Future[Any] | None:
        """Let the process, which waits, call something; None where it is not there any more."""
        try:
            return self._executor.submit(message) if self.is_warm and self._executor else None
        except Exception:  # it died at this moment
            return None

    def _note_processes(self) -> None:
        # They have no public name: both loky and the standard library keep {pid: process} here.
        found = getattr(self._executor, "_processes", None)
        if isinstance(found, Mapping) and found:
            self._processes = dict(found)
        self._dead_since = None

    def bury(self) -> WorkerDiedError:
        """Forget a dead process and its executor; return how it ended."""
        pid = exitcode = None
        for process in self._processes.values():
            process.join(SETTLE)
            pid, exitcode = process.pid, process.exitcode
        executor, self._executor, self._processes = self._executor, None, {}
        self._took.clear()
        if executor is not None:
            getattr(executor, "let_go", lambda: executor.shutdown(wait=False))()
        return WorkerDiedError.of(pid, exitcode)

    def died_unnoticed(self) -> bool:
        """Whether the process has been dead for a while; to be asked again and again."""
        if not self._is_dead:
            self._dead_since = None
            return False
        if self._dead_since is None:
            self._dead_since = time.monotonic()
        return time.monotonic() - self._dead_since > UNNOTICED

    @property
    def _is_dead(self) -> bool:
        return bool(self._processes) and not any(process.is_alive() for process in self._processes.values())

    def kill(self) -> None:
        for pid in self._processes:
            kill(pid)

    def disown(self) -> None:
        """Let multiprocessing forget, in a forked child, its parent's process: it would wait for that."""
        children: set[Any] = getattr(sys.modules["multiprocessing.process"], "_children", set())
        children.difference_update(self._processes.values())

    def let_leave(self) -> None:
        """Let the process end when it has done what it runs."""
        executor, self._executor = self._executor, None
        if executor is not None:
            executor.shutdown(wait=False)

    def see_off(self, deadline: float) -> None:
        """Wait until the process has left; end it if it has not at the deadline, by `time.monotonic`."""
        for pid, process in self._processes.items():
            process.join(max(0.0, deadline - time.monotonic()))
            if process.is_alive():
                kill(pid)
                process.join(SETTLE)
        self._processes = {}


def dismiss(ships: Sequence[Ship]) -> None:
    """Let the processes of ships that run nothing leave, and see that they do.

    All at once: each takes the time that an interpreter needs to end. Without threads, which cannot be
    started any more when the program ends.
    """
    for ship in ships:
        ship.let_leave()
    deadline = time.monotonic() + LEAVE
    for ship in ships:
        ship.see_off(deadline)
