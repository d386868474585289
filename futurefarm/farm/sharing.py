"""Sharing the tasks with other sweeps that run in the same directory, so that each is done once."""

from __future__ import annotations

import time
import warnings
from typing import TYPE_CHECKING

from ..claims import Claims, claim_of
from ..errors import SessionError
from ..session import seal
from ..task import Task

if TYPE_CHECKING:
    from .sweep import Sweep

__all__ = ["Sharing", "SharingWarning"]

LOOK = 0.5
"""Seconds between two looks at what the others have finished."""

NOTICE = 2.0
"""Seconds of waiting for others alone after which a line says so."""

STOPPED = 60.0
"""Seconds after which the tasks of a sweep that somebody has stopped (Ctrl-Z) are done here."""


class SharingWarning(UserWarning):
    """Sweeps that run in this directory at the same time cannot share their tasks."""


class Sharing:
    """Sets tasks aside that other living sweeps have begun, and sees what becomes of them.

    Only a sweep with ``resume=True`` shares: without it, tasks are added whatever others do.
    """

    def __init__(self, sweep: Sweep) -> None:
        self._sweep = sweep
        directory = sweep.plan.dataman.directory
        self._claims = Claims(directory, sweep.name) if sweep.plan.options.resume else None
        self._aside: dict[bytes, Task] = {}
        self._seen: dict[str, int] = {}
        self._finished: set[bytes] = set()
        self._looked = 0.0
        self._waiting: float | None = None
        self._told = False
        self._stopped: dict[str, float] = {}

    @property
    def waits(self) -> bool:
        """Whether others are doing tasks of this sweep."""
        return bool(self._aside)

    def begin(self) -> None:
        """Tell the others of this sweep; to be called before the ledger is read."""
        if self._claims is not None:
            try:
                self._claims.begin()
            except OSError as error:
                self._give_up(error)

    def end(self) -> None:
        if self._claims is not None:
            self._claims.end()

    def ours(self, chunk: list[Task]) -> list[Task]:
        """Return those tasks of a chunk that no other sweep has begun; the others are set aside."""
        if self._claims is None:
            return chunk
        try:
            taken = self._claims.take(chunk)
        except OSError as error:
            self._give_up(error)
            return chunk
        if not taken:
            return chunk
        ours = []
        for task in chunk:
            key = claim_of(task.identity, task.replicate)
            if key in taken:
                self._aside[key] = task
            else:
                ours.append(task)
        self._looked = 0.0  # their sweep may have ended already
        return ours

    def look(self) -> None:
        """See what the others have done: it counts as skipped. What they left is done here."""
        now = time.monotonic()
        if self._claims is None or not self._aside or now - self._looked < LOOK:
            return
        self._looked = now
        try:
            self._look(self._claims, now)
        except OSError as error:
            self._give_up(error)

    def _look(self, claims: Claims, now: float) -> None:
        owners = {owner for key in self._aside for owner in claims.owners(key)}
        gone = [owner for owner in owners if not claims.is_alive(owner) or self._is_stopped(owner, now)]
        self._read_ledger()  # after it was seen who is gone: so all that they did is there
        for owner in gone:
            claims.forget(owner)
        finished = self._aside.keys() & self._finished
        for key in finished:
            del self._aside[key]
        self._sweep.progress.skip(len(finished))
        left = [key for key in self._aside if not claims.owners(key)]
        self._sweep.scheduler.put_back([self._aside.pop(key) for key in left])
        self._tell(now, sorted(owners))

    def _is_stopped(self, owner: str, now: float) -> bool:
        assert self._claims is not None
        if not self._claims.is_stopped(owner):
            self._stopped.pop(owner, None)
            return False
        return now - self._stopped.setdefault(owner, now) > STOPPED

    def _read_ledger(self) -> None:
        for path in self._sweep.directory.sessions():
            if path.name in self._sweep.sessions:
                continue
            try:
                self._read_session(path.name)
            except SessionError:  # its writer was killed at an odd moment: to seal it mends that
                seal(self._sweep.directory, path.name)
                self._read_session(path.name)

    def _read_session(self, name: str) -> None:
        for row, identity, replicate, status in self._sweep.plan.dataman.news(name, self._seen.get(name, 0)):
            self._seen[name] = row
            if status == "ok":
                self._finished.add(claim_of(identity, replicate))

    def _tell(self, now: float, owners: list[str]) -> None:
        if not self._sweep.scheduler.finished or not self._aside:
            self._waiting = None
        elif self._waiting is None:
            self._waiting = now
        elif now - self._waiting > NOTICE and not self._told:
            self._told = True
            self._sweep.progress.say(
                f"waiting for {len(self._aside)} tasks that another run in {self._sweep.directory.path} has "
                f"begun ({', '.join(owners)})"
            )

    def _give_up(self, error: OSError) -> None:
        """Do everything here, from now on."""
        warnings.warn(
            f"runs in {self._sweep.directory.path} at the same time cannot share their tasks, and may do "
            f"some of them twice ({type(error).__name__}: {error}).",
            SharingWarning,
            stacklevel=2,
        )
        claims, self._claims = self._claims, None
        left, self._aside = list(self._aside.values()), {}
        self._sweep.scheduler.put_back(left)
        if claims is not None:
            claims.end()
