"""Large arrays that come again and again in the items, and need not travel with each."""

from __future__ import annotations

import sys
import weakref
from contextlib import suppress
from typing import Any

from ..bundle import Bundle, StoredArray
from ..identity import spell
from ..spaces import Params

__all__ = ["Repeats"]

LARGE = 1 << 20
"""Bytes from which on an array is looked for."""

CREDIT = 2
"""Arrays that are written at their first appearance, in the hope that they come again; each that does gives
its place to another. Others are written when they come again."""

_PIECE = 1 << 20
_PLAIN = frozenset({int, float, str, bytes, bool, type(None), complex})
_STEADY: frozenset[type] = frozenset({type(iter([])), type(iter(()))})


class Repeats:
    """Puts what stands for an array in its place, where the very same one comes more than once.

    Looked at are arrays of numpy that are an item, or an element of a tuple or of a `Params`. Their content
    is compared each time: a generator may give the same array with other numbers. Between two elements of a
    list nothing runs that could change it.

    Args:
        bundle: where arrays are written.
        args: the iterator over the items.
    """

    def __init__(self, bundle: Bundle, args: Any) -> None:
        self._bundle = bundle
        self._steady = type(args) in _STEADY
        self._known: dict[int, _Known] = {}
        self._credit = CREDIT
        self._given_up = False

    def give_up(self) -> None:
        """Write no more arrays: there are workers that do not see them."""
        self._given_up = True

    def stand_in(self, item: Any) -> Any:
        """Return the item with what stands for its repeated arrays."""
        kind = type(item)
        if kind in _PLAIN or self._given_up:
            return item
        array_type = getattr(sys.modules.get("numpy"), "ndarray", None)
        if array_type is None:
            return item
        if kind is array_type:
            return self._look_up(item)
        if kind is tuple and array_type in map(type, item):
            return tuple(self._look_up(part) if type(part) is array_type else part for part in item)
        if kind is Params and array_type in map(type, item.values()):
            return Params({k: self._look_up(v) if type(v) is array_type else v for k, v in item.items()})
        return item

    def _look_up(self, array: Any) -> Any:
        dtype = array.dtype
        if array.nbytes < LARGE or dtype.hasobject or dtype.names or not array.flags.c_contiguous:
            return array
        known = self._known.get(id(array))
        if known is None or known.array() is not array:
            known = self._known[id(array)] = _Known(weakref.ref(array, self._forgetting(id(array))))
            if self._credit:
                self._credit -= 1
                known.stored = self._store(array)
        elif known.stored is None:
            known.stored = self._store(array)
        elif self._steady or self._same(array, known.stored):
            self._credit += not known.came_again
            known.came_again = True
        else:
            return array
        return array if known.stored is None else known.stored

    def _forgetting(self, number: int) -> Any:
        known = self._known
        return lambda _: known.pop(number, None)

    def _store(self, array: Any) -> StoredArray | None:
        with suppress(OSError):  # a full disk: it travels with its item
            return self._bundle.add(array, spell(array))
        return None

    def _same(self, array: Any, stored: StoredArray) -> bool:
        ours, theirs = (part.reshape(-1).view("u1") for part in (array, self._bundle.get(stored)))
        return all(
            bool((ours[at : at + _PIECE] == theirs[at : at + _PIECE]).all())
            for at in range(0, len(ours), _PIECE)
        )


class _Known:
    """An array that has come."""

    def __init__(self, array: weakref.ref[Any]) -> None:
        self.array = array
        self.stored: StoredArray | None = None
        self.came_again = False
