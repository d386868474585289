"""What a pickle of plain data may name, and how it is made."""

from __future__ import annotations

import datetime
import decimal
import fractions
import pathlib
import re
import uuid
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from typing import Any

from ..bundle import StoredArray
from ..spaces import Params
from . import arrays
from .parts import Global, NotPlainError, Pending, checked_key

__all__ = ["find"]

Maker = Callable[[tuple[Any, ...]], Any]


def find(module: str, name: str) -> Global:
    """Return what stands for a global.

    Raises:
        NotPlainError: it is not on the list.
    """
    full = f"{_MOVED.get(module, module)}.{name}"
    maker = _MAKERS.get(full)
    if maker is None:
        raise NotPlainError(f"{module}.{name}")
    return Global(full, lambda arguments: _made(full, maker, arguments))


def _made(name: str, maker: Maker, arguments: tuple[Any, ...]) -> Any:
    try:
        return maker(arguments)
    except (TypeError, ValueError, ArithmeticError) as error:
        raise NotPlainError(f"{name} of these arguments ({error})") from error


def _of(make: Callable[..., Any], *kinds: type | tuple[type, ...], at_least: int = 0) -> Maker:
    """Return a maker that takes values of just these types, and ``at_least`` so many of them."""

    def maker(arguments: tuple[Any, ...]) -> Any:
        if not at_least <= len(arguments) <= len(kinds):
            raise TypeError(f"{len(arguments)} of them")
        for argument, kind in zip(arguments, kinds):
            if type(argument) not in (kind if isinstance(kind, tuple) else (kind,)):
                raise TypeError(type(argument).__name__)
        return make(*arguments)

    return maker


_NUMBER = (int, type(None))
_SEQUENCE = (list, tuple)


def _set(make: Callable[[Any], Any]) -> Maker:
    return _of(lambda items=(): make([checked_key(item) for item in items]), _SEQUENCE)


def _bytes(text: str, encoding: str = "latin1") -> bytes:
    """Protocol 2 had no bytes and wrote them as text."""
    if encoding not in ("latin1", "latin-1"):
        raise ValueError(encoding)
    return text.encode("latin1")


def _bytearray(data: bytes | str = b"", encoding: str = "latin-1") -> bytearray:
    return bytearray(data if isinstance(data, bytes) else _bytes(data, encoding))


def _deque(items: tuple[Any, ...], maxlen: int | None) -> deque[Any]:
    if items:  # they come later, one by one
        raise ValueError("of items")
    return deque(items, maxlen)


def _fraction(numerator: int | str, denominator: int = 1) -> fractions.Fraction:
    if isinstance(numerator, str):
        if not re.fullmatch(r"-?\d+(/\d+)?", numerator, re.ASCII):  # 1e999999999 is a very long number
            raise ValueError(numerator[:40])
        return fractions.Fraction(numerator)
    return fractions.Fraction(numerator, denominator)


def _uuid(arguments: tuple[Any, ...]) -> Pending:
    if arguments:
        raise TypeError("none are needed")

    def finish(state: Any) -> uuid.UUID:
        if not isinstance(state, dict) or type(state.get("int")) is not int:
            raise NotPlainError("uuid.UUID of another state")
        return uuid.UUID(int=state["int"])

    return Pending(finish)


def _path(kind: type[pathlib.PurePath], pure: type[pathlib.PurePath]) -> Maker:
    """Return a maker of paths; those of another system become pure ones."""

    def maker(arguments: tuple[Any, ...]) -> pathlib.PurePath:
        if any(type(argument) is not str for argument in arguments):
            raise TypeError("a part is no text")
        try:
            return kind(*arguments)
        except NotImplementedError:
            return pure(*arguments)

    return maker


def _posix_or(kind: type[pathlib.PurePath]) -> Maker:
    return _path(kind, pathlib.PurePosixPath)


def _windows_or(kind: type[pathlib.PurePath]) -> Maker:
    return _path(kind, pathlib.PureWindowsPath)


_MOVED = {
    "__builtin__": "builtins",
    "pathlib._local": "pathlib",
    "numpy._core.multiarray": "numpy.core.multiarray",
    "numpy._core.numeric": "numpy.core.numeric",
}

_MAKERS: dict[str, Maker] = {
    "builtins.bytes": _of(bytes),
    "builtins.bytearray": _of(_bytearray, (bytes, str), str),
    "builtins.complex": _of(complex, (int, float), (int, float), at_least=1),
    "builtins.frozenset": _set(frozenset),
    "builtins.set": _set(set),
    "builtins.range": _of(range, int, int, int, at_least=1),
    "builtins.xrange": _of(range, int, int, int, at_least=1),
    "builtins.slice": _of(slice, _NUMBER, _NUMBER, _NUMBER, at_least=1),
    "_codecs.encode": _of(_bytes, str, str, at_least=1),
    "collections.Counter": _of(Counter, dict),
    "collections.OrderedDict": _of(OrderedDict),
    "collections.deque": _of(_deque, tuple, _NUMBER),
    "datetime.date": _of(datetime.date, bytes, at_least=1),
    "datetime.datetime": _of(datetime.datetime, bytes, datetime.timezone, at_least=1),
    "datetime.time": _of(datetime.time, bytes, datetime.timezone, at_least=1),
    "datetime.timedelta": _of(datetime.timedelta, int, int, int),
    "datetime.timezone": _of(datetime.timezone, datetime.timedelta, str, at_least=1),
    "decimal.Decimal": _of(decimal.Decimal, str, at_least=1),
    "fractions.Fraction": _of(_fraction, (int, str), int, at_least=1),
    "uuid.UUID": _uuid,
    "pathlib.PurePosixPath": _posix_or(pathlib.PurePosixPath),
    "pathlib.PosixPath": _posix_or(pathlib.PosixPath),
    "pathlib.PureWindowsPath": _windows_or(pathlib.PureWindowsPath),
    "pathlib.WindowsPath": _windows_or(pathlib.WindowsPath),
    "futurefarm.bundle.restored": _of(StoredArray, bytes, tuple, str, tuple, bytes, at_least=5),
    "futurefarm.spaces.Params": _of(Params),
    "numpy.dtype": arrays.dtype,
    "numpy.ndarray": arrays.ndarray,
    "numpy.core.multiarray._reconstruct": arrays.reconstruct,
    "numpy.core.multiarray.scalar": arrays.scalar,
    "numpy.core.numeric._frombuffer": arrays.from_buffer,
}
