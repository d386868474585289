"""What lies on the machine's stack and is not yet a value."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

__all__ = ["Arguments", "Global", "NotPlainError", "Part", "Pending", "check_frail", "checked_key", "value"]


class NotPlainError(ValueError):
    """A pickle holds more than plain data. Attribute: ``what``, for example ``os.system``."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what


class Part:
    """Something that a pickle needs on the way to a value; in a value it has no place."""

    __slots__ = ()


class Arguments(tuple[Any, ...], Part):
    """A tuple that holds parts."""

    __slots__ = ()


class Global(Part):
    """What stands for a class or function that a pickle names: calling it makes plain data, or a part."""

    __slots__ = ("make", "name")

    def __init__(self, name: str, make: Callable[[tuple[Any, ...]], Any]) -> None:
        self.name = name
        self.make = make


class Pending(Part):
    """An object that a pickle has made and whose state comes next."""

    __slots__ = ("finish", "memo")

    def __init__(self, finish: Callable[[Any], Any]) -> None:
        self.finish = finish
        self.memo: list[int] = []


def value(part: Any) -> Any:
    """Return what may become part of a value."""
    if isinstance(part, Part):
        raise NotPlainError(part.name if isinstance(part, Global) else "an object that refers to itself")
    return part


def check_frail(parts: Iterable[Any], *, arrays: bool = False) -> None:
    """Refuse what a deque or an array of objects may not hold: another such one.

    They are freed by recursion in C, and a long chain of them ends the process. Lists and dicts are not.
    """
    for part in parts:
        if type(part) is deque or (not arrays and getattr(getattr(part, "dtype", None), "hasobject", False)):
            raise NotPlainError(f"a {type(part).__name__} in a deque or array")


_SIMPLE = frozenset({str, int, float, bytes, bool, type(None), complex})
_LARGEST_KEY = 10_000


def checked_key(part: Any) -> Any:
    """Return what may become a key.

    Python takes the hash of a tuple in a tuple by recursion in C: of a hostile one it never ends, or the
    process does.
    """
    if type(part) in _SIMPLE:
        return part
    value(part)
    left = [part]
    for _ in range(_LARGEST_KEY):
        if not left:
            return part
        inner = left.pop()
        if isinstance(inner, tuple | frozenset):
            left.extend(inner)
            if len(left) > _LARGEST_KEY:
                break
    raise NotPlainError("a key of very many parts")
