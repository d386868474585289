"""What a task may ask for: an argument named ``report``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["Reporter"]


class Reporter:
    """Tells how far a task is, and asks whether it should end early.

    It can be called in every way that a simulator does, and be handed to one as it is:

    * ``report(0.3)`` and ``report(0.3, "epoch 3")``: the fraction done, from 0 to 1, and a text;
    * ``report(elapsed, complete)``, as Brian 1 calls it;
    * ``report(elapsed, completed, start, duration)``, as Brian 2 does, with its quantities.

    Calling it costs about a microsecond and writes to memory only; call it as often as you like.

    Args:
        done: takes the fraction.
        say: takes the text.
        stopped: tells whether the sweep is being stopped.
        first, size: the part of the whole task that this reporter covers.
    """

    # No `write` together with `flush`: Brian 1 would take the reporter for a stream.

    def __init__(
        self,
        done: Callable[[float], None],
        say: Callable[[str], None],
        stopped: Callable[[], bool],
        first: float = 0.0,
        size: float = 1.0,
    ) -> None:
        self._done = done
        self._say = say
        self._stopped = stopped
        self._first = first
        self._size = size

    def __call__(self, *args: Any) -> None:
        """Note how far the task is: see the class."""
        fraction, text = _understood(args)
        if fraction is not None:
            # Brian 2 ends at 0.9999999999999998; others overshoot.
            self._done(self._first + self._size * min(1.0, max(0.0, fraction)))
        if text is not None:
            self._say(text)

    def subtask(self, i: int, n: int) -> Reporter:
        """Return a reporter for part ``i``, from 0, of ``n`` equal parts of what this one covers.

        Example:
            >>> seen = []
            >>> report = Reporter(seen.append, print, lambda: False)
            >>> report.subtask(1, 4)(0.5)
            >>> seen
            [0.375]
        """
        if not 0 <= i < n:
            raise ValueError(f"there is no part {i} of {n}; parts are numbered from 0 to {n - 1}")
        size = self._size / n
        return Reporter(self._done, self._say, self._stopped, self._first + i * size, size)

    @property
    def should_stop(self) -> bool:
        """Whether the sweep is being stopped; a task that asks may return early with what it has."""
        return self._stopped()


def _understood(args: tuple[Any, ...]) -> tuple[float | None, str | None]:
    match args:
        case (str() as text,):
            return None, text
        case (fraction,):
            return float(fraction), None
        case (fraction, str() as text):
            return float(fraction), text
        case (_, completed) | (_, completed, _, _):
            return float(completed), None
    raise TypeError(
        "report takes (fraction), (fraction, text), (elapsed, complete) as from Brian 1, or "
        f"(elapsed, completed, start, duration) as from Brian 2, not {len(args)} arguments"
    )
