"""Two calls have one fingerprint when a scientist would call them the same."""

from __future__ import annotations

import functools
import operator
import os
import random
import threading
from collections import OrderedDict, defaultdict
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from futurefarm.errors import UsageTypeError
from futurefarm.identity import SIZE, Fingerprint, fingerprint, function_name
from futurefarm.spaces import Params

from .companion import run


def of(*args, **kwargs):
    return Fingerprint(len).of(args, kwargs)


def of_function(function, *bound):
    return Fingerprint(function, bound).of((), {})


class Colour(Enum):
    RED = 1
    BLUE = 2


@dataclass
class Point:
    x: float
    y: float

    def norm(self):
        return self.x + self.y

    def __call__(self):
        return self.norm()


class Slotted:
    __slots__ = ("a",)

    def __init__(self, a):
        self.a = a


scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.complex_numbers()
    | st.text()
    | st.binary()
    | st.dates()
    | st.decimals(allow_nan=False)
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(st.text(), inner, max_size=4)
        | st.frozensets(st.integers() | st.text(), max_size=4)
    ),
    max_leaves=12,
)


def rebuilt(value):
    """Return an equal value made of other objects, dicts and sets in another order."""
    if isinstance(value, dict):
        return {rebuilt(key): rebuilt(part) for key, part in reversed(value.items())}
    if isinstance(value, (list, tuple)):
        return type(value)(rebuilt(part) for part in value)
    if isinstance(value, frozenset):
        return frozenset(sorted(value, key=repr, reverse=True))
    if type(value) is int and abs(value) < 2**53:
        return float(value)
    return value


@given(values)
def test_equal_values_have_one_fingerprint(value):
    assert of(value) == of(rebuilt(value))
    assert SIZE == len(of(value))


@given(values, values)
def test_different_values_have_different_fingerprints(one, other):
    """Where ``==`` cannot tell (1 and True, 0.0 and -0.0, list and tuple), the text does."""
    if one != other and repr(one) != repr(other) and repr(rebuilt(one)) != repr(rebuilt(other)):
        assert of(one) != of(other)


@pytest.mark.parametrize("number", [1, 1.0, np.int64(1), np.uint8(1), np.float64(1), np.float32(1)])
def test_one_is_one_in_every_type_of_number(number):
    assert of(1) == of(number)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, True),
        (0, False),
        (0, None),
        (0.0, -0.0),
        (1, "1"),
        ("a", b"a"),
        ((1, 2), [1, 2]),
        ([1, [2]], [[1], 2]),
        (["ab", "c"], ["a", "bc"]),
        ({1: 2}, {2: 1}),
        ({1, 2}, [1, 2]),
        (1, 1 + 0j),
        (2**53, 2**53 + 1),
        (float("inf"), float("-inf")),
        (Decimal("1.0"), Fraction(1)),
        (Colour.RED, Colour.BLUE),
        (Colour.RED, 1),
        (Point(1, 2), Point(2, 1)),
        (Slotted(1), Slotted(2)),
        (date(2026, 1, 2), date(2026, 2, 1)),
        (len, sum),
        (int, float),
        (defaultdict(int, a=1), defaultdict(list, a=1)),
        (OrderedDict(a=1), OrderedDict(a=2)),
        (range(3), range(4)),
        (np.zeros(2), np.zeros(3)),
        (np.zeros((2, 3)), np.zeros((3, 2))),
        (np.zeros(2, "f4"), np.zeros(2, "f8")),
        (np.zeros(1), 0.0),
        (np.array(["a", 1], object), np.array(["a", 2], object)),
        (np.datetime64("2026-01-01"), np.datetime64("2026-01-02")),
        (np.datetime64(5, "ns"), 5),
        (np.timedelta64(5, "s"), np.timedelta64(5, "ns")),
        (np.ma.array([1, 2], mask=[0, 1]), np.ma.array([1, 2], mask=[1, 0])),
    ],
    ids=repr,
)
def test_what_differs_has_another_fingerprint(one, other):
    assert of(one) != of(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        ({"x", "y", "z"}, {"z", "y", "x"}),
        ({1, 2}, frozenset([2, 1])),
        (float("nan"), -float("nan")),
        (b"ab", bytearray(b"ab")),
        (b"ab", memoryview(b"ab")),
        ("a", np.str_("a")),
        (True, np.bool_(True)),
        (Point(1, 2), Point(1.0, 2.0)),
        (np.arange(6).reshape(2, 3), np.asfortranarray(np.arange(6).reshape(2, 3))),
        (np.arange(3, dtype="<i4"), np.arange(3, dtype=">i4")),
        (np.arange(10)[::2], np.array([0, 2, 4, 6, 8])),
        (PurePosixPath("a/b"), Path("a/b") if os.name == "posix" else PurePosixPath("a/b")),
        (np.array([1.5, "a"], object), np.array([np.float64(1.5), "a"], object)),
        (np.zeros(2, [("a", "<i4"), ("b", "<f8")]), np.zeros(2, [("a", ">i4"), ("b", ">f8")])),
    ],
    ids=repr,
)
def test_what_is_equal_has_one_fingerprint(one, other):
    assert of(one) == of(other)


