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

    ``ours`` is whether it belongs to this log, ``stored`` the checksum of it and of all before it.
    """

    page: int
    commits: bool
    good: bool
    offset: int
    ours: bool
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
                page, size, mark, *before_ = struct.unpack_from(">IIQII", data, i * _FRAME)
                before = before_[0], before_[1]
                # Where readers kept it from being cut, frames of an older log lie behind those of this one.
                # Their marks share no more bits than chance has it.
                other = (mark ^ salt).bit_count()
                ours = other <= 4
                commits, good = bool(ours and size), fits and not other
                yield Frame(page, commits, good, offset + i * _FRAME + 24, ours, before)
            offset += number * _FRAME
            data = data[number * _FRAME :] + file.read(_STEP * _FRAME)


def _order(head: bytes, data: bytes, before: tuple[int, ...]) -> str:
    """Return the order of bytes in the log: the header's, unless no frame fits then."""
    orders = "><" if head[3:4] == b"\x83" else "<>"
    whole = data[: len(data) // _FRAME * _FRAME]
    return orders[not any(_fits(whole, before, orders[0])) and any(_fits(whole, before, orders[1]))]


def _salt(head: bytes, data: bytes) -> int:
    """Return the mark of the log: the header's, unless it is damaged and the frames agree on another one."""
    if _is_whole(head):  # frames of the log before may lie behind the first ones of one that was begun anew
        return int.from_bytes(head[16:24], "big")
    found = Counter(data[at + 8 : at + 16] for at in range(0, len(data) - _FRAME + 1, _FRAME))
    found[head[16:24]] += 1
    return int.from_bytes(found.most_common(1)[0][0], "big")


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

    Behind a broken frame, only the marks of commits count, as a full disk leaves frames of a commit that was
    undone; and blank frames, which no program leaves. A commit at the very end may have been torn by a power
    cut before it was acknowledged. Behind any other one another commit begins, so it was on disk.
    """
    before = _head(path)
    loss = _lost(path)
    # While somebody writes, a log may be seen half written, or half the old one and half the new one.
    return loss if loss is not None and loss == _lost(path) and before == _head(path) else None


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
    acknowledged = blank = False
    for frame in frames(path, sound):
        acknowledged = acknowledged or (lost > 0 and frame.ours)
        if not at and (without_head or not frame.good):
            at = frame.offset
        lost += bool(at and frame.commits)
        blank = blank or not frame.page
        if frame.commits and not at:
            sound = frame
    if sound is not None:
        if len(_sound) > 1000:
            _sound.clear()
        _sound[path] = head, size, changed, sound
    return Loss(lost, at, acknowledged) if lost or blank else None


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
