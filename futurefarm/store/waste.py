"""How much of a session is the space of what was deleted, replaced, or never finished."""

from __future__ import annotations

import os
from pathlib import Path

from .beside import size_apart
from .format import named_errors, sidecar_of
from .reader import open_reader

__all__ = ["size_with_blobs", "waste"]


def size_with_blobs(path: Path) -> int:
    """Return the bytes in a session's file and in that with its large values."""
    return os.stat(path).st_size + _size(sidecar_of(path))


def waste(path: Path) -> int:
    """Return the bytes in the two files of a sealed session to which nothing refers.

    Raises:
        SessionError: it cannot be read.
    """
    with open_reader(path) as reader, named_errors(path):
        if reader is None:
            return 0
        used, after = 0, 0 if _size(sidecar_of(path)) else None
        while after is not None:
            rows, after = reader.items(after)
            used += sum(size_apart(value) for _, _, value, _ in rows)
        return reader.free_bytes() + max(0, _size(sidecar_of(path)) - used)


def _size(path: Path) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0
