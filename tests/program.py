"""Programs that tests start, signal and kill, and with which they keep step without sleeping.

A task of such a program waits at a gate, a named pipe. `Gate.reached` returns when a task stands at it, and
the task goes on when the gate is opened.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import IO

DEADLINE = 30.0


class Gate:
    """A place where a task waits."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self._end: IO[str] | None = None
        os.mkfifo(path)

    def reached(self) -> None:
        """Wait until a task stands at the gate."""
        self._end = open(self.path, "w")  # noqa: SIM115 - closing it is what opens the gate

    def close(self) -> None:
        """Let whoever waits at the gate go on in vain."""
        os.close(os.open(self.path, os.O_RDONLY | os.O_NONBLOCK))

    def open(self) -> None:
        if self._end is not None:
            self._end.close()
            self._end = None


class Program:
    """A Python program in a session of its own; killed with all that it started when the block ends."""

    def __init__(
        self, folder: Path, source: str, *arguments: str, gates: Sequence[Gate] = (), stdin: bool = False
    ) -> None:
        path = folder / "program.py"
        path.write_text(textwrap.dedent(source))
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", str(path), *arguments],
            cwd=folder,
            stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        # A program that hangs fails its test: killed, it sends no more and every read ends.
        self._gates = gates
        self._deadline = threading.Timer(DEADLINE, self.kill_group)
        self._deadline.daemon = True
        self._deadline.start()
        self._watch = threading.Thread(target=self._let_go, daemon=True)
        self._watch.start()

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *_: object) -> None:
        self._deadline.cancel()
        self._deadline.join()
        self.kill_group()
        self.process.wait()
        self._watch.join()
        for gate in self._gates:
            gate.open()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()

    def _let_go(self) -> None:
        """When the program has ended, nobody will come to its gates."""
        self.process.wait()
        for gate in self._gates:
            gate.close()

    def line(self) -> str:
        """Return the next line that the program prints."""
        line = self.process.stdout.readline()
        assert line, f"the program ended: {self.process.stderr.read()}"
        return line.rstrip("\n")

    def interrupt(self) -> None:
        """Press Ctrl-C: the terminal sends it to all processes of the group."""
        os.killpg(self.process.pid, signal.SIGINT)

    def kill_group(self) -> None:
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return

    def rest(self) -> str:
        """Wait for the end of the program and return what it still printed."""
        out, err = self.process.communicate(timeout=DEADLINE)
        assert not err, err
        return out
