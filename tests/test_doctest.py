"""The examples in the docstrings do what they say."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import futurefarm

MODULES = [module.name for module in pkgutil.walk_packages(futurefarm.__path__, "futurefarm.")]
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def examples_of(name: str) -> list[doctest.DocTest]:
    found = doctest.DocTestFinder().find(importlib.import_module(name))
    return [test for test in found if test.examples]


@pytest.mark.parametrize(
    "test",
    [test for name in ["futurefarm", *MODULES] for test in examples_of(name)],
    ids=lambda test: test.name.removeprefix("futurefarm."),
)
def test_the_example_runs(test, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    registry = importlib.import_module("futurefarm.executors.registry")
    monkeypatch.setattr(registry, "_registry", dict(registry._registry))
    said: list[str] = []
    result = doctest.DocTestRunner(optionflags=OPTIONS).run(test, out=said.append)

    assert result.attempted > 0
    assert not result.failed, "".join(said)


def test_the_doors_of_users_have_examples():
    shown = {test.name for name in ["futurefarm", *MODULES] for test in examples_of(name)}

    assert {
        "futurefarm.dataman.dataman.DataManager",
        "futurefarm.session.locking.LockingSession",
        "futurefarm.stop.StopFlag",
        "futurefarm.spaces.Params",
        "futurefarm.spaces.grid",
    } <= shown
