"""What stands in the place of a large value: the rest of its pickle, and where its other pieces lie.

A pickle ends with the opcode STOP, which is a dot; so what does not end with a dot has a trailer behind it.
All numbers are little-endian and without a sign:

======================  ===============================================================================
bytes                   what
======================  ===============================================================================
any number              the pickle, of protocol 5, up to and with its STOP
20 for each reference   where the piece begins in the file (8), its length (8), and its CRC-32 (4)
8                       the mark of the file, as in its head
4                       the number of references
4                       1 if the pickle itself is the last piece, and a stub stands in its place; else 0
8                       ``FFARblob``
======================  ===============================================================================

The pieces, in their order, are the buffers that the pickle's opcodes NEXT_BUFFER ask for. Without them Python
says "pickle stream refers to out-of-band data but no *buffers* argument was given": so do `pickle.loads` and
`shelve`, which know nothing of the trailer. A stub, ``PROTO 5, NEXT_BUFFER, STOP``, makes them say so, too.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

__all__ = ["MAGIC", "MARK", "Parts", "Reference", "attach", "detach", "has_trailer", "in_band"]

MAGIC = b"FFARblob"
MARK = 8
"""Bytes of the mark of a file."""

_REFERENCE = struct.Struct("<QQI")
_FOOT = struct.Struct(f"<{MARK}sII{len(MAGIC)}s")
_STUB = b"\x80\x05\x97."
_STOP = ord(".")


class Reference(NamedTuple):
    """Where a piece begins in a file, how many bytes it has, and their CRC-32."""

    offset: int
    size: int
    crc: int


class Parts(NamedTuple):
    """A value taken apart: its pickle, or a stub, where the other pieces lie, and in which file.

    ``whole`` is whether the last piece is the pickle itself.
    """

    stream: bytes
    references: tuple[Reference, ...] = ()
    mark: bytes = b""
    whole: bool = False

    @property
    def content(self) -> tuple[bytes, list[tuple[int, int]]]:
        """What is the same for the same value, wherever its pieces lie."""
        return self.stream, [reference[1:] for reference in self.references]


def has_trailer(data: bytes) -> bool:
    """Whether pieces of a value lie elsewhere."""
    return data.endswith(MAGIC)


def attach(stream: bytes, references: Sequence[Reference], mark: bytes, *, whole: bool = False) -> bytes:
    """Return what is stored in the place of a value whose pieces lie in the file of this mark.

    Args:
        stream: the pickle; without meaning if ``whole``.
        references: to the pieces.
        mark: of the file.
        whole: whether the last piece is the pickle itself.
    """
    if not references:
        return stream
    parts = [_STUB if whole else stream, *(_REFERENCE.pack(*reference) for reference in references)]
    return b"".join((*parts, _FOOT.pack(mark, len(references), whole, MAGIC)))


def detach(data: bytes) -> Parts:
    """Take a stored value apart; one without a trailer is its pickle alone.

    Raises:
        ValueError: the trailer does not fit.
    """
    if not has_trailer(data):
        return Parts(data)
    foot = len(data) - _FOOT.size
    if foot < 0:
        raise ValueError("a trailer that is not whole")
    mark, number, whole, _ = _FOOT.unpack_from(data, foot)
    begin = foot - number * _REFERENCE.size
    if begin < len(_STUB) or data[begin - 1] != _STOP or whole > 1 or number < max(1, whole):
        raise ValueError("a trailer that does not fit")
    found = map(Reference._make, _REFERENCE.iter_unpack(data[begin:foot]))
    return Parts(data[:begin], tuple(found), mark, bool(whole))


def in_band(stream: bytes, buffers: Iterable[Any]) -> bytes:
    """Return a pickle with its buffers put back into it, which `pickle.loads` reads; nothing is run."""
    import pickletools  # late: a worker never needs it

    left = iter(buffers)
    parts: list[Any] = []
    pending: Any = None
    opcodes = [(opcode.name, at) for opcode, _, at in pickletools.genops(stream)]
    for (name, at), (_, end) in zip(opcodes, [*opcodes[1:], ("", len(stream))]):
        if pending is not None:
            read_only = name == "READONLY_BUFFER"
            parts += [b"\x8e" if read_only else b"\x96", len(pending).to_bytes(8, "little"), pending]
            pending = None
            if read_only:
                continue
        if name == "NEXT_BUFFER":
            pending = next(left)
        elif name != "FRAME":  # a frame would be longer now, and none is needed
            parts.append(stream[at:end])
    return b"".join(parts)
