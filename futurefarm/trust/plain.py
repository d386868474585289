"""A reader of pickles that can only make plain data.

A pickle is a program for a small stack machine. Python's own machine calls whatever the pickle names, and an
allow list in front of it is not enough: its opcode BUILD sets attributes of classes and functions that are on
the list, and numpy's ``dtype`` takes a state that makes it see pointers in bytes. So here is another machine.
It knows no imports and calls nothing but the makers of `makers`, which take plain data and check it. It is
some twenty times slower on long lists, and as fast on arrays.
"""

from __future__ import annotations

import pickletools
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from .parts import Arguments, Global, NotPlainError, Part, Pending, check_frail, checked_key, value

__all__ = ["loads"]

_LISTS = (list, deque)


def loads(data: bytes, find: Callable[[str, str], Global], buffers: Sequence[Any] = ()) -> Any:
    """Return the plain data that a pickle holds; memory and time are in proportion to its length.

    Args:
        data: the pickle.
        find: gives what stands for a global, by its module and name.
        buffers: the memory that lies out of band, in the order in which the pickle asks for it.

    Raises:
        NotPlainError: it holds something else, which was not made.
        Exception: it is no pickle, or a damaged one.
    """
    size = len(data) + sum(map(len, buffers))
    machine = _Machine(find, buffers, budget=16 * size + 10_000)
    for opcode, argument, _ in pickletools.genops(data):
        step = _STEPS.get(opcode.name)
        if step is None:
            raise NotPlainError(f"the opcode {opcode.name}")
        step(machine, argument)
    (whole,) = machine.stack
    return value(whole)


class _Machine:
    def __init__(self, find: Callable[[str, str], Global], buffers: Sequence[Any], budget: int) -> None:
        self.find = find
        self.buffers = iter(buffers)
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.budget = budget

    def nothing(self, _: object) -> None:
        pass

    def push(self, argument: Any) -> None:
        self.stack.append(argument)

    def mark(self, _: object) -> None:
        self.marks.append(len(self.stack))

    def popped(self) -> list[Any]:
        """Take what lies above the last mark."""
        at = self.marks.pop()
        taken = self.stack[at:]
        del self.stack[at:]
        return taken

    def pop(self, _: object) -> None:
        self.stack.pop()

    def pop_mark(self, _: object) -> None:
        self.popped()

    # -- what lies out of band

    def next_buffer(self, _: object) -> None:
        buffer = next(self.buffers, None)
        if buffer is None:
            raise ValueError("a buffer is missing")
        self.push(buffer)

    def read_only(self, _: object) -> None:
        if type(self.stack[-1]) not in (bytearray, memoryview):
            raise NotPlainError(f"a buffer of {type(self.stack[-1]).__name__}")
        self.stack[-1] = memoryview(self.stack[-1]).toreadonly()

    # -- the memo

    def put(self, index: int) -> None:
        top = self.memo[index] = self.stack[-1]
        if isinstance(top, Pending):
            top.memo.append(index)

    def memoize(self, _: object) -> None:
        self.put(len(self.memo))

    def get(self, index: int) -> None:
        self.stack.append(self.memo[index])

    # -- containers

    def list_(self, _: object) -> None:
        self.push([value(part) for part in self.popped()])

    def dict_(self, _: object) -> None:
        parts = self.popped()
        self.push({})
        self.set_all(parts)

    def frozenset_(self, _: object) -> None:
        self.push(frozenset(checked_key(part) for part in self.popped()))

    def tuple_(self, _: object) -> None:
        self.push(_tuple(self.popped()))

    def tuple_of(self, number: int) -> None:
        parts = self.stack[-number:]
        if len(parts) != number:
            raise IndexError(number)
        self.stack[-number:] = [_tuple(parts)]

    def append(self, _: object) -> None:
        self.add_all([self.stack.pop()])

    def appends(self, _: object) -> None:
        self.add_all(self.popped())

    def add_all(self, parts: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) not in _LISTS:
            raise NotPlainError(f"items of {type(target).__name__}")
        if type(target) is deque:
            check_frail(parts)
        target.extend([value(part) for part in parts])

    def set_item(self, _: object) -> None:
        pair = self.stack[-2:]
        del self.stack[-2:]
        self.set_all(pair)

    def set_items(self, _: object) -> None:
        self.set_all(self.popped())

    def set_all(self, parts: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict) or isinstance(target, Part):
            raise NotPlainError(f"items of {type(target).__name__}")
        for key, item in zip(parts[::2], parts[1::2], strict=True):
            target[checked_key(key)] = value(item)

    def add_items(self, _: object) -> None:
        parts = self.popped()
        target = self.stack[-1]
        if type(target) is not set:
            raise NotPlainError(f"items of {type(target).__name__}")
        target.update([checked_key(part) for part in parts])

    # -- what a pickle calls

    def global_(self, argument: str) -> None:
        self.push(self.find(*argument.split(" ", 1)))

    def stack_global(self, _: object) -> None:
        module, name = self.stack[-2:]
        del self.stack[-2:]
        if type(module) is not str or type(name) is not str:
            raise NotPlainError("a global without a name")
        self.push(self.find(module, name))

    def call(self, _: object) -> None:
        maker, arguments = self.stack[-2:]
        del self.stack[-2:]
        if not isinstance(maker, Global) or not isinstance(arguments, tuple):
            raise NotPlainError(f"a call of {type(maker).__name__}")
        for argument in arguments:
            self.pay(argument)
        self.push(maker.make(arguments))

    def build(self, _: object) -> None:
        state = self.stack.pop()
        pending = self.stack.pop()
        if not isinstance(pending, Pending):
            raise NotPlainError(f"attributes of {type(pending).__name__}")
        for part in state if isinstance(state, tuple) else ():
            self.pay(part)
        whole = pending.finish(value(state))
        for index in pending.memo:
            self.memo[index] = whole
        self.push(whole)

    def pay(self, argument: Any) -> None:
        """Makers copy what they are given, and a short pickle could give them one long list many times."""
        self.budget -= len(argument) if hasattr(argument, "__len__") else 1
        if self.budget < 0:
            raise NotPlainError("more data than it has bytes")


