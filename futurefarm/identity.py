"""The identity of a call: which function, with which arguments.

Two calls have one identity when a scientist would call them the same: ``1 == 1.0 == np.int64(1)``, the
order of a dict or a set is irrelevant, arrays count by dtype, shape and bytes. The fingerprint does not
depend on the process, on the hash seed or on the version of Python. ``joblib.hash`` was rejected: it
gives 1, 1.0 and np.int64(1) different values, and a set another one under each hash seed.

How it works: a value is spelled out as bytes, each part with a tag and its length, so that no two
different values spell the same; the fingerprint is the BLAKE2b hash of that spelling. Booleans are no
numbers here (``f(True)`` and ``f(1)`` usually mean different things), -0.0 is not 0.0, NaN equals itself.
"""

from __future__ import annotations

import copyreg
import functools
import os
import struct
import sys
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from hashlib import blake2b
from typing import Any

from .errors import UsageTypeError

__all__ = ["SIZE", "Fingerprint", "fingerprint", "function_name"]

SIZE = 16
"""Bytes in a fingerprint: one collision is expected in 2**64 calls."""

_PLAIN = frozenset({int, float, str, bytes, bool, type(None)})
_FUNCTIONS = (type, types.FunctionType, types.BuiltinFunctionType, types.MethodType, functools.partial)
_MAX_DEPTH = 200

_LONG = 1 << 20
"""Bytes from which on content is spelled by its own hash: it is not copied, and the spelling stays short."""


class Fingerprint:
    """Fingerprints of the calls of one function.

    Args:
        function: the function, class or callable object. What its name does not tell (the code and
            closure of a lambda, the bound arguments of a partial, the state of an object) is included.
        bound: further values that all calls share, for example the arguments a task class is made with.

    Example:
        >>> same = Fingerprint(len)
        >>> same.of((1,), {}) == same.of((1.0,), {})
        True
        >>> same.of(("a",), {}) == same.of(("b",), {})
        False
    """

    def __init__(self, function: Callable[..., Any], bound: tuple[Any, ...] = ()) -> None:
        spelled = _function(function, 0)
        if bound:
            spelled += spell(bound)
        self._hash = blake2b(_part(b"C", spelled), digest_size=SIZE)

    def of(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bytes:
        """Return the fingerprint, `SIZE` bytes, of the call ``function(*args, **kwargs)``.

        Raises:
            UsageTypeError: an argument has no stable identity (a generator, a lock, an open file).
        """
        digest = self._hash.copy()
        for value in args:
            digest.update(spell(value))
        if kwargs:
            digest.update(_part(b"K", spell(dict(kwargs))))
        return digest.digest()


def fingerprint(value: Any) -> bytes:
    """Return the fingerprint, `SIZE` bytes, of a value.

    Raises:
        UsageTypeError: it has no stable identity.
    """
    return blake2b(spell(value), digest_size=SIZE).digest()


def function_name(function: Callable[..., Any]) -> str:
    """Return ``module:qualified.name``; a script is named by its file, so that it can also be imported."""
    if isinstance(function, functools.partial):
        return function_name(function.func)
    named = function if hasattr(function, "__qualname__") else type(function)
    return f"{_module(named)}:{named.__qualname__}"


def _module(named: Any) -> str:
    module = getattr(named, "__module__", None) or "builtins"
    if module not in ("__main__", "__mp_main__"):
        return str(module)
    main = sys.modules.get("__main__")
    spec = getattr(main, "__spec__", None)
    if spec is not None:
        return str(spec.name)
    file = getattr(main, "__file__", None)
    if file is None:
        return "__main__"
    return str(file).replace("\\", "/").rpartition("/")[2].removesuffix(".py")


def spell(value: Any, depth: int = 0) -> bytes:
    """Spell a value out as bytes: equal values alike, different values differently."""
    kind = type(value)
    if kind is int:  # before all else: of a million arguments, most are numbers
        return b"i%d;" % value
    if kind in _PLAIN:
        return _plain(value)
    if depth > _MAX_DEPTH:
        raise UsageTypeError(
            f"an argument of type {kind.__qualname__} has no stable identity: it contains itself or is "
            f"nested deeper than {_MAX_DEPTH} levels. Pass plain values and build the object in the function."
        )
    if kind is complex:
        return _part(b"c", _plain(value.real) + _plain(value.imag))
    if kind is bytearray or kind is memoryview:
        return _plain(bytes(value))
    if kind is tuple or kind is list:
        return _part(b"t" if kind is tuple else b"l", b"".join([spell(part, depth + 1) for part in value]))
    if kind is dict:
        return _part(b"d", _sorted_pairs(value, depth))
    if isinstance(value, Set) and kind in (set, frozenset):
        return _part(b"s", b"".join(sorted(spell(part, depth + 1) for part in value)))
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, (numpy.ndarray, numpy.generic)):
        return _numpy(numpy, value, depth)
    spelled = getattr(kind, "__futurefarm_spelling__", None)
    if spelled is not None:  # what stands for something
        return spelled(value)  # type: ignore[no-any-return]
    if isinstance(value, _FUNCTIONS):
        return _part(b"F", _function(value, depth))
    if isinstance(value, os.PathLike):  # by its text: Pythons differ in where the class lives
        return _part(b"P", _plain(os.fspath(value)))
    return _part(b"o", _object(value, depth))


