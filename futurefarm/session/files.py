"""The file of a session, and the note beside it of who holds it and which file it is."""

from __future__ import annotations

import json
import os
import secrets
import time
from typing import Any

from ..directory import Directory
from ..errors import SessionError
from ..status import this_process
from ..store import Store, create, open_reader

__all__ = ["home_of", "open_store", "read_note"]


def open_store(directory: Directory, name: str) -> Store:
    """Open or make a session's file; its lock is held."""
    path = directory.session(name)
    if path.exists():
        home = path.stat().st_ino
        if home != home_of(directory, name):
            with open_reader(path):  # from elsewhere: it is checked as a copy, and at home from then on
                pass
        write_note(directory, name, home)
        return Store(path, wal=not directory.on_network, home=home)
    draft = directory.farm / f"draft-{secrets.token_hex(5)}"
    try:
        create(draft)
        write_note(directory, name, draft.stat().st_ino)
        draft.rename(path)  # under its name it is whole from the first moment
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise SessionError(
            f"the session {path} cannot be made ({error.strerror or error}).", path=str(path)
        ) from error
    _sync(directory.path)
    return Store(path, wal=not directory.on_network, home=path.stat().st_ino)


def _sync(folder: Any) -> None:
    """Make names in a folder durable; Windows keeps names without being asked."""
    if os.name == "posix":
        fd = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def home_of(directory: Directory, name: str) -> int | None:
    """Return the inode of the file that was written under this name here; a copy has another one."""
    return read_note(directory, name).get("inode")


def write_note(directory: Directory, name: str, inode: int) -> None:
    host, pid, _ = this_process()
    note = directory.holder(name)
    draft = note.with_name(f"{note.name}.{secrets.token_hex(4)}")
    with draft.open("x") as file:
        json.dump({"host": host, "pid": pid, "since": time.time(), "inode": inode}, file)
        file.flush()
        os.fsync(file.fileno())
    draft.rename(note)


def read_note(directory: Directory, name: str) -> dict[str, Any]:
    try:
        note = json.loads(directory.holder(name).read_text())
    except (OSError, ValueError):
        return {}
    return note if isinstance(note, dict) else {}