def _tuple(parts: list[Any]) -> tuple[Any, ...]:
    return (Arguments if any(isinstance(part, Part) for part in parts) else tuple)(parts)


def _constant(constant: Callable[[], Any]) -> Callable[[_Machine, Any], None]:
    return lambda machine, _: machine.stack.append(constant())


def _tuple_of(number: int) -> Callable[[_Machine, Any], None]:
    return lambda machine, _: machine.tuple_of(number)


# The opcodes of Python 3's pickles, without those that ask for more than plain data: instances by other ways
# (INST, OBJ, NEWOBJ_EX), the registry of extensions, and persistent ids.
_STEPS: dict[str, Callable[[_Machine, Any], None]] = {
    **dict.fromkeys(["PROTO", "FRAME", "STOP"], _Machine.nothing),
    **dict.fromkeys(["INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4"], _Machine.push),
    **dict.fromkeys(["FLOAT", "BINFLOAT", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"], _Machine.push),
    **dict.fromkeys(["UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"], _Machine.push),
    "BYTEARRAY8": _Machine.push,
    "NEXT_BUFFER": _Machine.next_buffer,
    "READONLY_BUFFER": _Machine.read_only,
    "NONE": _constant(lambda: None),
    "NEWTRUE": _constant(lambda: True),
    "NEWFALSE": _constant(lambda: False),
    "EMPTY_TUPLE": _constant(tuple),
    "EMPTY_LIST": _constant(list),
    "EMPTY_DICT": _constant(dict),
    "EMPTY_SET": _constant(set),
    "MARK": _Machine.mark,
    "POP": _Machine.pop,
    "POP_MARK": _Machine.pop_mark,
    **dict.fromkeys(["PUT", "BINPUT", "LONG_BINPUT"], _Machine.put),
    **dict.fromkeys(["GET", "BINGET", "LONG_BINGET"], _Machine.get),
    "MEMOIZE": _Machine.memoize,
    "LIST": _Machine.list_,
    "DICT": _Machine.dict_,
    "TUPLE": _Machine.tuple_,
    "TUPLE1": _tuple_of(1),
    "TUPLE2": _tuple_of(2),
    "TUPLE3": _tuple_of(3),
    "FROZENSET": _Machine.frozenset_,
    "APPEND": _Machine.append,
    "APPENDS": _Machine.appends,
    "SETITEM": _Machine.set_item,
    "SETITEMS": _Machine.set_items,
    "ADDITEMS": _Machine.add_items,
    "GLOBAL": _Machine.global_,
    "STACK_GLOBAL": _Machine.stack_global,
    "REDUCE": _Machine.call,
    "NEWOBJ": _Machine.call,
    "BUILD": _Machine.build,
}
