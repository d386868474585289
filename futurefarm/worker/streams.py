"""The output of tasks that share a process with others: told apart by their threads."""

from __future__ import annotations

import sys
import threading
from typing import Any

from .capture import TAIL, Capture, cut

__all__ = ["Streams"]

_lock = threading.RLock()
_taken = 0
_tails: dict[int, _Tail] = {}
"""The output of each thread that is in a task."""
_streams: dict[str, _Stream] = {}
"""What was last in the place of each stream. It is kept when that is given back: Python's `print` does not
hold on to `sys.stdout` while it writes there, and a thread that prints then would crash the interpreter."""


class Streams(Capture):
    """Puts streams in the place of Python's own which keep what tasks print, and pass on all else.

    The progress bar and the user's other threads are heard as ever. What writes to the descriptors themselves
    (C, child processes) and what took hold of a stream earlier (a logging handler) cannot be told apart and
    passes through.
    """

    def take_over(self) -> None:
        global _taken
        with _lock:
            _taken += 1
            for name in ("stdout", "stderr"):
                if not isinstance(stream := getattr(sys, name), _Stream):
                    if name not in _streams or _streams[name].original is not stream:
                        _streams[name] = _Stream(stream)
                    setattr(sys, name, _streams[name])
            if not isinstance(sys.breakpointhook, _BreakpointHook):
                sys.breakpointhook = _BreakpointHook(sys.breakpointhook)

    def give_back(self) -> None:
        global _taken
        with _lock:
            _taken -= 1
            if _taken:  # another sweep runs in this process
                return
            for name in ("stdout", "stderr", "breakpointhook"):
                ours = getattr(sys, name)
                if isinstance(ours, _Stream | _BreakpointHook):  # unless the user redirects it meanwhile
                    setattr(sys, name, ours.original)

    def begin(self) -> int:
        ident = threading.get_ident()
        _tails[ident] = _Tail(_tails.get(ident))
        return 0

    def end(self, begun: int) -> str | None:
        ident = threading.get_ident()
        tail = _tails.pop(ident, None)
        if tail is None:
            return None
        if tail.outer is not None:  # a task that runs a sweep of its own
            _tails[ident] = tail.outer
        sys.stdout, sys.stderr = tail.streams
        return tail.text()


class _Tail:
    """The last things that a task has printed; written by its thread only."""

    def __init__(self, outer: _Tail | None) -> None:
        self.outer = outer
        self.streams = sys.stdout, sys.stderr
        self._parts: list[bytes] = []
        self._size = 0
        self._left_out = 0

    def add(self, data: bytes) -> None:
        self._parts.append(data)
        self._size += len(data)
        if self._size > 8 * TAIL:
            self._shorten()

    def _shorten(self) -> None:
        data = b"".join(self._parts)
        self._parts = [data[-TAIL:]]
        self._left_out += len(data) - TAIL
        self._size = TAIL

    def text(self) -> str | None:
        if self._size > TAIL:
            self._shorten()
        return cut(b"".join(self._parts), self._left_out) if self._parts else None


class _Stream:
    """A text stream that keeps what comes from tasks, and hands all else on to the original."""

    def __init__(self, original: Any) -> None:
        self.original = original

    def __getattr__(self, name: str) -> Any:
        return getattr(self.original, name)

    def write(self, text: str) -> int:
        tail = _tails.get(threading.get_ident())
        if tail is not None:
            tail.add(text.encode("utf-8", "backslashreplace"))
        elif self.original is not None:
            self.original.write(text)
        return len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        if threading.get_ident() not in _tails and self.original is not None:
            self.original.flush()

    def close(self) -> None:
        if threading.get_ident() not in _tails:  # others need it, when a task does not
            self.original.close()

    @property
    def buffer(self) -> Any:
        tail = _tails.get(threading.get_ident())
        return self.original.buffer if tail is None else _Bytes(tail)


class _Bytes:
    """The binary side of a stream, for a task."""

    def __init__(self, tail: _Tail) -> None:
        self._tail = tail

    def write(self, data: Any) -> int:
        plain = bytes(data)
        self._tail.add(plain)
        return len(plain)

    def flush(self) -> None:
        pass


class _BreakpointHook:
    """Lets the rest of the task print: who sets a breakpoint wants to see the debugger."""

    def __init__(self, original: Any) -> None:
        self.original = original

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        _tails.pop(threading.get_ident(), None)
        return self.original(*args, **kwargs)
