"""A mark behind the last page of a session file, by which a copy that was torn in the middle is noticed.

A copier reads a file from its beginning to its end. If a log is folded in meanwhile, the copy has some pages
from before and some from after, and its header, read first, looks innocent. So a mark behind the last page,
where SQLite neither looks nor minds, says whether the pages stand still. It is changed *before* the first of
them is:

* *standing* on a log: the pages are what they have been since that log was folded in.
* *folding* a log: they are being replaced by what its first so many bytes hold. With those beside it, a copy
  is complete all the same.

Another program that makes the file longer writes over the mark: then there is none, and nothing is known.
Rejected: a checksum of the whole file, which takes seconds for a large one, at each opening.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import NamedTuple

from .grip import Grip

__all__ = ["Tail"]

_LAYOUT = struct.Struct("<8sqq")
_MAGIC = b"FFARtail"
_PAGES = struct.Struct(">H10xI")  # of the header: bytes in a page (ours are small), number of pages


class Tail(NamedTuple):
    """What the mark says: the number of a log, and how many bytes of it are being folded in (0: none)."""

    log: int
    folding: int = 0

    @classmethod
    def read(cls, path: Path) -> Tail | None:
        """Return the mark of a file, or None where there is none.

        Raises:
            ValueError: the file ends neither with its last page nor with a mark.
        """
        with Grip(path) as grip:
            page, pages = _PAGES.unpack(grip.read(_PAGES.size, 16))
            rest = grip.read(page + 1, page * pages)
            size = grip.size()
        if size == page * pages:
            return None
        # SQLite may have filled the page with zeros.
        whole = rest.startswith(_MAGIC) and _LAYOUT.size <= len(rest) <= page
        if not whole or rest[_LAYOUT.size :].strip(b"\0"):
            raise ValueError(path)
        _, log, folding = _LAYOUT.unpack_from(rest)
        return cls(log, folding)

    def write(self, path: Path) -> None:
        """Put the mark behind the last page; the next sync of the file makes it durable."""
        with Grip(path) as grip:
            page, pages = _PAGES.unpack(grip.read(_PAGES.size, 16))
            grip.write(_LAYOUT.pack(_MAGIC, *self), page * pages)
