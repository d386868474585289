"""One worker: a thread that runs tasks, with its status page."""

from __future__ import annotations

import inspect
import os
import pickle
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from ..bundle import NotSeenError
from ..report import Reporter
from ..status import Page, this_process
from ..task import Outcome, Status, Task, call_of
from .failure import described
from .interrupt import TaskInterrupted, interruptible

if TYPE_CHECKING:
    from .capture import Capture
    from .crew import Crew
    from .surroundings import Surroundings

__all__ = ["Seat", "takes", "takes_report"]


class Seat:
    """A worker: a thread with its status page and, for a task class, its instance."""

    def __init__(self, crew: Crew, page: Page | None, capture: Capture, surroundings: Surroundings) -> None:
        self.crew = crew
        self.page = page
        self.capture = capture
        self._surroundings = surroundings
        self._callable: Callable[..., Any] | None = None
        self._host, self._pid, _ = this_process()
        # Only tasks that run beside the loop of the sweep, in its own process, are ever interrupted.
        self._users_code = nullcontext() if crew.leashed else interruptible()
        self._begun = 0.0
        self._report = Reporter(
            page.done if page else _ignore, page.say if page else _ignore, self._should_stop
        )
        self.may_try_again = False
        """Whether the last task failed by an error for which `retry_on` asks to try again."""

    def run(self, task: Task) -> Outcome:
        """Run one task; whatever it does to raise, an outcome comes back."""
        started = time.time()
        capture, page = self.capture, self.page
        printed = capture.begin()
        begun = self._begun = time.perf_counter()
        value = error = text = None
        status: Status = "ok"
        try:
            if page is not None:
                page.begin(task.number, self._taskname(), started, printed)
            value, seconds = self._call(task, begun)
            self._surroundings.put_back()
        except NotSeenError:  # of the item: the task has not begun
            raise
        except BaseException as raised:
            self._only_here()
            self._surroundings.put_back()
            seconds = time.perf_counter() - begun
            status = _status(raised)
            self.may_try_again = isinstance(raised, self.crew.retry_on)
            error, text = described(raised)
        else:
            self.crew.limit.note(seconds)
        output = capture.end(printed)
        return Outcome(task, status, value, error, text, self._host, self._pid, started, seconds, output)

    def rest(self) -> None:
        """Note that no task runs: what follows takes longer than the step from one task to the next."""
        if self.page is not None:
            self.page.end()

    def _call(self, task: Task, begun: float) -> tuple[bytes, float]:
        """Return the pickled result and how long the function took; the result itself is gone then."""
        args, kwargs = call_of(pickle.loads(task.item))
        function = self._callable if self._callable is not None else self._ready()
        if self.crew.shared:
            kwargs.update(self.crew.shared)
        if self.crew.wants_report:
            kwargs["report"] = self._report
        with self._users_code:
            result = function(*args, **kwargs)
        seconds = time.perf_counter() - begun
        self._only_here()
        if self.crew.limit.seconds is not None:
            self._check_time(seconds)
        return self.crew.keep(result), seconds

    def close(self) -> None:
        if self.page is not None:
            self.page.remove()
        self._surroundings.close()

    def _should_stop(self) -> bool:
        limit = self.crew.limit.seconds
        return self.crew.stopped() or (limit is not None and time.perf_counter() - self._begun > limit)

    def _check_time(self, seconds: float) -> None:
        """Refuse what comes too late: a task that was told so may have returned only what it had."""
        limit = self.crew.limit.seconds
        if limit is not None and seconds > limit:
            raise _TooLateError(f"it took {seconds:.3g} s, and timeout is {limit:.3g} s")

    def _only_here(self) -> None:
        """End a child that the task forked and that came back to us: it must not answer for its parent."""
        if _process != self._pid:
            os._exit(0)

    def _ready(self) -> Callable[..., Any]:
        crew = self.crew
        if crew.load_error is not None:
            raise crew.load_error.with_traceback(crew.load_traceback)
        if not crew.is_class:
            self._callable = crew.function
            return crew.function  # type: ignore[no-any-return]
        keywords = dict(crew.initkwds)
        if takes(crew.function.__init__, "process_number"):
            keywords["process_number"] = self.page.number if self.page else 0
        made: Callable[..., Any] = crew.function(*crew.initargs, **keywords)
        self._callable = made
        return made

    def _taskname(self) -> str:
        return str(getattr(self._callable, "taskname", "")) if self.crew.is_class else ""


_process = os.getpid()  # the kernel takes as long for the answer as a small task does


def _note_process() -> None:
    global _process
    _process = os.getpid()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_note_process)


class _TooLateError(TimeoutError):
    """A task took longer than it may."""

    __module__ = "builtins"
    __qualname__ = "TimeoutError"


def _status(error: BaseException) -> Status:
    if isinstance(error, TaskInterrupted):
        return "stopped"
    return "timeout" if type(error) is _TooLateError else "error"


def takes_report(function: Any) -> bool:
    """Whether the function, or the ``__call__`` of the class, has a parameter named ``report``.

    ``**kwargs`` alone is no wish for a reporter.
    """
    return takes(function.__call__ if isinstance(function, type) else function, "report")


def takes(function: Any, name: str) -> bool:
    try:
        parameter = inspect.signature(function).parameters.get(name)
    except (TypeError, ValueError):  # built-in, without a signature
        return False
    return parameter is not None and parameter.kind in (
        parameter.POSITIONAL_OR_KEYWORD,
        parameter.KEYWORD_ONLY,
    )


def _ignore(_: Any) -> None:
    pass
