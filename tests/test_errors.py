"""The errors: one tree, attributes, and safe passage between processes."""

from __future__ import annotations

import inspect
import pickle
import re

import pytest

from futurefarm import errors
from futurefarm.errors import (
    DuplicateKeyError,
    FutureFarmError,
    SessionLockedError,
    UsageError,
    UsageTypeError,
)

ALL = [getattr(errors, name) for name in errors.__all__]


@pytest.mark.parametrize("kind", ALL)
def test_an_error_survives_pickling_with_its_attributes(kind):
    error = kind("what, where, what now", path="/x/y", key="k", holder={"pid": 7})
    copy = pickle.loads(pickle.dumps(error))

    assert (kind, "what, where, what now") == (type(copy), str(copy))
    assert ("/x/y", "k", {"pid": 7}) == (copy.path, copy.key, copy.holder)


@pytest.mark.parametrize("kind", ALL)
def test_an_error_has_the_parents_that_the_drawing_shows(kind):
    (line,) = re.findall(rf"^.*\b{kind.__name__}\b.*$", errors.__doc__, re.M)[:1]
    builtin = re.search(r"\((\w+)\)", line)

    assert issubclass(kind, FutureFarmError)
    if builtin:
        assert builtin[1] in [parent.__name__ for parent in kind.__mro__]


def test_every_error_of_the_module_is_public():
    defined = {
        name for name, kind in vars(errors).items() if inspect.isclass(kind) and issubclass(kind, Exception)
    }

    assert defined == set(errors.__all__)
    assert sorted(errors.__all__) == errors.__all__


def test_the_message_of_a_key_error_is_not_shown_as_a_repr():
    assert "it's here" == str(DuplicateKeyError("it's here", key="k", sessions=("a", "b")))


def test_errors_are_caught_as_the_builtins_that_they_are_akin_to():
    for kind, builtin in [(SessionLockedError, TimeoutError), (UsageTypeError, TypeError)]:
        with pytest.raises(builtin):
            raise kind("no")
    with pytest.raises(UsageError):
        raise UsageTypeError("no")
