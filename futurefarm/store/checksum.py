"""The checksums of a session file, which make damage known: SQLite does not notice flipped bits.

All are CRC-32, as zlib computes it, of these bytes. A number stands as 8 bytes, little-endian, signed; a REAL
as an IEEE double of 8 bytes, little-endian; a text in UTF-8; the length of what is NULL is -1.

========================  =============================================================================
column                    covers
========================  =============================================================================
``Dict.crc``              key, value
``Sweep.crc``             id, length of name, length of record; name, record
``Attempt.body_crc``      lengths of item, error, traceback, output; item, error, traceback, output
``Attempt.crc``           sweep, number, replicate, attempt, pid, body_crc, started, seconds, lengths of
                          identity, status, key, host; identity, status, key, host
========================  =============================================================================

An attempt has two, so that the short columns, which a sweep that resumes reads of every row, can be checked
without reading the long ones.
"""

from __future__ import annotations

import struct
from typing import Any
from zlib import crc32

__all__ = ["attempt_checksums", "body_checksum", "checksum", "head_checksum", "sweep_checksum"]

_three = struct.Struct("<3q").pack
_four = struct.Struct("<4q").pack
_head = struct.Struct("<6q2d4q").pack


def checksum(key: bytes, value: bytes) -> int:
    return crc32(value, crc32(key))


def sweep_checksum(number: int, name: str, record: str) -> int:
    name_, record_ = name.encode(), record.encode("utf-8", "replace")
    return crc32(b"".join((_three(number, len(name_), len(record_)), name_, record_)))


def attempt_checksums(sweep: int, row: tuple[Any, ...]) -> tuple[int, int]:
    """Return ``body_crc`` and ``crc`` of the columns from ``number`` to ``output`` of an `Attempt`."""
    (
        number,
        identity,
        replicate,
        attempt,
        status,
        key,
        item,
        error,
        traceback,
        host,
        pid,
        started,
        seconds,
        output,
    ) = row
    body = body_checksum(item, error, traceback, output)
    return body, head_checksum(
        sweep, number, identity, replicate, attempt, status, key, host, pid, started, seconds, body
    )


# The two below run for every task: no loops, and one call of crc32 each. Loops took twice as long.


def body_checksum(item: bytes, error: str | None, traceback: str | None, output: str | None) -> int:
    e = b"" if error is None else error.encode("utf-8", "replace")
    t = b"" if traceback is None else traceback.encode("utf-8", "replace")
    o = b"" if output is None else output.encode("utf-8", "replace")
    lengths = _four(
        len(item),
        -1 if error is None else len(e),
        -1 if traceback is None else len(t),
        -1 if output is None else len(o),
    )
    return crc32(b"".join((lengths, item, e, t, o)))


def head_checksum(
    sweep: int,
    number: int,
    identity: bytes,
    replicate: int,
    attempt: int,
    status: str,
    key: bytes | None,
    host: str,
    pid: int,
    started: float,
    seconds: float,
    body: int,
) -> int:
    s, h = status.encode(), host.encode("utf-8", "replace")
    k = b"" if key is None else key
    numbers = _head(
        sweep,
        number,
        replicate,
        attempt,
        pid,
        body,
        started,
        seconds,
        len(identity),
        len(s),
        -1 if key is None else len(k),
        len(h),
    )
    return crc32(b"".join((numbers, identity, s, k, h)))