def _part(tag: bytes, body: bytes) -> bytes:
    return b"%s%d:%s" % (tag, len(body), body)


def _plain(value: Any) -> bytes:
    kind = type(value)
    if kind is float:
        # 1.0 is 1, as `==` has it; infinities and NaN have no integer.
        if value.is_integer() and not (value == 0.0 and struct.pack("<d", value) != bytes(8)):
            return b"i%d;" % int(value)
        return b"f" + (b"nan" if value != value else struct.pack("<d", value).hex().encode()) + b";"
    if kind is str:
        return _part(b"u", value.encode("utf-8", "surrogatepass"))
    if kind is bytes:
        return _part(b"b", value) if len(value) < _LONG else _part(b"B", _digest(len(value), [value]))
    if kind is bool:
        return b"T" if value else b"N"
    return b"0"


def _sorted_pairs(mapping: Mapping[Any, Any], depth: int) -> bytes:
    return b"".join(sorted(spell(k, depth + 1) + spell(v, depth + 1) for k, v in mapping.items()))


def _numpy(numpy: Any, value: Any, depth: int) -> bytes:
    if isinstance(value, numpy.generic):
        plain = value.item()
        # Of a time in nanoseconds, numpy makes a mere number.
        is_time = isinstance(value, (numpy.datetime64, numpy.timedelta64))
        if not is_time and (type(plain) in _PLAIN or type(plain) is complex):
            return spell(plain, depth)
        value = numpy.asarray(value)  # times, long doubles, records: by dtype and bytes
    body = spell(value.shape, depth + 1)
    if value.dtype.hasobject:
        body += _plain("object") + b"".join(spell(part, depth + 1) for part in value.ravel().tolist())
    else:
        # Little-endian and C order: one array has one spelling on every machine.
        dtype = value.dtype.newbyteorder("<")
        body += _plain(dtype.str if dtype.names is None else repr(dtype.descr))
        if value.nbytes < _LONG:
            body += numpy.ascontiguousarray(value, dtype=dtype).tobytes()
        else:
            body += _digest(value.nbytes, _pieces(numpy, numpy.asarray(value), dtype))
    if type(value) is not numpy.ndarray:  # a quantity with its unit, a masked array with its mask
        state = {k: v for k, v in getattr(value, "__dict__", {}).items() if not k.startswith("_optinfo")}
        body += _plain(function_name(type(value))) + spell(state, depth + 1)
    return _part(b"a", body)


