"""The file of a session, and the note beside it of who holds it and which file it is."""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..directory import Directory
from ..errors import FutureFarmError
from ..smallfile import read, write
from ..status import this_process
from ..store import Store, create, is_blank, named, open_reader, resembles_session

__all__ = ["NotedHome", "home_of", "open_store", "read_note", "was_session"]


class NotedHome:
    """The note beside a session of who opened it last, and of the file that was written here; see `Home`."""

    def __init__(self, directory: Directory, name: str) -> None:
        self._directory = directory
        self._name = name

    def knows(self, inode: int, log: int) -> bool:
        note = read_note(self._directory, self._name)
        return note.get("inode") == inode and log in note.get("logs", ())

    def note(self, inode: int, *logs: int) -> None:
        write_note(self._directory, self._name, inode, logs)


def home_of(directory: Directory, name: str) -> NotedHome:
    """Return what is remembered of the file that was written under this name here."""
    return NotedHome(directory, name)


def open_store(directory: Directory, name: str) -> Store:
    """Open or make a session's file; its lock is held."""
    path = directory.session(name)
    try:
        return _open(directory, name, path)
    except OSError as error:
        if isinstance(error, FutureFarmError):
            raise
        raise named(path, error) from error


def _open(directory: Directory, name: str, path: Path) -> Store:
    home = home_of(directory, name)
    if os.path.lexists(path):
        with open_reader(path, home=home):  # a file from elsewhere is checked, and at home from then on
            pass
        note = read_note(directory, name)
        write_note(directory, name, note.get("inode"), note.get("logs", ()))
        return Store(path, wal=not directory.on_network, home=home)
    draft = directory.draft()
    try:
        create(draft)
        directory.publish(draft, name)  # under its name it is whole from the first moment
    except OSError:
        draft.unlink(missing_ok=True)
        raise
    return Store(path, wal=not directory.on_network, home=home)


def was_session(directory: Directory, path: Path) -> bool:
    """Whether a file that does not begin like a session was one."""
    return (
        bool(read_note(directory, path.name))
        or resembles_session(path)
        or (directory.has_made_up_name(path) and is_blank(path))
    )


def write_note(directory: Directory, name: str, inode: int | None, logs: Sequence[int]) -> None:
    host, pid, _ = this_process()
    note = directory.holder(name)
    draft = note.with_name(f"{note.name}.{secrets.token_hex(4)}")
    text = {"host": host, "pid": pid, "since": time.time(), "inode": inode, "logs": list(logs)}
    try:
        write(draft, json.dumps(text))
        draft.rename(note)
        directory.sync(note.parent)  # a session whose note the power cut took would pass for a copy
    except OSError:
        draft.unlink(missing_ok=True)
        raise


_NOTE = {"host": str, "pid": int, "since": float, "inode": int, "logs": list}


def read_note(directory: Directory, name: str) -> dict[str, Any]:
    """Return what a note says, as far as it says it as `write_note` does."""
    try:
        note = json.loads(read(directory.holder(name)))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(note, dict):
        return {}
    return {field: note[field] for field, kind in _NOTE.items() if type(note.get(field)) is kind}