def test_arguments_keep_their_places_and_names():
    assert 6 == len({of(1, 2), of(2, 1), of((1, 2)), of(a=1, b=2), of(a=2, b=1), of({"a": 1, "b": 2})})
    assert of(a=1, b=2) == of(b=2, a=1)
    assert of(**Params(k=1)) == of(k=1)


def test_fingerprints_are_the_same_in_every_process_and_under_every_hash_seed():
    program = """
        import sys
        from decimal import Decimal
        from futurefarm.identity import Fingerprint

        names = {"alpha", "beta", "gamma", "delta"}
        value = {"names": names, "x": [1.5, None, b"b"], "d": Decimal("1.1"), "f": frozenset(names)}
        print(Fingerprint(lambda x: x in {"alpha", "beta", "gamma"} and names).of((value,), {"k": 1}).hex())
    """
    seen = {run(program, env={**os.environ, "PYTHONHASHSEED": seed}) for seed in "01234"}

    assert 1 == len(seen), seen


def test_a_fingerprint_does_not_change_from_release_to_release():
    """Results on users' disks depend on these."""
    assert "5918cb50d713a25269213170b27a5994" == of(1, "a", (2.5, None), key=[b"x", {1: True}]).hex()
    assert "19a6f228abc367efa6a348b0124d49a4" == of(np.arange(3.0)).hex()


@pytest.mark.parametrize("value", [(x for x in []), threading.Lock(), os.environ.copy().keys(), object])
def test_what_has_no_stable_identity_is_refused(value):
    if value is object:
        assert of(object) == of(object)
        return
    with pytest.raises(UsageTypeError, match="no stable identity"):
        of(value)


def test_a_value_that_contains_itself_is_refused():
    endless = []
    endless.append(endless)
    with pytest.raises(UsageTypeError, match="contains itself"):
        of(endless)


# -- functions


def test_a_function_is_known_by_its_name():
    assert f"{__name__}:of" == function_name(of)
    assert "builtins:len" == function_name(len)
    assert f"{__name__}:Point" == function_name(Point(1, 2))
    assert f"{__name__}:of" == function_name(functools.partial(of, 1))
    assert of_function(of) != of_function(of_function)


def test_lambdas_differ_by_their_code():
    same = [eval("lambda x: x + 1") for _ in range(2)]

    assert of_function(same[0]) == of_function(same[1])
    assert of_function(same[0]) != of_function(lambda x: x + 2)
    assert of_function(lambda x: x.real) != of_function(lambda x: x.imag)


def test_closures_differ_by_what_they_close_over():
    def adder(n, extra=0):
        def add(x, by=extra):
            return x + n + by

        return add

    assert of_function(adder(1)) == of_function(adder(1.0))
    assert of_function(adder(1)) != of_function(adder(2))
    assert of_function(adder(1)) != of_function(adder(1, extra=1))