def _pieces(numpy: Any, array: Any, dtype: Any) -> Iterator[Any]:
    """Yield the content of an array in C order, as bytes; what has to be copied for that, piece by piece."""
    if array.flags.c_contiguous and array.dtype == dtype:
        yield array.reshape(-1).view(numpy.uint8)
    elif array.ndim > 1 and array[0].nbytes >= _LONG:
        for part in array:
            yield from _pieces(numpy, part, dtype)
    else:
        step = max(1, _LONG * len(array) // array.nbytes)
        for at in range(0, len(array), step):
            yield numpy.ascontiguousarray(array[at : at + step], dtype=dtype).reshape(-1).view(numpy.uint8)


def _digest(size: int, pieces: Iterable[Any]) -> bytes:
    digest = blake2b(b"%d:" % size)
    for piece in pieces:
        digest.update(piece)
    return digest.digest()


def _function(function: Any, depth: int) -> bytes:
    if isinstance(function, functools.partial):
        bound = spell(function.args, depth + 1) + spell(function.keywords, depth + 1)
        return _part(b"p", _function(function.func, depth + 1) + bound)
    if isinstance(function, (types.MethodType, types.BuiltinFunctionType)) and _is_offered(function):
        return _plain(f"{_module(type(function.__self__))}:{function.__name__}")
    if isinstance(function, types.MethodType):
        return _part(b"m", _function(function.__func__, depth + 1) + spell(function.__self__, depth + 1))
    name = _plain(function_name(function))
    if isinstance(function, types.FunctionType) and "<" in function.__qualname__:
        closure = tuple(_cell(cell) for cell in function.__closure__ or ())
        defaults = (function.__defaults__ or (), function.__kwdefaults__ or {})
        return name + _code(function.__code__, depth) + spell(closure, depth + 1) + spell(defaults, depth + 1)
    if isinstance(function, types.BuiltinFunctionType) and not _of_a_module(function):
        return name + spell(function.__self__, depth + 1)
    if isinstance(function, (type, types.FunctionType, types.BuiltinFunctionType)):
        return name
    return name + _object(function, depth)


def _is_offered(method: types.MethodType | types.BuiltinFunctionType) -> bool:
    """Whether a module offers a method of an object of its own under the method's name, as `random.random`.

    Then the name says what is meant; the state of the object, here of the generator, changes with each call.
    """
    module = sys.modules.get(type(method.__self__).__module__)
    return (
        not isinstance(method.__self__, types.ModuleType) and getattr(module, method.__name__, None) == method
    )


def _of_a_module(function: types.BuiltinFunctionType) -> bool:
    return function.__self__ is None or isinstance(function.__self__, types.ModuleType)


def _cell(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # a name that the enclosing function has not assigned yet
        return None


def _code(code: types.CodeType, depth: int) -> bytes:
    # Bytecode and not source text: the source of a lambda is the whole line that it stands in, which
    # changes with the arguments beside it. The price: another Python runs lambdas and closures again.
    constants = b"".join(
        _code(part, depth + 1) if isinstance(part, types.CodeType) else spell(part, depth + 1)
        for part in code.co_consts
    )
    return _part(b"x", code.co_code + constants + spell(code.co_names, depth + 1))


def _object(value: Any, depth: int) -> bytes:
    """Spell an object as pickle would take it apart: how to make it, and its state."""
    kind = type(value)
    try:
        reducer = copyreg.dispatch_table.get(kind)
        reduced = reducer(value) if reducer else value.__reduce_ex__(4)
    except Exception as error:
        raise UsageTypeError(
            f"an argument of type {kind.__module__}.{kind.__qualname__} has no stable identity "
            f"({type(error).__name__}: {error}). Pass plain values and build the object inside the function."
        ) from error
    if isinstance(reduced, str):  # a global, found again by its name
        return _plain(f"{_module(value)}:{reduced}")
    make, arguments, *rest = reduced
    state, items, pairs = (*rest, None, None, None)[:3]
    body = _plain(function_name(kind)) + _function(make, depth + 1) + spell(tuple(arguments), depth + 1)
    body += spell(state, depth + 1)
    if items is not None:
        body += spell(list(items), depth + 1)
    if pairs is not None:
        body += _part(b"d", b"".join(sorted(spell(k, depth + 1) + spell(v, depth + 1) for k, v in pairs)))
    return _part(b"r", body)
