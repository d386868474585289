"""Values that others may have written are read as plain data, and nothing of them is run."""

from __future__ import annotations

import datetime
import decimal
import fractions
import importlib
import os
import pathlib
import pickle
import subprocess
import sys
import uuid
import warnings
from collections import Counter, OrderedDict, deque
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from futurefarm import DataManager, Params, run_tasks
from futurefarm.errors import (
    DamagedSessionError,
    DuplicateKeyError,
    SessionError,
    UnreadableValueError,
    UntrustedValueError,
    UsageTypeError,
)
from futurefarm.trust import TrustWarning
from futurefarm.trust.makers import find
from futurefarm.trust.parts import NotPlainError
from futurefarm.trust.plain import loads


class Canary:
    """Makes a directory when it is unpickled."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.fixture
def sprung(tmp_path):
    return tmp_path / "sprung"


@pytest.fixture
def shared(dataman, sprung):
    """A directory that others can write to, with a canary between two plain values."""
    with dataman.session("s") as session:
        session["a"], session["canary"], session["z"] = [1.5], Canary(sprung), np.arange(3)
    os.chmod(dataman.basepath, 0o777)
    return dataman


def read_all(dataman):
    """Return the keys whose values can be read, and the error that then comes."""
    seen = []
    iterator = iter(dataman.items())
    while True:
        try:
            seen.append(next(iterator)[0])
        except SessionError as error:
            return seen, error


# -- who may have written it


def test_in_a_directory_of_ones_own_everything_is_read(dataman, sprung):
    with dataman.session("s") as session:
        session["canary"] = Canary(sprung)
    dict(dataman.items())

    assert sprung.exists()


def test_where_others_can_write_plain_values_are_read_and_the_rest_is_refused(shared, sprung):
    seen, error = read_all(shared)

    assert ["a", "z"] == seen
    assert ("canary", "s", "posix.mkdir") == (error.key, error.session, error.refused)
    assert isinstance(error, UntrustedValueError | PermissionError)
    assert f"{shared.basepath} can be written by others (mode 0777)" in str(error)
    assert "trusted=True" in str(error)
    assert str(error).endswith("All others were read.")
    assert not sprung.exists()


@pytest.mark.parametrize(
    "read",
    [
        lambda d: d["canary"],
        lambda d: d.get("canary"),
        lambda d: d.get_all("canary"),
        lambda d: d.get_matching("can"),
        lambda d: d.get_flat_matching("can"),
        lambda d: list(d.values()),
    ],
)
def test_each_way_of_reading_refuses_it(read, shared, sprung):
    with pytest.raises(UntrustedValueError) as caught:
        read(shared)

    assert "canary" == caught.value.key
    assert not sprung.exists()


def test_a_session_is_read_by_the_same_rule(shared, sprung):
    for opened in (shared.session, shared.locking_session):
        session = opened("s")
        with session:
            with pytest.raises(UntrustedValueError):
                session["canary"]
            with pytest.raises(UntrustedValueError):
                session.pop("canary")
            assert [1.5] == session["a"]
        session.close()

    assert not sprung.exists()


@pytest.mark.parametrize("mode", [0o664, 0o602, 0o620])
def test_a_session_that_others_can_write_to_is_enough(mode, dataman, sprung):
    for name in ("mine", "theirs"):
        with dataman.session(name) as session:
            session[name] = Canary(f"{sprung}-{name}")
    os.chmod(session.path, mode)
    seen, error = read_all(dataman)

    assert (["mine"], "theirs") == (seen, error.key)
    assert f"{session.path} can be written by others" in str(error)


def test_the_log_beside_a_session_counts_as_the_session(dataman, sprung):
    with dataman.session("s") as session:
        session["canary"] = Canary(sprung)
        os.chmod(f"{session.path}-wal", 0o666)
        with pytest.raises(UntrustedValueError, match="s-wal can be written by others"):
            dataman["canary"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("whose", ["directory", "session"])
def test_what_belongs_to_another_user_is_not_ones_own(whose, dataman, sprung):
    with dataman.session("s") as session:
        session["canary"] = Canary(sprung)
    os.chown(dataman.basepath if whose == "directory" else session.path, 12345, -1)

    with pytest.raises(UntrustedValueError, match=r"belongs to another user \(number 12345\)"):
        dataman["canary"]


def test_a_link_to_ones_own_directory_is_ones_own(dataman, tmp_path, sprung):
    with dataman.session("s") as session:
        session["canary"] = Canary(sprung)
    (tmp_path / "link.data").symlink_to(dataman.basepath)

    assert [None] == list(DataManager("link", tmp_path).values())


# -- what the user says


def test_trusted_reads_everything_and_says_so_once(shared, sprung):
    trusting = DataManager.at(shared.basepath, trusted=True)
    with pytest.warns(TrustWarning, match=r"can be written by others.*can run code") as caught:
        dict(trusting.items())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert [1.5] == trusting["a"]

    assert 1 == len(caught)
    assert sprung.exists()


def test_trusted_says_nothing_of_a_directory_of_ones_own(dataman):
    with dataman.session("s") as session:
        session["a"] = Params(k=1)
    trusting = DataManager("farm", os.path.dirname(dataman.basepath), trusted=True)

    assert [{"k": 1}] == list(trusting.values())


def test_untrusted_reads_plain_data_only_also_of_ones_own(dataman, sprung):
    with dataman.session("s") as session:
        session["canary"] = Canary(sprung)
    doubting = DataManager.at(dataman.basepath, trusted=False)

    with pytest.raises(UntrustedValueError, match="trusted=False"):
        doubting["canary"]
    with doubting.session("s") as session, pytest.raises(UntrustedValueError):
        session["canary"]


@pytest.mark.parametrize("trusted", [True, False, None])
def test_what_was_said_travels_to_other_processes(trusted, dataman):
    copy = pickle.loads(pickle.dumps(DataManager.at(dataman.basepath, trusted=trusted)))

    assert copy._trust.trusted is trusted


def test_a_locking_session_that_travels_stays_as_careful(dataman, sprung):
    session = DataManager.at(dataman.basepath, trusted=False).locking_session("s")
    session["canary"] = Canary(sprung)
    copy = pickle.loads(pickle.dumps(session))
    with pytest.raises(UntrustedValueError):
        copy["canary"]
    copy.close()
    session.close()

    assert not sprung.exists()


@pytest.mark.parametrize("trusted", ["yes", 1, 0])
def test_trusted_is_yes_no_or_unsaid(trusted, dataman):
    with pytest.raises(UsageTypeError, match="trusted must be True, False or None"):
        DataManager.at(dataman.basepath, trusted=trusted)


# -- merging keeps in mind where it came from


@pytest.fixture
def mine(tmp_path):
    return DataManager("mine", tmp_path)


def test_what_was_merged_from_others_stays_theirs(shared, mine, sprung):
    mine.merge(shared)
    seen, error = read_all(mine)

    assert ["a", "z"] == seen
    assert "merged from a directory that is not yours alone" in str(error)
    assert not sprung.exists()


def test_it_stays_theirs_over_several_merges_and_through_added_rows(shared, mine, tmp_path, sprung):
    mine.merge(shared)
    other = DataManager("other", tmp_path)
    other.merge(mine)
    third = DataManager("third", tmp_path)
    with third.session("s") as session:
        session["b"] = 1
    third.merge(other)

    for dataman in (other, third):
        with pytest.raises(UntrustedValueError):
            dataman["canary"]
    assert not sprung.exists()


def test_merging_from_where_one_trusts_makes_it_ones_own(shared, mine, sprung):
    mine.merge(DataManager.at(shared.basepath, trusted=True))

    assert [[1.5], None] == list(mine.values())[:2]


def test_what_others_may_have_written_is_not_joined_with_ones_own(dataman, mine, sprung):
    for one, values in ((dataman, [Canary(sprung), 1]), (mine, [Params(k=1), 2])):
        for value in values:
            with one.session() as session:
                session[f"{type(value).__name__} of {one.basepath[-9:]}"] = value
    os.chmod(dataman.basepath, 0o777)
    mine.merge(dataman)

    assert [2, 2, 0] == [len(mine.compact()) for _ in range(3)]
    with pytest.raises(UntrustedValueError):
        mine["Canary of farm.data"]
    assert {"k": 1} == mine["Params of mine.data"]
    assert mine.get_pickle("Params of mine.data")
    assert not sprung.exists()


# -- the ledger


def test_the_arguments_of_a_record_are_read_by_the_same_rule(dataman, sprung):
    with pytest.raises(Exception, match="failed"):
        run_tasks(dataman, len, [Canary(sprung), [1, 2]], executor="serial", progress=False)
    sprung.rmdir()  # sprung by the worker, which unpickles what its parent sends
    os.chmod(dataman.basepath, 0o777)
    canary, other = sorted(dataman.records(), key=lambda record: record.number)

    with pytest.raises(UntrustedValueError, match="the argument of task 0") as caught:
        _ = canary.args
    assert (None, "posix.mkdir") == (caught.value.key, caught.value.refused)
    assert [1, 2] == other.args
    assert not sprung.exists()
    assert canary == pickle.loads(pickle.dumps(canary))


# -- values that cannot be read


@pytest.fixture
def moved(dataman, tmp_path, monkeypatch):
    """A directory in which a value's class is gone."""
    (tmp_path / "oldhome.py").write_text("class Result:\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("oldhome")
    with dataman.session("s") as session:
        session["a"], session["moved"], session["z"] = 1, module.Result(), 2
    monkeypatch.delitem(sys.modules, "oldhome")
    (tmp_path / "oldhome.py").unlink()
    importlib.invalidate_caches()
    return dataman


def test_a_value_whose_class_is_gone_is_named_and_the_others_are_read(moved):
    seen, error = read_all(moved)

    assert ["a", "z"] == seen
    assert (UnreadableValueError, "moved", "s") == (type(error), error.key, error.session)
    assert "ModuleNotFoundError: No module named 'oldhome'" == error.cause
    assert "make it importable under its old name" in str(error)
    assert "dataman.get_pickle('moved')" in str(error)
    assert error.cause == pickle.loads(pickle.dumps(error)).cause


def test_its_pickle_can_be_had(moved):
    assert b"oldhome" in moved.get_pickle("moved")
    assert 1 == pickle.loads(moved.get_pickle("a"))


def test_a_pickle_is_looked_up_like_a_value(dataman):
    for name in "xy":
        with dataman.session(name) as session:
            session["twice"], session[name] = 1, "treasure"
    path = pathlib.Path(dataman.session_filename("x"))
    path.write_bytes(path.read_bytes().replace(b"treasure", b"treasury"))

    with pytest.raises(KeyError):
        dataman.get_pickle("nothing")
    with pytest.raises(DuplicateKeyError):
        dataman.get_pickle("twice")
    with pytest.raises(DamagedSessionError):
        dataman.get_pickle("x")


def leave(code):
    raise SystemExit(code)


class Leaves:
    def __reduce__(self):
        return leave, (3,)


def test_a_value_that_would_end_the_program_is_only_unreadable(dataman):
    with dataman.session("s") as session:
        session["a"], session["leaves"] = 1, Leaves()
    seen, error = read_all(dataman)

    assert (["a"], "SystemExit: 3") == (seen, error.cause)


def test_very_many_unreadable_values_are_counted_and_not_kept(dataman):
    with dataman.session("s") as session, session.store.transaction():
        for number in range(1000):
            session.store[b"%d" % number] = b"no pickle"

    assert "(and 999 more)" in str(read_all(dataman)[1])


# -- plain data

PLAIN = [
    *(None, True, 0, -1, 2**70, 1.5, float("inf"), 1j, "text", "ä" * 300, b"bytes", bytearray(b"array")),
    *(
        [1, [2]],
        (),
        (1,),
        (1, 2),
        (1, 2, 3),
        (1, 2, 3, 4),
        {},
        {"a": 1, (2, 3): 4},
        set(),
        {1},
        frozenset({1}),
    ),
    *(range(1, 9, 2), slice(1, None, 2), uuid.UUID(int=7), fractions.Fraction(1, 3), decimal.Decimal("1.50")),
    *(pathlib.PurePosixPath("/a/b"), pathlib.Path("a/b"), pathlib.PureWindowsPath("c:\\a")),
    *(datetime.date(2026, 1, 2), datetime.time(1, 2, 3), datetime.timedelta(1, 2, 3)),
    *(datetime.datetime(2026, 1, 2), datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)),
    *(datetime.timezone(datetime.timedelta(hours=1), "x"), Counter("aab"), deque([1, 2], 3)),
    *(OrderedDict(b=1, a=2), Params(k=1, tau=(2.0,)), [Params()] * 3),
    *(np.float64(0.1), np.bool_(True), np.int8(3), np.str_("ab"), np.str_(""), np.bytes_(b"ab")),
    *(
        np.datetime64("2026-01-02"),
        np.timedelta64(3, "ms"),
        np.void(b"abc"),
        np.dtype("U5"),
        np.dtype("M8[25s]"),
    ),
]

