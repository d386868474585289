"""A second program that a test talks to line by line, so that both keep step without sleeping."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

DEADLINE = 60.0


class Companion:
    """A Python program with pipes to it; ``sys.argv[1:]`` are the arguments. Killed when the block ends."""

    def __init__(self, source: str, *arguments: object, **options: Any) -> None:
        self.process = subprocess.Popen(
            [options.pop("python", sys.executable), "-W", "error", "-c", textwrap.dedent(source)]
            + [str(argument) for argument in arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **options,
        )

    def __enter__(self) -> Companion:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def hear(self) -> str:
        """Return the next line that it prints."""
        line = self.process.stdout.readline()
        assert line, f"the program ended: {self.process.stderr.read()}"
        return line.rstrip("\n")

    def say(self, line: str = "") -> None:
        """Give it a line to read with ``input()``."""
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def rest(self, status: int = 0) -> str:
        """Wait for its end and return what it still printed; a warning or an error fails the test."""
        out, err = self.process.communicate(timeout=DEADLINE)
        assert (status, "") == (self.process.returncode, err), err
        return out.rstrip("\n")


@contextmanager
def companions(source: str, *arguments: tuple[object, ...]) -> Iterator[list[Companion]]:
    """Start one program for each tuple of arguments; if one fails its test, the others end, too."""
    with ExitStack() as stack:
        yield [stack.enter_context(Companion(source, *each)) for each in arguments]


def run(source: str, *arguments: object, status: int = 0, **options: Any) -> str:
    """Run a program to its end and return what it printed."""
    with Companion(source, *arguments, **options) as program:
        return program.rest(status)
