"""What an earlier version wrote is read, resumed and merged by this one; `data/make.py` made it."""

from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np
import pytest

from futurefarm import DataManager, run_tasks

from .data.make import FUNCTION, ITEMS, VALUES

ARCHIVES = sorted((Path(__file__).parent / "data").glob("format-*.tar.gz"))


@pytest.fixture(params=ARCHIVES, ids=[path.name for path in ARCHIVES])
def old(request, tmp_path):
    with tarfile.open(request.param) as archive:
        archive.extractall(tmp_path, filter="data")
    return DataManager("old", tmp_path, trusted=True)


def test_the_values_of_an_earlier_version_are_read(old):
    for key, value in VALUES.items():
        np.testing.assert_equal(old[key], value)
    assert len(VALUES) + 4 == len(old) == len(dict(old.items()))


def test_the_ledger_of_an_earlier_version_is_read(old):
    *records, printed = sorted(old.records(), key=lambda record: record.started)

    assert ["ok", "error", "ok", "ok"] == [record.status for record in records]
    assert ITEMS == [record.args for record in records]
    assert ["a b c", None, "one [...]", "a b c"] == [record.key and old[record.key] for record in records]
    assert [0, 0, 0, 1] == [record.replicate for record in records]
    assert "ValueError: placeholder too large for max width" == records[1].error
    assert ("builtins:print", "hello\n") == (printed.function, printed.output)
    assert [records[1]] == list(old.failures())


def test_a_sweep_of_an_earlier_version_is_resumed(old):
    items = [*ITEMS, ("new", 20)]
    summary = run_tasks(old, FUNCTION, items, "serial", resume=True, on_error="record", progress=False)

    assert (1, 3, 1) == (summary.done, summary.skipped, summary.failed)


def test_what_an_earlier_version_wrote_is_merged_checked_and_written_again(old, tmp_path):
    new = DataManager("new", tmp_path, trusted=True)
    new.merge(old)

    assert new.check().fine
    assert {} == new.merge(old)
    with new.session("values") as session:
        session["number"] = 43
    assert (43, len(old)) == (new["number"], len(new))
