"""A thread beside the workers of a process: it commits what waits, seals what lies idle, bounds output."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .crew import Crew

__all__ = ["Keeper"]

FLUSH_AFTER = 0.4
"""Seconds for which a slow task may hold back the finished ones before it in its chunk."""

SEAL_AFTER = 1.0
"""Seconds of idleness after which a session is made one plain file."""

LOOK = 0.05


class Keeper:
    """Looks after a crew until the sweep is over and the session is sealed."""

    def __init__(self, crew: Crew) -> None:
        self._crew = crew
        self._woken = threading.Event()
        self._urgent = self._over = False
        self._thread = threading.Thread(target=self._run, name="futurefarm-keeper", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._over = True
        self._woken.set()
        if self._thread is not threading.current_thread():
            self._thread.join()

    def commit_soon(self) -> None:
        """Commit what waits, beside the task that runs."""
        self._urgent = True
        self._woken.set()

    def _run(self) -> None:
        looked = time.monotonic()
        while not self._over:
            self._woken.wait(LOOK)
            self._woken.clear()
            if self._urgent:
                self._urgent = False
                self._flush(0.0)
            if time.monotonic() - looked >= LOOK:
                looked = time.monotonic()
                if not self._look_around():
                    return

    def _flush(self, age: float) -> None:
        for batch in list(self._crew.pending.values()):
            batch.flush_if_older(age)

    def _look_around(self) -> bool:
        """Do what is to be done now and then; whether there may be more to do."""
        crew = self._crew
        self._flush(FLUSH_AFTER)
        crew.note_memory()
        if crew.busy and crew.capture is not None:
            crew.capture.tidy()
        idle = crew.has_session and not crew.busy
        if idle and (crew.is_ending or time.monotonic() - crew.idle_since > SEAL_AFTER):
            crew.seal()
        return crew.has_session or not crew.is_over