ARRAYS = [
    *(
        np.arange(3.0),
        np.array(3.0),
        np.zeros((0, 3)),
        np.arange(10)[::2],
        np.asfortranarray(np.ones((2, 3))),
    ),
    *(np.arange(24).reshape(2, 3, 4).transpose(1, 0, 2), np.arange(3, dtype=">i4"), np.array(["ab", "c"])),
    *(np.zeros(3, "i4,f8"), np.zeros(2, np.dtype("i1,f8", align=True)), np.zeros(3, [("a", "f4", (2,))])),
    *(np.array(["2026"], "M8[D]"), np.array([True]), np.array([b"x"]), np.arange(2, dtype=np.complex64)),
    *(np.array([1, "a", None, [1, 2]], dtype=object), np.empty((2, 2), dtype=object)),
]


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_plain_data_is_read_as_pickle_reads_it(protocol):
    for value in PLAIN:
        read = loads(pickle.dumps(value, protocol), find)
        assert (type(value), repr(value)) == (type(read), repr(read))


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_arrays_are_read_as_pickle_reads_them(protocol):
    for array in ARRAYS:
        data = pickle.dumps(array, protocol)
        expected, read = pickle.loads(data), loads(data, find)
        assert (expected.dtype, expected.shape, repr(expected)) == (read.dtype, read.shape, repr(read))
        assert expected.flags.f_contiguous == read.flags.f_contiguous
        assert expected.flags.writeable == read.flags.writeable


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text() | st.tuples(st.integers()), inner)
    ),
    max_leaves=20,
)


