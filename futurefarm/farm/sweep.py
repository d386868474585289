"""The one loop: submit, collect, count, until nothing is left or somebody says stop."""

from __future__ import annotations

import pickle
import time
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import partial
from typing import Any

from ..bundle import Bundle
from ..cores import threads_limited_here
from ..errors import BrokenExecutorError
from ..executors import Pool
from ..progress import Progress
from ..scheduler import Ended, Scheduler
from ..session import seal
from ..smallfile import make_folder
from ..status import Worker, clear, read
from ..stop import Listener
from ..store import Header
from ..task import Chunk, Job, Receipt
from ..worker import interrupt_running, join, leave
from .deadline import Deadline
from .items import Items
from .plan import Plan
from .repeats import Repeats
from .rescue import UNSENT, Rescue
from .sharing import Sharing
from .shortage import Shortage
from .summary import Summary, failure_of

__all__ = ["Sweep"]

TICK = 0.1
"""Seconds after which the loop looks around, if nothing happens."""

SEAL_WAIT = 3.0
"""Seconds for which the end of a sweep waits until workers that stay have sealed their sessions."""


class Sweep:
    """One ``run_tasks`` call while it runs."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.name = plan.job.sweep
        self.directory = plan.dataman.directory
        self.pages = self.directory.workers(self.name)
        self.payload = b""
        self.bundle = Bundle(plan.shared, self.directory.bundle(self.name, plan.job.parent))
        self._lacking = 0
        here = plan.engine.name in ("thread", "serial")
        self.repeats = None if here else Repeats(self.bundle, plan.args)
        self.items = Items(plan, self.repeats)
        self.scheduler = Scheduler(
            iter(self.items),
            window=1 if plan.engine.name == "serial" else 2 * plan.workers,
            total=plan.total,
            retries=plan.options.retries,
            backoff=plan.options.backoff,
            crash_limit=plan.options.crash_limit,
            max_failures=plan.options.failures,
        )
        self.pool = Pool(plan.engine, plan.workers, plan.environment)
        self.rescue = Rescue(self)
        self.sharing = Sharing(self)
        self.deadline = Deadline(self, plan.job.timeout)
        self.shortage = Shortage(self)
        self.stop = Listener(
            plan.flag, self.directory, self.name, plan.job.stop_seen, end_now=interrupt_running
        )
        self.progress = Progress(
            plan.options.progress, name=plan.name, total=plan.total, workers=self.workers
        )
        self.sessions: set[str] = set()
        """The sessions that hold results of this sweep."""
        self._looked = time.monotonic()

    def run(self) -> Summary:
        begun = time.monotonic()
        join(self.name, (*self.plan.function, self.plan.shared))
        make_folder(self.pages)
        with self.stop, self.progress, self._limit_threads():
            try:
                self.payload = pickle.dumps(tuple(self._packed()))
                self.sharing.begin()
                with self.deadline:
                    self._loop()
            finally:
                self._close()
        return self._conclude(self._summary(time.monotonic() - begun))

    def _packed(self) -> Job:
        """Return the job with what its tasks share, where they do not run in this process."""
        job = self.plan.job
        return job._replace(shared=self.bundle.write()) if self.repeats else job

    def _limit_threads(self) -> AbstractContextManager[Any]:
        """Limit the threads of libraries where tasks run in this process; others are told at their start."""
        threads = self.plan.options.inner_threads
        if threads is None or self.pool.has_environment:
            return nullcontext()
        limited = threads_limited_here(threads) if self.plan.engine.name in ("thread", "serial") else None
        if limited is None:
            self.progress.say(
                "inner_threads: with this executor libraries keep their threads; with 'thread' and 'serial' "
                "they can be limited once threadpoolctl is installed (pip install threadpoolctl)"
            )
        return limited or nullcontext()

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do, here or in another sweep that has begun what is ours as well."""
        return self.scheduler.finished and (self.scheduler.stopped or not self.sharing.waits)

    def workers(self) -> list[Worker]:
        """Return the status pages of the sweep's workers."""
        return read(self.pages)

    # -- the loop

    def _loop(self) -> None:
        while not self.finished:
            if self.stop.is_set():
                self._stop()
            if self.stop.flag.now:
                return
            self._submit()
            self._book_refused()
            self._collect()
            self._look_around()

    def _stop(self) -> None:
        if not self.scheduler.stopped:
            self.scheduler.stop()
            again = "; Ctrl-C again ends them at once" if self.stop.flag.reason == "Ctrl-C" else ""
            self.progress.say(f"stopping ({self.stop.flag.reason}): running tasks finish{again}")

    def _submit(self) -> None:
        """Submit as much as the window takes; the flag is looked at before each chunk."""
        while not self.stop.is_set():
            try:
                with self.stop.waiting_for_user():
                    chunk = self.scheduler.next_chunk(time.monotonic())
            except KeyboardInterrupt:
                return  # the flag is set
            if chunk is None:
                return
            if self.stop.is_set():  # pulling may take long, and the items themselves may set the flag
                self.scheduler.refused(chunk)
                return
            chunk = self.sharing.ours(chunk)
            if not chunk:
                continue
            try:
                ticket = self.pool.submit(Chunk.dumps(self.payload, chunk, self._sent_along()))
            except BrokenExecutorError as error:
                self.scheduler.submitted(UNSENT, chunk)
                self.rescue.remake(error, UNSENT)
                return
            self.scheduler.submitted(ticket, chunk)

    def _sent_along(self) -> bytes | None:
        """Return what the tasks share if a worker has said that it lacks it, for whichever comes next."""
        if not self._lacking:
            return None
        self._lacking -= 1
        return self.bundle.whole()

    def _collect(self) -> None:
        if self.finished:
            return
        event = self.pool.next_event(TICK)
        if event is None:
            return
        if event.receipt is not None:
            self.take(event.ticket, event.receipt)
        elif event.error is not None:
            self.rescue.engine_failed(event.ticket, event.error)

    def _look_around(self) -> None:
        if time.monotonic() - self._looked >= TICK:
            self._looked = time.monotonic()
            self.rescue.look_around()
        self.sharing.look()

    def take(self, ticket: int, data: bytes) -> None:
        """Take a receipt: what it tells of is on disk, so it counts."""
        receipt = Receipt.loads(data)
        if receipt.lacks and self.repeats:
            self._lacking += 1
            self.repeats.give_up()
        if receipt.unstored:
            self.shortage.note(self.scheduler.numbers_of(ticket, receipt))
        if receipt.outcomes and not self.shortage.commit(receipt.outcomes):  # of a worker that cannot commit
            receipt = receipt._replace(ended=0, failed=(), final=())
        if receipt.session is not None:
            self.sessions.add(receipt.session)
        self.count(self.scheduler.ended(ticket, receipt, time.monotonic()))
        if receipt.ended:
            self.rescue.forget_breakdowns()
            self.deadline.limit.note(receipt.seconds / receipt.ended)

    def count(self, ended: Ended) -> None:
        """Count tasks that are on disk, and those that were there before."""
        skipped = self.items.skipped()
        if skipped:
            self.progress.skip(skipped)
        if any(ended):  # a bar may take each call for news: the first one, for the first result
            self.progress.count(ended.done, ended.failed)

    def _book_refused(self) -> None:
        """Book the items that cannot be made a task; they fail like any other."""
        refused = self.items.refused()
        if not refused or self.shortage.commit(refused):
            self.count(Ended(0, self.scheduler.failed(len(refused))))

    # -- the end

    def _close(self) -> None:
        """Leave nothing behind: no worker, no page, no lock, no session unsealed that can be sealed."""
        now = self.stop.flag.now
        if now:
            self.rescue.end_workers()
        self.stop.tell_workers()  # they seal their sessions
        self.pool.close(partial(leave, self.name), kill=now)
        leave(self.name)
        if now:
            self.rescue.count_unacknowledged()
        with suppress(OSError):  # what cannot be sealed or removed now does no harm, and the next sweep can
            self._seal_sessions()
        with suppress(OSError):
            self.bundle.remove()
        with suppress(OSError):
            clear(self.pages)
            self.pages.rmdir()
        self.stop.forget()
        self.sharing.end()

    def _seal_sessions(self) -> None:
        """Seal what workers that are gone left open; those that stay seal theirs themselves."""
        deadline = time.monotonic() + SEAL_WAIT
        waiting = set(self.sessions)
        while waiting and time.monotonic() < deadline:
            waiting = {name for name in waiting if self._is_open(name) and not seal(self.directory, name)}
            if waiting:
                time.sleep(0.02)

    def _is_open(self, name: str) -> bool:
        try:
            return Header.read(self.directory.session(name)).writing
        except FileNotFoundError:  # somebody moved it away
            return False

    def _summary(self, seconds: float) -> Summary:
        done, skipped, failed = self.progress.done, self.progress.skipped, self.progress.failed
        left = None if self.plan.total is None else max(0, self.plan.total - done - skipped - failed)
        stopped = self.stop.flag.reason
        if stopped is None and self.scheduler.gave_up:
            stopped = "a failed task" if failed == 1 else f"{failed} failed tasks"
        if left == 0:  # the stop came too late to matter
            stopped = None
        return Summary(done, skipped, failed, left, stopped, seconds, self.name)

    def _conclude(self, summary: Summary) -> Summary:
        if self.stop.flag.now and self.stop.owed is None:
            raise KeyboardInterrupt(str(summary))
        if self.shortage.error is not None:
            raise self.shortage.error
        if self.items.error is not None:
            raise self.items.error
        if summary.failed and self.plan.options.on_error != "record":
            raise failure_of(self.plan.dataman, summary)
        return summary
