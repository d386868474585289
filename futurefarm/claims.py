"""What the sweeps that run in a directory at the same time have taken upon themselves.

Each has a file to which it appends the tasks that it begins, and a lock that it holds while it lives: whose
lock is free has ended or was killed. A file stays as long as any sweep lives that might not know yet what its
writer has done.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import filelock

from .directory import Directory
from .identity import SIZE
from .session import locked_by
from .smallfile import make_folder, open_plain
from .status import is_stopped, read
from .task import Task

__all__ = ["Claims", "claim_of"]

LENGTH = SIZE + 4
TURN = 10.0
"""Seconds for which the other sweeps are waited for while they claim."""


def claim_of(identity: bytes, replicate: int) -> bytes:
    """Return what stands for a task in the files: the same in every sweep that has it."""
    return identity + replicate.to_bytes(4, "little")


class Claims:
    """The claims of one sweep, and what it sees of those of others.

    A sweep that is alone writes first and then looks whether another one has come; one that sees others takes
    turns with them, and looks before it writes. As each announces itself before it claims, at most one of two
    believes to be alone, and of two that want a task exactly one gets it.

    Raises:
        OSError, from each method: there are no locks here, or the folder is gone.
    """

    def __init__(self, directory: Directory, sweep: str) -> None:
        self._directory = directory
        self._folder = directory.claims
        self._sweep = sweep
        self._life = self._lock(f"{sweep}.lock")
        self._turn = self._lock("turn.lock")
        self._file = -1
        self._others: dict[str, _Other] = {}
        self._over: set[str] = set()
        self._alone = False

    def _lock(self, name: str) -> filelock.FileLock:
        return filelock.FileLock(
            self._folder / name, timeout=0, thread_local=False, fallback_to_soft=False, mode=0o600
        )

    def begin(self) -> None:
        """Announce the sweep. Whoever reads the ledger after that misses nothing that others do."""
        make_folder(self._folder)
        with self._in_turn():
            self._life.acquire()
            self._sweep_up()
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0)
            self._file = os.open(self._folder / self._sweep, flags, 0o600)
            self._alone = len(self._names()) == 1

    def end(self) -> None:
        """Give up what was claimed and not done."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        with suppress(OSError), self._in_turn():
            self._life.release()
            self._sweep_up()
        self._life.release(force=True)

    def _sweep_up(self) -> None:
        """Remove all files, unless another sweep lives."""
        names = self._names()
        if not any(self.is_alive(name) for name in names if name != self._sweep):
            for name in names:
                for path in (self._folder / name, self._folder / f"{name}.lock"):
                    if name != self._sweep or not self._life.is_locked:
                        path.unlink(missing_ok=True)

    def _names(self) -> list[str]:
        return [name for name in os.listdir(self._folder) if not name.endswith(".lock")]

    @contextmanager
    def _in_turn(self) -> Iterator[None]:
        with self._turn.acquire(timeout=TURN, poll_interval=0.002):
            yield

    # -- claiming

    def take(self, tasks: Sequence[Task]) -> set[bytes]:
        """Claim tasks; return the claims among them that others have, and that therefore are not ours.

        To claim again what is ours does no harm.
        """
        keys = [task.identity + task.replicate.to_bytes(4, "little") for task in tasks]  # `claim_of`, in line
        if self._alone:
            os.write(self._file, b"".join(keys))
            self._alone = len(self._names()) == 1
            if self._alone:
                return set()
        with self._in_turn():
            self._look()
            taken = {key for key in keys if self.owners(key)}
            os.write(self._file, b"".join(key for key in keys if key not in taken))
        return taken

    def _look(self) -> None:
        for name in self._names():
            if name != self._sweep:
                self._others.setdefault(name, _Other(self._folder / name)).read()

    def owners(self, key: bytes) -> list[str]:
        """Return the other sweeps that have claimed a task and that are not known to be over."""
        return [name for name, other in self._others.items() if key in other.keys and name not in self._over]

    # -- the others

    def is_alive(self, sweep: str) -> bool:
        """Whether a sweep goes on, or workers of it, which end within moments of their parent."""
        lock = self._lock(f"{sweep}.lock")
        try:
            lock.acquire()
        except filelock.Timeout:
            return True
        lock.release()
        workers = read(self._directory.workers(sweep))
        return any(worker.leashed and worker.local and worker.alive for worker in workers)

    def is_stopped(self, sweep: str) -> bool:
        """Whether the process of a sweep is stopped (Ctrl-Z)."""
        pid = locked_by(self._folder / f"{sweep}.lock")
        return pid is not None and is_stopped(pid)

    def forget(self, sweep: str) -> None:
        """Heed the claims of a sweep no more: it has ended, and the ledger tells what it has done."""
        self._over.add(sweep)


class _Other:
    """The file of another sweep, as far as it was read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read = 0
        self.keys: set[bytes] = set()

    def read(self) -> None:
        with suppress(FileNotFoundError), os.fdopen(open_plain(self._path), "rb") as file:
            file.seek(self._read)
            data = file.read()
            whole = len(data) - len(data) % LENGTH
            self.keys.update(data[at : at + LENGTH] for at in range(0, whole, LENGTH))
            self._read += whole
