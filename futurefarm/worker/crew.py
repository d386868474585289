"""The workers of one process for one sweep, and the session through which they commit."""

from __future__ import annotations

import errno
import os
import pickle
import sys
import threading
import time
from contextlib import suppress
from typing import Any

from ..blobs import LARGE
from ..bundle import NotSeenError, forget, unpack, unpack_whole
from ..directory import Directory, new_session_name, stop_mark
from ..errors import FutureFarmError, SessionClosedError, SessionError, StorageFullError
from ..limit import Limit
from ..session import LOG_LIMIT, Session
from ..status import Page
from ..task import Chunk, Job, Outcome, Receipt, Task, dumps_apart, dumps_result
from .batch import Batch
from .capture import Capture
from .keeper import Keeper
from .kept import Kept
from .leash import is_child_of, prepare_process
from .outfile import OutputFile
from .seat import Seat, takes_report
from .streams import Streams
from .surroundings import ProcessSurroundings, Surroundings

__all__ = ["Crew", "commit", "join", "leave", "run_chunk"]

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

_MAXRSS_UNIT = 1 if sys.platform == "darwin" else 1024

STOP_LOOK = 0.03
"""Seconds between two looks at the stop files."""


def run_chunk(data: bytes) -> bytes:
    """Run the tasks of a chunk, commit how they ended, and return a receipt; see `task.Receipt`."""
    job, tasks, shared = Chunk.loads(data)
    return _crew(job).run(tasks, shared).dumps()


_crews: dict[bytes, Crew] = {}
_crews_lock = threading.Lock()


def _crew(data: bytes) -> Crew:
    with _crews_lock:
        crew = _crews.get(data)
        if crew is None:
            for other in [other for other in _crews if _crews[other].is_over]:
                _crews.pop(other).retire()  # warm workers see many sweeps
            crew = _crews[data] = Crew(Job(*pickle.loads(data)))
        return crew


_here: dict[str, tuple[Any, ...]] = {}


def join(sweep: str, function: tuple[Any, ...]) -> None:
    """Tell the function of a sweep, and what goes with it, to the workers of this process: no copy of it."""
    _here[sweep] = function


def leave(sweep: str) -> None:
    """Forget a sweep in this process: its pages are removed and its session is sealed."""
    _here.pop(sweep, None)
    with _crews_lock:
        for data, crew in list(_crews.items()):
            if crew.job.sweep == sweep:
                del _crews[data]
                crew.retire()


def commit(job: bytes, outcomes: list[Outcome]) -> str:
    """Commit outcomes through the session of this process; return its name. See `Crew.commit`."""
    return _crew(job).commit(outcomes)


_inherited: list[Crew] = []
"""Crews of the process that this one was forked from; kept, as letting go of them would close their files."""


def _begin_anew() -> None:
    """Forget, in a forked child, the crews of its parent, and a lock that another thread may have held."""
    global _crews_lock
    _crews_lock = threading.Lock()
    _inherited.extend(_crews.values())
    _crews.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)


