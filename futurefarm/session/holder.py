"""Who holds the lock of a session."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from ..directory import Directory
from ..status import is_stopped, this_process
from .files import read_note

__all__ = ["described", "holder_of", "locked_by"]


def holder_of(directory: Directory, name: str) -> dict[str, Any]:
    """Return what is known of the process that holds a session's lock.

    Linux knows the holder of each lock exactly, also of one that is taken and released for each operation,
    for which writing a note each time would cost as much as the lock itself. Elsewhere, and for a holder on
    another computer, the note counts, which tells who opened the session last.

    Returns:
        ``pid`` and ``host``, ``since`` (seconds since 1970) when that process opened the session, or None if
        that is not known, and whether it is ``stopped``; empty if nothing is known.
    """
    note = read_note(directory, name)
    here = this_process()[0]
    noted = note.get("host"), note.get("pid")
    pid = locked_by(directory.lock(name))
    host, pid = noted if pid is None else (here, pid)
    if host is None or pid is None:
        return {}
    stopped = host == here and is_stopped(pid)
    since = note.get("since") if noted == (host, pid) else None
    return {"pid": pid, "host": host, "since": since, "stopped": stopped}


def locked_by(path: Path) -> int | None:
    """Return the process that has a file locked, or None where ``/proc/locks`` does not tell."""
    try:
        file = path.stat()
        with open("/proc/locks", encoding="ascii") as locks:
            lines = [line.split() for line in locks]
    except OSError:
        return None
    found = None
    for fields in lines:  # 1: FLOCK  ADVISORY  WRITE 4242 fe:00:2146328 0 EOF
        if len(fields) < 6 or fields[1] != "FLOCK":  # "->" marks one who waits
            continue
        major, minor, inode = fields[5].split(":")
        if int(inode) == file.st_ino and int(fields[4]) > 0:  # 0: a process of another container
            if (int(major, 16), int(minor, 16)) == (os.major(file.st_dev), os.minor(file.st_dev)):
                return int(fields[4])
            found = int(fields[4])  # some file systems show another device here than to stat
    return found


def described(holder: dict[str, Any]) -> str:
    """Return who it is in words."""
    if not holder:
        return "another writer"
    pid, host, since = holder["pid"], holder["host"], holder["since"]
    text = f"process {pid} on {host}"
    if (host, pid) == this_process()[:2]:
        text += " (this very one)"
    if since is not None:
        text += f" since {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(since))}"
    if holder["stopped"]:
        text += f", which is stopped (`kill -CONT {pid}` lets it go on)"
    return text