def test_a_closure_over_a_name_without_a_value_has_an_identity():
    def outer():
        def inner():
            return later

        identity = of_function(inner)
        later = 1
        return identity, later

    assert SIZE == len(outer()[0])


def test_partials_differ_by_their_bound_arguments():
    power = functools.partial(pow, 2)

    assert of_function(power) == of_function(functools.partial(pow, 2.0))
    assert of_function(power) != of_function(functools.partial(pow, 3))
    assert of_function(power) != of_function(pow)
    assert of_function(functools.partial(int, base=2)) != of_function(functools.partial(int, base=8))


def test_methods_differ_by_their_object():
    assert of_function(Point(1, 2).norm) == of_function(Point(1.0, 2).norm)
    assert of_function(Point(1, 2).norm) != of_function(Point(1, 3).norm)
    assert of_function(Point(1, 2)) != of_function(Point(1, 3))


def test_methods_of_builtin_objects_differ_by_their_object():
    assert of_function({"a": 1}.get) == of_function({"a": 1}.get)
    assert of_function({"a": 1}.get) != of_function({"a": 2}.get)
    assert of_function(random.Random(1).random) != of_function(random.Random(2).random)
    assert of({"a": 1}.get) != of({"a": 2}.get)


def test_callable_objects_of_the_library_have_an_identity():
    assert of_function(operator.itemgetter(1)) != of_function(operator.itemgetter(2))
    assert of_function(np.sin) != of_function(np.cos)
    assert of_function(np.sin) == of_function(np.sin)


def test_what_a_task_class_is_made_with_belongs_to_the_identity():
    assert of_function(Point, 1, 2) == of_function(Point, 1.0, 2)
    assert of_function(Point, 1, 2) != of_function(Point, 1, 3)
    assert of_function(Point, 1, 2) != of_function(Point)


def test_a_function_of_a_script_is_known_by_the_script(tmp_path):
    """So that a script which is later imported as a module finds its results again."""
    script = tmp_path / "sweep.py"
    script.write_text(
        "from futurefarm.identity import function_name\ndef f(): pass\nprint(function_name(f))\n"
    )

    as_module = run("import sys; sys.path.insert(0, sys.argv[1]); import sweep", tmp_path)
    as_script = run(
        "import subprocess, sys; subprocess.run([sys.executable, sys.argv[1]], check=True)", script
    )

    assert ["sweep:f"] * 2 == [as_module, as_script]


@pytest.mark.parametrize("function", [random.random, random.gauss], ids=["built-in", "in Python"])
def test_a_method_that_a_module_offers_as_a_function_is_known_by_its_name(function):
    """`random.random` is a method of an object whose state changes with each call."""
    arguments = (0.0, 1.0) if function is random.gauss else ()
    before = of_function(function), Fingerprint(map).of((function,), {})
    function(*arguments)

    assert before == (of_function(function), Fingerprint(map).of((function,), {}))
    assert before[0] != of_function(random.uniform)


def test_a_method_of_an_object_of_the_users_counts_with_the_state_of_that_object():
    one, other = (Fingerprint(random.Random(seed).random).of((), {}) for seed in (1, 2))

    assert one != other


@pytest.mark.parametrize("shape", [(200_000,), (2, 150_000), (400, 700)])
def test_a_large_array_is_the_same_in_every_layout(shape):
    array = np.arange(np.prod(shape), dtype=float).reshape(shape)
    others = [
        np.asfortranarray(array),
        array.astype(">f8"),
        np.repeat(array, 2, axis=-1)[..., ::2],
        array[::-1][::-1],
    ]

    assert {fingerprint(array)} == set(map(fingerprint, others))
    assert fingerprint(array) != fingerprint(array.reshape(-1, 2))
    assert fingerprint(array) != fingerprint(array + 1)
    assert fingerprint(array) != fingerprint(array.view(np.int64))


def test_long_bytes_are_told_apart():
    long = bytes(2 << 20)

    assert fingerprint(long) == fingerprint(bytearray(long))
    assert 3 == len({fingerprint(long), fingerprint(long[:-1]), fingerprint(long[:-1] + b"1")})