@settings(max_examples=100, deadline=None)
@given(value=values, protocol=st.integers(0, 5))
def test_any_nesting_of_plain_data_is_read(value, protocol):
    try:
        assert value == loads(pickle.dumps(value, protocol), find)
    except NotPlainError:
        assert protocol < 2  # bytes, booleans and tuples of long ago


def test_what_is_shared_stays_shared_and_what_holds_itself_does():
    array = np.arange(3)
    first, second, kind = loads(pickle.dumps([array, array, array.dtype]), find)
    circle = [1]
    circle.append(circle)
    circle = loads(pickle.dumps(circle), find)

    assert (first is second, kind is first.dtype or kind == first.dtype) == (True, True)
    assert circle is circle[1]


class Own:
    pass


@pytest.mark.parametrize(
    "value",
    [
        *(
            Own(),
            Own,
            len,
            os.system,
            print,
            type,
            int,
            np.float64,
            np.random.default_rng(1),
            np.ma.array([1]),
        ),
        *(np.zeros(2, [("o", object)]), np.zeros(1, [("r", [("x", "f8")])]), np.arange(3).view(np.recarray)),
    ],
)
def test_anything_else_is_refused(value):
    with pytest.raises(NotPlainError):
        loads(pickle.dumps(value), find)


def call(module: str, name: str, arguments: bytes, state: bytes = b"") -> bytes:
    return b"\x80\x04c%b\n%b\n%bR%b." % (module.encode(), name.encode(), arguments, state)


