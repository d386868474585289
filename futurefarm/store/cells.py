"""The pages of SQLite's b-trees, after its description of the file format, read without trusting them."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from .log import PAGE

__all__ = ["Cell", "adds_up", "cell_at", "leaf_cells", "pointers", "values"]

INNER_INDEX, INNER_TABLE, LEAF_INDEX, LEAF_TABLE = 0x02, 0x05, 0x0A, 0x0D

_u16 = struct.Struct(">H").unpack_from
_LEAST = (PAGE - 12) * 32 // 255 - 23
_MOST = {LEAF_TABLE: PAGE - 35, LEAF_INDEX: (PAGE - 12) * 64 // 255 - 23}
_MOST[INNER_INDEX] = _MOST[LEAF_INDEX]
_SIZES = (0, 1, 2, 3, 4, 6, 8, 8, 0, 0)  # of the serial types; from 12 on they tell a length


class Cell(NamedTuple):
    """A row in a page: its number, the kinds and lengths of its columns, and where its bytes are.

    ``local`` bytes from ``start`` on lie in the page, the others in the pages that begin with ``overflow``.
    """

    row: int
    kinds: tuple[int, ...]
    head: int
    size: int
    start: int
    local: int
    overflow: int


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for i in range(8):
        byte = data[at + i]
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at + i + 1
    return value << 8 | data[at + 8], at + 9


def _local(size: int, kind: int) -> int:
    """Return how many bytes of a payload lie in the page itself."""
    if size <= _MOST[kind]:
        return size
    local = _LEAST + (size - _LEAST) % (PAGE - 4)
    return local if local <= _MOST[kind] else _LEAST


def pointers(page: bytes, begin: int = 0) -> list[int]:
    """Return where the cells of a leaf are; in the first page, the head of the file comes before it."""
    return [_u16(page, begin + 8 + 2 * i)[0] for i in range(min(_u16(page, begin + 3)[0], (PAGE - 8) // 6))]


def leaf_cells(page: bytes, kind: int) -> Iterator[Cell]:
    """Iterate over the cells that the pointers of a leaf lead to."""
    for at in pointers(page):
        cell = cell_at(page, at, kind)
        if cell is not None:
            yield cell


def cell_at(page: bytes, at: int, kind: int = LEAF_TABLE) -> Cell | None:
    """Return the cell that begins at ``at``, or None if none can begin there."""
    try:
        size, start = _varint(page, at)
        row = 0
        if kind == LEAF_TABLE:
            row, start = _varint(page, start)
        head, at = _varint(page, start)
        if not 2 <= head <= 64 or head > size:
            return None
        kinds = []
        total = head
        while at < start + head:
            type_, at = _varint(page, at)
            if type_ in (10, 11):
                return None
            kinds.append(type_)
            total += (type_ - 12) // 2 if type_ >= 12 else _SIZES[type_]
        local = _local(size, kind)
        end = start + local
        if total != size or at != start + head or end + 4 * (local < size) > PAGE:
            return None
        overflow = int.from_bytes(page[end : end + 4], "big") if local < size else 0
    except IndexError:
        return None
    return Cell(row, tuple(kinds), head, size, start, local, overflow)


def values(payload: bytes, cell: Cell) -> list[int | float | bytes | str | None]:
    """Return the columns of a row. Raises UnicodeDecodeError where a text is none."""
    found: list[int | float | bytes | str | None] = []
    at = cell.head
    for kind in cell.kinds:
        size = (kind - 12) // 2 if kind >= 12 else _SIZES[kind]
        data = payload[at : at + size]
        at += size
        if kind >= 12:
            found.append(data.decode() if kind % 2 else data)
        elif kind == 7:
            found.append(float(struct.unpack(">d", data)[0]))
        elif kind in (0, 8, 9):
            found.append((None, 0, 1)[(0, 8, 9).index(kind)])
        else:
            found.append(int.from_bytes(data, "big", signed=True))
    return found


def adds_up(page: bytes) -> bool:
    """Whether a page is one of a b-tree, and every byte of it belongs to a cell or is known to be free.

    A flipped bit in the kind of a page, in the number of its cells or in where they are makes the sum wrong.
    """
    kind = page[0]
    if kind not in (INNER_INDEX, INNER_TABLE, LEAF_INDEX, LEAF_TABLE):
        return False
    begin = 8 if kind in (LEAF_INDEX, LEAF_TABLE) else 12
    free, number, content = struct.unpack_from(">3H", page, 1)
    if begin + 2 * number > (content or 65536) or content > PAGE:
        return False
    sum_ = content + page[7]
    try:
        for i in range(number):
            sum_ += _cell_size(page, _u16(page, begin + 2 * i)[0], kind)
        while free:
            following, size = struct.unpack_from(">2H", page, free)
            if size < 4 or (following and following < free + 4):
                return False
            sum_ += size
            free = following
    except (IndexError, struct.error):
        return False
    return bool(sum_ == PAGE)


def _cell_size(page: bytes, at: int, kind: int) -> int:
    begin = at
    if kind in (INNER_INDEX, INNER_TABLE):
        at += 4
    size, at = _varint(page, at)
    if kind == INNER_TABLE:
        return at - begin
    if kind == LEAF_TABLE:
        _, at = _varint(page, at)
    local = _local(size, kind)
    return max(4, at - begin + local + 4 * (local < size))
