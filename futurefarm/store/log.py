"""The log of a session, read without SQLite.

SQLite takes a log to end at the first frame whose checksum does not fit, because that is what a crash in the
middle of a commit looks like. One flipped bit therefore hides all commits behind it, without an error. Here
each frame is checked against the checksum that the one before it has stored, so that the frames behind a
damaged one are known to be there, and known to be good.
"""

from __future__ import annotations

import os
import struct
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["PAGE", "Frame", "Loss", "frames", "lost_commits"]

PAGE = 4096
"""Bytes in a page of a session file."""

_HEAD = 32
_FRAME = 24 + PAGE
_STEP = 512


class Frame(NamedTuple):
    """A page in the log: its number, whether it ends a commit, whether its checksum fits, where it begins.

    ``stored`` is the checksum that it has of itself and of all before it.
    """

    page: int
    commits: bool
    good: bool
    offset: int
    stored: tuple[int, int]


class Loss(NamedTuple):
    """What SQLite does not see of a log: how many commits, from where on, whether one was acknowledged."""

    commits: int
    at: int
    acknowledged: bool


def frames(path: Path, known: Frame | None = None) -> Iterator[Frame]:
    """Read the frames of the log beside a session file, behind a ``known`` one; none without a log."""
    try:
        file = open(f"{path}-wal", "rb")  # noqa: SIM115 - closed below; a missing log is no error
    except FileNotFoundError:
        return
    with file:
        head = file.read(_HEAD)
        offset = file.seek(known.offset + PAGE) if known else _HEAD
        before = known.stored if known else struct.unpack(">2I", head[24:32].ljust(8, b"\0"))
        data = file.read(_STEP * _FRAME)
        salt = _salt(head, data)
        order = _order(head, data, before)
        while len(data) >= _FRAME:
            number = len(data) // _FRAME
            for i, fits in enumerate(_fits(data[: number * _FRAME], before, order)):
                page, size, *rest = struct.unpack_from(">6I", data, i * _FRAME)
                # Of an older log, or with a damaged mark: it does not count as a commit.
                ours = (rest[0], rest[1]) == salt
                before = rest[2], rest[3]
                yield Frame(page, bool(ours and size), ours and fits, offset + i * _FRAME + 24, before)
            offset += number * _FRAME
            data = data[number * _FRAME :] + file.read(_STEP * _FRAME)


def _order(head: bytes, data: bytes, before: tuple[int, ...]) -> str:
    """Return the order of bytes in the log: the header's, unless no frame fits then."""
    orders = "><" if head[3:4] == b"\x83" else "<>"
    whole = data[: len(data) // _FRAME * _FRAME]
    return orders[not any(_fits(whole, before, orders[0])) and any(_fits(whole, before, orders[1]))]


def _salt(head: bytes, data: bytes) -> tuple[int, ...]:
    """Return the salt of the log: the header's, unless that is damaged and the frames agree on another."""
    if _is_whole(head):  # frames of the log before may lie behind the first ones of one that was begun anew
        return struct.unpack(">2I", head[16:24])
    found = Counter(data[at + 8 : at + 16] for at in range(0, len(data) - _FRAME + 1, _FRAME))
    found[head[16:24].ljust(8, b"\0")] += 1
    return struct.unpack(">2I", found.most_common(1)[0][0])


def _is_whole(head: bytes) -> bool:
    """Whether the checksum of a log's header fits."""
    if len(head) < _HEAD:
        return False
    a = b = 0
    words = struct.unpack(">6I" if head[3] == 0x83 else "<6I", head[:24])
    for one, other in zip(words[::2], words[1::2]):
        a = (a + one + b) & 0xFFFFFFFF
        b = (b + other + a) & 0xFFFFFFFF
    return (a, b) == struct.unpack(">2I", head[24:32])


def _fits(data: bytes, before: tuple[int, ...], order: str) -> list[bool]:
    """Return for each frame whether its checksum continues the one that the frame before has stored."""
    import numpy as np

    raw = np.frombuffer(data, np.uint8).reshape(-1, _FRAME)
    words = np.concatenate([raw[:, :8], raw[:, 24:]], axis=1).view(f"{order}u4").astype(np.uint32)
    stored = np.ascontiguousarray(raw[:, 16:24]).view(">u4").astype(np.uint32)
    earlier = np.concatenate([np.array([before], np.uint32), stored[:-1]])
    weights, carry = _weights(words.shape[1])
    return list((words @ weights + earlier @ carry == stored).all(axis=1))


@cache
def _weights(number: int) -> tuple[Any, Any]:
    """Return what each word, and the checksum before, count for in a checksum of so many words.

    SQLite adds them one by one: ``a += word + b; b += next_word + a``. That is linear, so one product of
    matrices does it for many frames.
    """
    import numpy as np

    step = np.array([[1, 1], [1, 2]], np.uint32)  # (a, b) after two words of zero
    enter = np.array([[1, 1], [0, 1]], np.uint32)  # what a word, and the one after it, add to (a, b)
    weights = np.zeros((number, 2), np.uint32)
    carry = np.identity(2, np.uint32)
    for at in range(number - 2, -1, -2):
        weights[at : at + 2] = enter @ carry
        carry = step @ carry
    return weights, carry


def lost_commits(path: Path) -> Loss | None:
    """Return what SQLite does not see of the commits in a log, or None if it sees all.

    A kill leaves whole frames only, so any other means damage or a power cut. A commit at the very end may
    have been torn by the latter before it was acknowledged. Behind any other one another commit begins, so it
    was on disk.
    """
    loss = _lost(path)
    # While somebody writes, a frame may be seen half written. Damage is there the second time too.
    return loss if loss is not None and (again := _lost(path)) and again.at == loss.at else None


_sound: dict[Path, tuple[bytes, int, int, Frame]] = {}
"""The head of a log, its size and time of change, and the last commit that was found good in it, so that
a log which grows is not read from its beginning each time."""


def _lost(path: Path) -> Loss | None:
    head, size, changed = _head(path)
    sound = None
    if path in _sound:
        head_, size_, changed_, frame = _sound[path]
        if head == head_ and (size > size_ or (size, changed) == (size_, changed_)):
            sound = frame
    lost = 0
    without_head = not _is_whole(head)  # then SQLite ignores the log
    at = 0
    acknowledged = False
    for frame in frames(path, sound):
        acknowledged = acknowledged or lost > 0
        if not at and (without_head or not frame.good):
            at = frame.offset
        lost += bool(at and frame.commits)
        if frame.commits and not at:
            sound = frame
    if sound is not None:
        if len(_sound) > 1000:
            _sound.clear()
        _sound[path] = head, size, changed, sound
    return Loss(lost, at, acknowledged) if at else None


def _is_whole(head: bytes) -> bool:
    """Whether the head of a log has the checksum that it says."""
    if len(head) < _HEAD:
        return not head  # no log, or none yet
    a = b = 0
    words = struct.unpack(f"{'>' if head[3] & 1 else '<'}6I", head[:24])
    for i in range(0, 6, 2):
        a = (a + words[i] + b) & 0xFFFFFFFF
        b = (b + words[i + 1] + a) & 0xFFFFFFFF
    return (a, b) == struct.unpack(">2I", head[24:])


def _head(path: Path) -> tuple[bytes, int, int]:
    try:
        with open(f"{path}-wal", "rb") as file:
            status = os.fstat(file.fileno())
            return file.read(_HEAD), status.st_size, status.st_mtime_ns
    except FileNotFoundError:
        return b"", 0, 0
