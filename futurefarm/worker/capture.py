"""What tasks print, kept from the terminal: the tail of it is wanted in the ledger, beside the traceback."""

from __future__ import annotations

from pathlib import Path

__all__ = ["TAIL", "Capture", "cut", "path_of_output"]

TAIL = 8 << 10
"""Bytes of a task's output that are kept."""


class Capture:
    """Lets all output through; those that inherit from it keep it, in the way that suits the process.

    The streams are taken over only while chunks run: an engine may need them in between.
    """

    def take_over(self) -> None:
        """Take the streams, as a chunk begins and no other one runs."""

    def give_back(self) -> None:
        """Give them back, as no chunk runs any more."""

    def begin(self) -> int:
        """Tell where the output of the task that begins now will begin."""
        return 0

    def end(self, begun: int) -> str | None:
        """Return the tail of what the task that ends now has printed, and put back the streams."""
        return None

    def tidy(self) -> None:
        """Let go of what nobody will read; called again and again while tasks run."""

    def close(self) -> None:
        """Leave nothing behind."""


def cut(data: bytes, left_out: int) -> str:
    """Return output as text; where the beginning was left out, it begins with a whole line, after a note."""
    if left_out:
        line = data.find(b"\n", 0, -1) + 1
        note = f"[... {left_out + line} bytes before this are left out]\n"
        return note + data[line:].decode("utf-8", "replace")
    return data.decode("utf-8", "replace")


def path_of_output(page: Path) -> Path:
    """Return where the output of a worker lies, beside its page."""
    return page.with_suffix(".out")
