"""The command line reads and steers a directory."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from futurefarm import DataManager, run_tasks
from futurefarm.cli import main
from futurefarm.testing.tasks import keep, misbehave, prints


@pytest.fixture
def command():
    def run(*arguments: str):
        return CliRunner().invoke(main, arguments)

    return run


def test_status_counts(dataman, command):
    run_tasks(dataman, misbehave, ["fine", "value"], "serial", progress=False, on_error="record")

    assert "1 items in 1 sessions, 1 failed tasks\n" == command("status", dataman.basepath).output
    told = json.loads(command("status", dataman.basepath, "--json").output)
    assert {"items": 1, "sessions": 1, "attempts": {"ok": 1, "error": 1}, "failed": 1} == told


def test_stop_leaves_the_stop_file(dataman, command):
    assert 0 == command("stop", dataman.basepath).exit_code
    assert dataman.directory.stop.exists()


def test_failed_shows_tracebacks_and_ends_with_1(dataman, command):
    run_tasks(dataman, misbehave, ["fine", "value"], "serial", progress=False, on_error="record")
    result = command("failed", dataman.basepath)

    assert 1 == result.exit_code
    assert "ValueError: bad value" in result.output
    assert "Traceback" in result.output


def test_failed_shows_what_failed_tasks_printed(dataman, command):
    run_tasks(dataman, prints, [("said", "too many arguments")], "serial", progress=False, on_error="record")
    run_tasks(dataman, prints_and_fails, [1], "serial", progress=False, on_error="record")
    result = command("failed", dataman.basepath)

    assert 1 == result.output.count("It printed:")
    assert "It printed:\nbefore\n" in result.output


def prints_and_fails(_):
    print("before")
    raise ValueError


def test_merge_takes_over_what_is_missing(dataman, tmp_path, command):
    run_tasks(dataman, keep, [1, 2], "serial", progress=False)
    target = DataManager("target", tmp_path)
    result = command("merge", dataman.basepath, target.basepath)

    assert "1 sessions taken over" in result.output
    assert 2 == target.itemcount()


def test_info_lists_executors(command):
    assert "loky: ready" in command("info").output


def test_a_directory_that_is_none_is_a_usage_error(command):
    assert 2 == command("status", "nowhere").exit_code


def test_check_names_what_is_wrong_and_repair_mends_it(dataman, command):
    run_tasks(dataman, keep, ["needle" * 30, "straw" * 30], "serial", progress=False)
    (name,) = dataman.session_filenames()
    assert "2 items in 1 sessions: fine\n" == command("check", dataman.basepath).output
    path = Path(name)
    path.write_bytes(path.read_bytes().replace(b"needle" * 30, b"noodle" * 30))

    found = command("check", dataman.basepath)
    assert 1 == found.exit_code
    assert f"futurefarm repair {dataman.basepath}" in found.output
    told = json.loads(command("check", dataman.basepath, "--json").output)
    assert (False, 1, 2) == (told["fine"], told["sessions"], told["items"])
    assert path.name == told["problems"][0]["file"]

    mended = command("repair", dataman.basepath)
    assert "1 items and 1 attempts recovered" in mended.output
    assert "1 sessions repaired" in mended.output
    assert 0 == command("check", dataman.basepath).exit_code


def test_compact_tells_how_many_sessions_it_joined(dataman, command):
    for i in range(3):
        with dataman.session() as session:
            session[str(i)] = i

    assert "3 sessions joined, 3 items and attempts\n" == command("compact", dataman.basepath).output
