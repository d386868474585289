"""The checksums of a session file, which make damage known: SQLite does not notice flipped bits.

All are CRC-32, as zlib computes it, of these bytes. A number stands as 8 bytes, little-endian, signed; a REAL
as an IEEE double of 8 bytes, little-endian; a text in UTF-8; the length of what is NULL is -1.

===============  ======================================================================================
column           covers
===============  ======================================================================================
``Dict.crc``     key, value
``Sweep.crc``    id, length of name, length of record; name, record
``Attempt.crc``  sweep, number, replicate, attempt, pid, started, seconds, lengths of identity, status,
                 key, item, host, error, traceback, output; these eight themselves
``History.crc``  id, rows
``Stretch``      see `stretch`
===============  ======================================================================================
"""

from __future__ import annotations

import struct
from zlib import crc32

__all__ = ["attempt_checksum", "checksum", "history_checksum", "sweep_checksum"]

_one = struct.Struct("<q").pack
_three = struct.Struct("<3q").pack
_numbers = struct.Struct("<5q2d8q").pack


def checksum(key: bytes, value: bytes) -> int:
    return crc32(value, crc32(key))


def sweep_checksum(number: int, name: str, record: str) -> int:
    name_, record_ = name.encode(), record.encode("utf-8", "replace")
    return crc32(b"".join((_three(number, len(name_), len(record_)), name_, record_)))


def history_checksum(first: int, rows: bytes) -> int:
    return crc32(rows, crc32(_one(first)))


def attempt_checksum(
    sweep: int,
    number: int,
    identity: bytes,
    replicate: int,
    attempt: int,
    item: bytes,
    status: str,
    key: bytes | None,
    error: str | None,
    traceback: str | None,
    host: str,
    pid: int,
    started: float,
    seconds: float,
    output: str | None,
) -> int:
    # It runs for every task: no loops, and one call of crc32. Loops took twice as long.
    s, h = status.encode(), host.encode("utf-8", "replace")
    k = b"" if key is None else key
    e = b"" if error is None else error.encode("utf-8", "replace")
    t = b"" if traceback is None else traceback.encode("utf-8", "replace")
    o = b"" if output is None else output.encode("utf-8", "replace")
    numbers = _numbers(
        sweep,
        number,
        replicate,
        attempt,
        pid,
        started,
        seconds,
        len(identity),
        len(s),
        -1 if key is None else len(k),
        len(item),
        len(h),
        -1 if error is None else len(e),
        -1 if traceback is None else len(t),
        -1 if output is None else len(o),
    )
    return crc32(b"".join((numbers, identity, s, k, item, h, e, t, o)))
