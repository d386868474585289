"""A session file: bytes to bytes on SQLite, with the ledger of attempts beside them.

The table ``Dict`` is that of CPython 3.13's `dbm.sqlite3`, so ``shelve.open(path)`` of any Python from 3.13
on reads a session. One column more, ``crc``, guards each value: SQLite itself returned silently wrong data
after 200 of 300 flipped bits. Rows that another program wrote have none there and are not checked.

*While a process writes* the file is in WAL mode and never checkpointed, so the main file stands still and a
copy of it and of its log is a consistent prefix. *At rest* it is sealed: one plain file. A copy taken at the
wrong moment must be noticed, never be silently short, hence two marks in the header (``user_version``):

* ``writing`` is set in the main file before the log begins and cleared after the log is gone. A file that has
  the mark but no log is an incomplete copy, unless it is the very file that was written here: SQLite itself
  may have folded the log in, when the last process that had the file open ended. What is known of that file
  (`Home`) is noted outside of it: its inode, and which log it had.
* ``generation`` is the number of the log, a random one for each, and the first entry of the log repeats it:
  a log beside a file of another generation belongs to an older or newer copy. The second entry is the log's
  salt, which SQLite renews whenever it begins the log anew: one that was begun unnoticed is not trusted.

A copy that was torn while a log was folded in is known by what lies behind its last page; see `tail`.

*Large values* lie in a file of their own beside the session, NAME.blobs (see `blobs`), which is there from
the first one on. What refers to them is committed when they are on disk, with a note in Meta of how long the
file must be: so a copy without it, or with an earlier state of it, is known. It only grows.

What looks at damaged files, `examine` and `recover`, and what counts without SQLite, `glance`, is imported
from there: no worker should wait for it.
"""

from .checksum import checksum
from .copy import adopt, copy, overlaps
from .format import (
    FORMAT,
    Header,
    Home,
    TornLogWarning,
    check_log,
    create,
    damage,
    is_blank,
    log_size,
    named,
    resembles_session,
    sidecar_of,
    sync,
    verified,
    verified_key,
    without_blobs,
)
from .reader import Attempt, Reader, open_reader
from .store import Store
from .stretch import Whole

__all__ = [
    "FORMAT",
    "Attempt",
    "Header",
    "Home",
    "Reader",
    "Store",
    "TornLogWarning",
    "Whole",
    "adopt",
    "check_log",
    "checksum",
    "copy",
    "create",
    "damage",
    "is_blank",
    "log_size",
    "named",
    "open_reader",
    "overlaps",
    "resembles_session",
    "sidecar_of",
    "sync",
    "verified",
    "verified_key",
    "without_blobs",
]