class Crew:
    """The workers of one process for one sweep: one for each of its threads that is used."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.directory = Directory(job.directory)
        self.sees = self.directory.id == job.directory_id
        self.leashed = is_child_of(job.parent)
        self._home = os.getpid()
        self._seats = threading.local()
        self._seated: list[Seat] = []
        self.capture: Capture | None = None
        self._session: Session | None = None
        self._session_name: str | None = None
        self._kept = Kept()
        self._retired = False
        self._lock = threading.RLock()
        self._stop_looked = -STOP_LOOK
        self._stopped = False
        self._stop_of_sweep = self.directory.stop_of(job.sweep)
        self.busy = 0
        self.idle_since = time.monotonic()
        self.pending: dict[int, Batch] = {}
        self.commit_seconds = 0.001
        """What a commit costs; a first guess, and then what was seen."""
        self._loaded = False
        self.limit = Limit(job.timeout)
        if self.leashed:
            prepare_process(job.parent)
        self._keeper = Keeper(self)
        self._keeper.start()

    def _load(self, shared: bytes | None) -> None:
        self._loaded = True
        self.function: Any = None
        self.shared: dict[str, Any] = {}
        self.is_class = False
        self.load_error: BaseException | None = None
        self.retry_on: tuple[type[BaseException], ...] = (Exception,)
        try:
            # In the calling process itself the very same objects: threads share memory, and users rely on it.
            here = _here.get(self.job.sweep)
            loaded = here or pickle.loads(self.job.function)
            self.function, self.initargs, self.initkwds, self.retry_on = loaded[:4]
            self.is_class = isinstance(self.function, type)
            self.wants_report = takes_report(self.function)
            sent = self._unpack(shared)
            self.shared = loaded[4] if here else sent
        except NotSeenError:
            self._loaded = False
        except BaseException as error:  # the function's module may do anything on import
            self.load_error = error
            self.load_traceback = error.__traceback__

    def _unpack(self, shared: bytes | None) -> dict[str, Any]:
        """Return what the tasks share, from the directory or, where that is not seen, from what was sent."""
        if shared is not None:
            return unpack_whole(shared)
        if not self.job.shared:
            return {}
        path = self.directory.bundle(self.job.sweep, self.job.parent)
        return unpack(self.job.shared, path if self.sees else None)

    # -- running

    def run(self, tasks: list[Task], shared: bytes | None = None) -> Receipt:
        with self._lock:
            seat = self._seat()
            batch = Batch(self, seat)
            self.pending[id(batch)] = batch
            self.busy += 1
            if self.busy == 1:
                seat.capture.take_over()
            if not self._loaded or shared is not None:  # only now: what is printed on import is output, too
                self._load(shared)
        try:
            return batch.run(tasks) if self._loaded else Receipt.lacking()
        finally:
            with self._lock:
                self.busy -= 1
                if not self.busy:
                    seat.capture.give_back()
                self.idle_since = time.monotonic()
                del self.pending[id(batch)]

    def _seat(self) -> Seat:
        seat: Seat | None = getattr(self._seats, "seat", None)
        if seat is None:
            page = self._page() if self.sees else None
            if self.capture is None:
                self.capture = self._make_capture(page)
            surroundings = ProcessSurroundings() if self.leashed and os.name == "posix" else Surroundings()
            seat = self._seats.seat = Seat(self, page, self.capture, surroundings)
            self._seated.append(seat)
            self.note_memory()
        return seat

    def note_memory(self) -> None:
        """Note in the pages how much memory the process has used, for the case that this kills it."""
        if self.leashed and resource is not None:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _MAXRSS_UNIT
            for seat in self._seated:
                if seat.page is not None:
                    seat.page.memory(peak)

    def _page(self) -> Page | None:
        try:
            return Page(self.directory.workers(self.job.sweep), leashed=self.leashed)
        except OSError:  # on a full disk; to work without a page is better than not to work
            return None

    def _make_capture(self, page: Page | None) -> Capture:
        if not self.job.capture:
            return Capture()
        if self.leashed and os.name == "posix":
            return OutputFile(page.path if page else None)
        return Streams()

    def stopped(self, now: float | None = None) -> bool:
        """Whether the sweep is being stopped; looks at the files at most every `STOP_LOOK` seconds."""
        now = time.perf_counter() if now is None else now
        if now - self._stop_looked >= STOP_LOOK and self.sees and not self._stopped:
            self._stop_looked = now
            mark = stop_mark(self.directory.stop)
            self._stopped = (mark is not None and mark != self.job.stop_seen) or self._stop_of_sweep.exists()
        return self._stopped

    # -- committing

    def keep(self, result: Any) -> bytes:
        """Pickle a result. What is large of it goes to disk at once: the next task may change the array.

        Where that fails, the pickle has all of it, and the commit finds out what there is to do.
        """
        if not self.sees:
            return dumps_result(result)
        stream, buffers = dumps_apart(result, LARGE)
        if not buffers and len(stream) < LARGE:
            return stream
        try:
            with self._lock:
                session = self._open()
            return self._kept.keep(session, stream, buffers)
        except SessionError:
            return dumps_result(result)

    def commit_soon(self) -> None:
        """Have what waits committed by another thread, while the next task runs."""
        self._keeper.commit_soon()

    def commit(self, outcomes: list[Outcome]) -> str:
        """Commit outcomes and return the session's name; when it fails, once more through a new one.

        What is large of them goes to disk first, and then stands in the list as it is stored. A file on which
        writing or syncing failed is not written again: a second sync may report success for
        pages that the first one lost. A full disk loses nothing: the same file will do, when there is space.

        Raises:
            StorageFullError: there is no space, and it may help to try again.
            SessionError: both tries failed.
        """
        with self._lock:
            begun = time.perf_counter()
            try:
                session = self._commit(outcomes)
            except StorageFullError:
                raise
            except SessionError:
                self._drop()
                session = self._commit(outcomes)
            # One that took unusually long, because it was the first or had no core, counts for little.
            self.commit_seconds = min(time.perf_counter() - begun, 1.1 * self.commit_seconds)
            return session.name

    def _commit(self, outcomes: list[Outcome]) -> Session:
        session = self._open()
        self._kept.move(outcomes, session)
        session.commit(self.job.sweep, self.job.record, outcomes)
        return session

    def whole(self, outcome: Outcome) -> Outcome:
        """Return an outcome with all of its value in it, for the process that called ``run_tasks``."""
        return self._kept.whole(outcome)

    def _open(self) -> Session:
        if self._retired:
            raise SessionClosedError(f"the sweep {self.job.sweep} is over.", path=self.job.directory)
        if self._session is not None and self._session.log_size > LOG_LIMIT:
            self._drop()
        if self._session is None:
            if (self.directory.id or "") != self.job.directory_id:  # a lock would make a new one
                raise SessionError(
                    f"the directory {self.job.directory} was moved or deleted while its sweep was running.",
                    path=self.job.directory,
                    errno=errno.ENOENT,
                )
            # The name is kept when the session cannot be opened yet: no litter for each try on a full disk.
            self._session_name = self._session_name or new_session_name()
            self._session = Session(self.directory, self._session_name)
        return self._session

    def _drop(self) -> None:
        session, self._session, self._session_name = self._session, None, None
        if session is not None:
            with suppress(FutureFarmError):
                session.close()

    def seal(self) -> None:
        """Make the session one plain file; if more is to be committed, it goes on in the same one."""
        with self._lock:
            if self._session is not None and not self.busy:
                session, self._session = self._session, None
                try:
                    session.close()
                except SessionError:  # its file was overwritten, or the disk failed: go on in a new one
                    self._session_name = None

    def retire(self) -> None:
        """End the crew. Of threads that cannot be ended, what has finished is committed, and nothing more."""
        self._keeper.stop()
        for batch in list(self.pending.values()):
            with suppress(StorageFullError):
                batch.flush()
        with self._lock:
            self._retired = self._stopped = True
            self.shared = {}  # as long as something maps its file, that takes space on the disk
            forget(self.job.shared)
            if os.getpid() == self._home:
                for seat in self._seated:
                    seat.close()
                if self.capture is not None:
                    self.capture.close()
            self._seated.clear()
            self._drop()

    @property
    def is_ending(self) -> bool:
        """Whether the sweep has ended or is being stopped."""
        return self._stop_of_sweep.exists()

    @property
    def is_over(self) -> bool:
        """Whether the sweep has ended: the folder of its pages is the last thing that it removes."""
        return not self.busy and not self.directory.workers(self.job.sweep).exists()

    @property
    def has_session(self) -> bool:
        return self._session is not None