def dtype_of(code: str, state: object) -> bytes:
    inner = pickle.dumps(state, 4)[2:-1]
    return call("numpy", "dtype", pickle.dumps((code, False, True), 4)[2:-1], inner + b"b")


HOSTILE = {
    "a call": call("os", "system", b"(X\x04\x00\x00\x00truet"),
    "eval": call("builtins", "eval", b"(X\x01\x00\x00\x001t"),
    "an attribute of a class": b"\x80\x04ccollections\nCounter\n(N}X\x07\x00\x00\x00__len__K\x01stb.",
    "an attribute of a function": b"\x80\x04cnumpy.core.numeric\n_frombuffer\n}X\x01\x00\x00\x00aK\x01sb.",
    "a dotted name": b"\x80\x04\x8c\x0bcollections\x8c\x10Counter.__init__\x93.",
    "a submodule's sys": b"\x80\x04\x8c\x0bcollections\x8c\x04_sys\x93.",
    "a class of the registry": b"\x80\x04\x82\x01.",
    "a persistent id": b"\x80\x04Pid\n.",
    "an instance of old": b"(ios\nsystem\n.",
    "pointers in a record": dtype_of(
        "V8", (3, "|", None, ("p",), {"p": (np.dtype("O"), 0)}, 8, 1, 0)
    ),
    "a field behind the end": dtype_of("V8", (3, "|", None, ("p",), {"p": (np.dtype("f8"), 4)}, 8, 1, 16)),
    "a field before the start": dtype_of("V8", (3, "|", None, ("p",), {"p": (np.dtype("f8"), -8)}, 8, 1, 16)),
    "a size that is another": dtype_of("f8", (3, "<", None, None, None, 1 << 40, 8, 0)),
    "many bytes from none": call("builtins", "bytearray", b"(I999999999999\nt"),
    "a long list from a range": call("builtins", "set", b"(cbuiltins\nrange\n(I999999999999\ntRt"),
    "a long number": call("fractions", "Fraction", b"(X\x0b\x00\x00\x001e999999999t"),
    "a large index of the memo": b"\x80\x04Nr\xff\xff\xff\x7f0j\xff\xff\xff\x7e.",
    "a long text": b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x7f.",
    "a long frame of a list": b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f]",
    "a key of keys": b"\x80\x04}(" + b")" + b"\x85" * 200_000 + b"Nu.",
    "a key that doubles": b"\x80\x04})" + b"q\x00h\x00\x86" * 60 + b"Ns.",
    "many sets": b"\x80\x04](" + b"N" * 5000 + b"eq\0" + b"cbuiltins\nset\nh\0\x85R0" * 5000 + b".",
    "deques in deques": b"\x80\x04" + b"ccollections\ndeque\n)N\x86R" * 5000 + b"a" * 4999 + b".",
    "nothing": b"",
    "no end": b"\x80\x04]",
    "an empty stack": b"\x80\x04.",
    "too much": b"\x80\x04NN.",
    "no mark": b"\x80\x04t.",
    "half a pair": b"\x80\x04}(Nu.",
    "a negative tuple": b"\x80\x04\x87.",
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_pickle_is_refused(name):
    before = dict(vars(Counter))
    with pytest.raises((ValueError, IndexError, KeyError, TypeError)):
        loads(HOSTILE[name], find)

    assert before == dict(vars(Counter))


def test_a_pickle_that_python_would_need_gigabytes_for_is_refused_in_little_memory():
    program = """
        import resource, sys
        resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
        from futurefarm.trust.makers import find
        from futurefarm.trust.plain import loads

        for line in sys.stdin:
            try:
                loads(bytes.fromhex(line), find)
            except MemoryError:
                print("too much memory")
            except Exception:
                pass
    """
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(line[8:] for line in program.splitlines())],
        input="\n".join(data.hex() for data in HOSTILE.values()),
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert (0, "", "") == (done.returncode, done.stdout, done.stderr)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_a_pickle_with_changed_bytes_is_read_or_refused(data):
    whole = bytearray(pickle.dumps(data.draw(st.sampled_from(PLAIN + ARRAYS))))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    with suppress(ValueError, IndexError, KeyError, TypeError, AttributeError):
        loads(bytes(whole), find)
