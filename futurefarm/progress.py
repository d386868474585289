"""The bars: one for the sweep, which counts what is on disk, and one for each worker that reports."""

from __future__ import annotations

import inspect
import sys
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from types import TracebackType
from typing import Any, TextIO

from .errors import UsageError, UsageTypeError
from .status import Worker

__all__ = ["Progress", "check_progress"]

TICK = 0.2
"""Seconds between two drawings of the workers' bars."""

LINE_EVERY = 60.0
"""Seconds between two lines, where there is no terminal."""

REMIND = 10.0
"""Seconds after which it is said again that the disk is full."""

_WORKER_FORMAT = "{desc} {percentage:3.0f}%|{bar}|"


def check_progress(progress: Any) -> None:
    """Raise UsageError unless ``progress`` is something that `Progress` understands."""
    if isinstance(progress, Mapping):
        import tqdm

        if unknown := set(progress) - set(inspect.signature(tqdm.tqdm.__init__).parameters):
            raise UsageError(f"progress has options that tqdm does not know: {', '.join(map(str, unknown))}.")
        return
    if progress is None or isinstance(progress, bool | type):
        return
    raise UsageTypeError(
        f"progress must be True, False, None, a tqdm class, or a dict of tqdm's options, not {progress!r}."
    )


class Progress:
    """Shows a sweep while the block runs.

    Args:
        progress: True draws bars; False draws nothing; None draws bars in a terminal or a notebook, and
            elsewhere writes a line a minute; a tqdm class draws with that class; a dict holds tqdm's options.
        name: of the function.
        total: the number of tasks, if it is known.
        workers: returns the status pages.
        stream: where lines go; standard error by default.
        clock: seconds that increase.
    """

    def __init__(
        self,
        progress: Any,
        *,
        name: str,
        total: int | None,
        workers: Callable[[], list[Worker]],
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name = name
        self._total = total
        self._workers = workers
        self._stream = stream or sys.stderr
        self._clock = clock
        self._begun = clock()
        self._lined = self._begun
        self._full_told = self._begun - REMIND
        self._lock = threading.RLock()
        self._over = threading.Event()
        self._ticker: threading.Thread | None = None
        self.done = self.failed = self.skipped = 0
        self._options: dict[str, Any] = dict(progress) if isinstance(progress, Mapping) else {}
        self._tqdm: Any = None
        self._lines = False
        self._bar: Any = None
        self._bars: dict[int, Any] = {}
        self._choose(progress)

    def _choose(self, progress: Any) -> None:
        if progress is False:
            return
        if isinstance(progress, type):
            self._tqdm = progress
        elif _in_notebook():
            from tqdm.auto import tqdm

            self._tqdm = tqdm
        elif progress is None and not _is_terminal(self._stream):
            self._lines = True
        else:
            from tqdm import tqdm as plain

            self._tqdm = plain

    def __enter__(self) -> Progress:
        if self._tqdm is not None:
            # Tasks end in bursts, one for each worker: a mean over the last ones would jump about.
            defaults = {"desc": self._name, "unit": "task", "total": self._total, "smoothing": 0}
            options = {**defaults, **self._options}
            self._draw(lambda: self._begin(options))
        if self._bar is not None or self._lines:
            self._ticker = threading.Thread(target=self._tick, name="futurefarm-progress", daemon=True)
            self._ticker.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._over.set()
        if self._ticker is not None:
            self._ticker.join()
        with self._lock:
            if self._bar is not None:
                self._draw(self._close)

    def _begin(self, options: dict[str, Any]) -> None:
        self._bar = self._tqdm(**options)

    def _close(self) -> None:
        for bar in (*self._bars.values(), self._bar):
            bar.close()

    def skip(self, number: int) -> None:
        """Count tasks that were done before this sweep: they are part of it, but not of its speed."""
        with self._lock:
            self.skipped += number
            if self._bar is not None:
                self._draw(lambda: self._skip(number))

    def _skip(self, number: int) -> None:
        for count in ("initial", "n", "last_print_n"):
            setattr(self._bar, count, getattr(self._bar, count, 0) + number)

    def count(self, done: int, failed: int) -> None:
        """Count tasks that have ended and are on disk."""
        with self._lock:
            self.done += done
            self.failed += failed
            if self._bar is not None:
                self._draw(lambda: self._count(done, failed))

    def _count(self, done: int, failed: int) -> None:
        if failed:
            self._bar.set_postfix(failed=self.failed, refresh=False)
        self._bar.update(done + failed)

    def say(self, text: str) -> None:
        """Write a line of text, above the bars."""
        with self._lock:
            if self._bar is not None:
                self._draw(lambda: self._tqdm.write(text, file=self._stream))
            if self._lines:  # also when the bar has failed right now
                self._write(text)

    def say_that_the_disk_is_full(self, results: int) -> None:
        """Say that results wait for space; not again for a while."""
        with self._lock:
            now = self._clock()
            if now - self._full_told >= REMIND:
                self._full_told = now
                wait = "result waits" if results == 1 else "results wait"
                self.say(f"the disk is full: {results} {wait}; free space or press Ctrl-C")

    def _tick(self) -> None:
        while not self._over.wait(TICK):
            with self._lock:
                workers = self._workers()
                waiting = sum(worker.waiting for worker in workers)
                if waiting:
                    self.say_that_the_disk_is_full(waiting)
                if self._lines:
                    self._line_if_due()
                elif self._bar is not None:
                    self._draw(partial(self._draw_workers, workers))

    def _draw_workers(self, workers: list[Worker]) -> None:
        for worker in workers:
            bar = self._bars.get(worker.number)
            if bar is None:
                if worker.fraction is None:
                    continue
                bar = self._bars[worker.number] = self._tqdm(
                    total=100, position=worker.number + 1, leave=False, bar_format=_WORKER_FORMAT
                )
            task = "" if worker.task is None else f" task {worker.task} {worker.text}".rstrip()
            bar.set_description_str(f"worker {worker.number}:{task}", refresh=False)
            bar.n = round(100 * (worker.fraction or 0.0))
            bar.refresh()
        self._bar.refresh()

    def _line_if_due(self) -> None:
        now = self._clock()
        if now - self._lined < LINE_EVERY:
            return
        self._lined = now
        self._write(self.line(now - self._begun))

    def line(self, seconds: float) -> str:
        """Return the sweep's state after ``seconds`` as one line of text."""
        ended = self.done + self.failed
        of = "" if self._total is None else f" of {self._total}"
        text = f"{self._name}: {ended + self.skipped}{of} tasks done"
        if self.failed:
            text += f", {self.failed} of them failed"
        if ended and seconds > 0:
            text += f", {ended / seconds:.3g} a second"
            if self._total is not None:
                left = (self._total - self.skipped - ended) * seconds / ended
                text += f", about {_duration(left)} left"
        return text

    def _write(self, text: str) -> None:
        try:
            print(text, file=self._stream, flush=True)
        except (OSError, ValueError):  # the reader of a pipe is gone, or the stream is closed
            self._lines = False

    def _draw(self, draw: Callable[[], Any]) -> None:
        """Draw, or write lines from now on: no broken bar, no terminal that is gone, ends a sweep."""
        try:
            draw()
        except Exception as error:  # a class of the user's may raise anything
            self._bar = None
            self._bars = {}
            self._lines = True
            self._write(f"the progress bar failed, and is given up ({type(error).__name__}: {error})")


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _is_terminal(stream: TextIO) -> bool:
    try:
        return stream.isatty()
    except (AttributeError, ValueError):
        return False


def _in_notebook() -> bool:
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and hasattr(shell, "kernel")
