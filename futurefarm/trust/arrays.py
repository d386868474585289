"""Arrays of numpy, their types and scalars, made from what pickles of them hold.

None of this goes through the ``__setstate__`` of numpy: that of ``dtype`` believes offsets, sizes and flags,
and a type that calls pointers numbers is the key to all memory.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

from .parts import Global, NotPlainError, Pending, check_frail

if TYPE_CHECKING:
    import numpy as np

__all__ = ["dtype", "from_buffer", "ndarray", "reconstruct", "scalar"]

_SIMPLE = re.compile(r"[biufc]\d{1,2}|[SUV]\d{1,10}|O8?|[Mm]8", re.ASCII)
_ALIGNED = 0x80
_DEEPEST = 100


def dtype(arguments: tuple[Any, ...]) -> Pending:
    code = arguments[0]
    if type(code) is not str or not _SIMPLE.fullmatch(code):
        raise TypeError(f"the type {code!r}")
    return Pending(lambda state: _checked_dtype(code, state))


def _checked_dtype(code: str, state: Any) -> np.dtype[Any]:
    if type(state) is not tuple or not 8 <= len(state) <= 9:
        raise NotPlainError("numpy.dtype of another state")
    try:
        return _dtype(code, *state[1:], *[None] * (9 - len(state)))
    except (TypeError, ValueError, KeyError, OverflowError) as error:
        raise NotPlainError(f"numpy.dtype of this state ({error})") from error


def _dtype(
    code: str,
    order: Any,
    subarray: Any,
    names: Any,
    fields: Any,
    size: Any,
    alignment: Any,
    flags: Any,
    metadata: Any,
) -> np.dtype[Any]:
    import numpy as np

    if order not in ("<", ">", "|", "="):
        raise ValueError("the order of its bytes")
    if subarray is not None:
        base, shape = subarray
        made = np.dtype((_simple(base), _shape(shape)))
    elif names is not None:
        found = [fields[name] for name in names]
        made = np.dtype(
            {
                "names": list(names),
                "formats": [_simple(field[0]) for field in found],
                "offsets": [field[1] for field in found],
                "itemsize": size,
                "aligned": bool(flags & _ALIGNED),
            }
        )
    elif code[0] in "Mm":
        made = np.dtype(f"{code}{_unit(metadata)}").newbyteorder(order)
    else:
        made = np.dtype(code).newbyteorder(order)
    if type(size) is not int or size not in (-1, made.itemsize):
        raise ValueError("its size")
    return made


def _simple(kind: Any) -> np.dtype[Any]:
    """Return the type of a field: a record within a record is not plain enough."""
    import numpy as np

    if not isinstance(kind, np.dtype) or kind.names is not None or kind.base.names is not None:
        raise TypeError("records within records")
    return kind


def _unit(metadata: Any) -> str:
    """Return the unit of a time: ``[ms]``."""
    if metadata is None:
        return ""
    unit, count, events, _ = metadata[1]
    text = unit.decode("ascii") if type(unit) is bytes else ""
    if not re.fullmatch(r"[A-Za-zμ]{1,7}", text) or type(count) is not int or events != 1:
        raise ValueError("its unit")
    return "" if text == "generic" else f"[{count}{text}]"


def _shape(shape: Any) -> tuple[int, ...]:
    if type(shape) is not tuple or any(type(length) is not int or length < 0 for length in shape):
        raise TypeError("the shape of an array")
    return shape


def from_buffer(arguments: tuple[Any, ...]) -> np.ndarray[Any, Any]:
    data, kind, shape, order, *axes = arguments
    array = _array(data, kind, shape, order if order in ("C", "F") else "C")
    if not axes or axes[0] is None:
        return array
    if order != "K" or sorted(axes[0]) != list(range(array.ndim)):
        raise ValueError("the order of its axes")
    return array.transpose(axes[0])


def _array(data: Any, kind: Any, shape: Any, order: str) -> np.ndarray[Any, Any]:
    import numpy as np

    _plain_kind(kind)
    if type(data) not in (bytes, bytearray, memoryview):  # the last ones are buffers out of band
        raise TypeError(type(data).__name__)
    if math.prod(_shape(shape)) * kind.itemsize != len(data):
        raise ValueError("its size")
    if not data:
        return np.empty(shape, kind)
    return np.ndarray(shape, kind, buffer=data, order=order)  # type: ignore[arg-type]


def _plain_kind(kind: Any) -> None:
    import numpy as np

    if not isinstance(kind, np.dtype) or kind.hasobject:
        raise TypeError("the type of its elements")


def ndarray(_: tuple[Any, ...]) -> Any:
    raise TypeError("an array that does not come from numpy's pickles")


def reconstruct(arguments: tuple[Any, ...]) -> Pending:
    kind, shape, code = arguments
    if not isinstance(kind, Global) or kind.name != "numpy.ndarray" or shape != (0,) or code != b"b":
        raise TypeError("another kind of array")
    return Pending(_checked_array)


def _checked_array(state: Any) -> np.ndarray[Any, Any]:
    import numpy as np

    try:
        _, shape, kind, by_columns, data = state
        order = "F" if by_columns else "C"
        if not isinstance(kind, np.dtype) or kind != np.dtype(object):
            if type(data) is bytes:
                data = bytearray(data)  # such arrays can be written to
            array = _array(data, kind, shape, order)
            # numpy gives these the order of bytes of this computer
            return array if kind.names else array.astype(kind.newbyteorder("="), copy=False)
        return _objects(data, _shape(shape), order)
    except (TypeError, ValueError, OverflowError) as error:
        raise NotPlainError(f"numpy.ndarray of this state ({error})") from error


def _objects(items: Any, shape: tuple[int, ...], order: str) -> np.ndarray[Any, Any]:
    import numpy as np

    if type(items) is not list or len(items) != math.prod(shape):
        raise ValueError("its size")
    check_frail(items, arrays=True)
    array = np.empty(len(items), object)
    for at, item in enumerate(items):  # not as a slice, which would look into items that are sequences
        array[at] = item
    _check_depth(array)
    return array.reshape(shape, order=order)  # type: ignore[call-overload,no-any-return]


def _check_depth(array: np.ndarray[Any, Any]) -> None:
    """Arrays in arrays are freed by recursion in C."""
    import numpy as np

    level = [array]
    for _ in range(_DEEPEST):
        seen: dict[int, Any] = {}
        for outer in level:
            for item in outer.flat:
                if isinstance(item, np.ndarray) and item.dtype.hasobject:
                    seen[id(item)] = item
        level = list(seen.values())
        if not level:
            return
    raise ValueError("arrays in arrays, too many")


def scalar(arguments: tuple[Any, ...]) -> Any:
    kind, data = arguments
    _plain_kind(kind)
    if kind.itemsize == 0 and data == b"":
        import numpy as np

        return np.zeros((), kind)[()]
    return _array(bytes(data) if type(data) is bytes else data, kind, (), "C")[()]
