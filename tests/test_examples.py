"""The examples run as a user runs them; a stopped one goes on where it was."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from futurefarm import DataManager

EXAMPLES = Path(__file__).parent.parent / "examples"

needs_signals = pytest.mark.skipif(os.name == "nt", reason="a program of its own cannot be sent Ctrl-C")
needs_brian2 = pytest.mark.skipif(importlib.util.find_spec("brian2") is None, reason="needs brian2")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty directory; what the example prints goes beside it."""
    empty = tmp_path / "empty"
    empty.mkdir()
    return empty


@pytest.mark.slow
def test_quickstart_leaves_its_results_and_a_picture(folder):
    output = run(folder, "-W", "error", "quickstart.py", "--points", "4", seconds=60)
    assert is_picture(folder / "quickstart.png")
    assert_each_once(folder / "quickstart.data", np.linspace(1, 20, 4))
    assert output.splitlines()[0].startswith("4 done, 0 skipped, 0 failed")


@needs_signals
@pytest.mark.slow
def test_quickstart_stopped_halfway_and_run_again_has_each_result_once(folder):
    arguments = "-W", "error", "quickstart.py", "--points", "12"
    data = folder / "quickstart.data"
    stop_after(2, data, folder, *arguments, seconds=60)
    kept = DataManager.at(data).itemcount()
    assert 2 <= kept < 12

    output = run(folder, *arguments, seconds=60)
    assert output.splitlines()[0].startswith(f"{12 - kept} done, {kept} skipped, 0 failed")
    assert_each_once(data, np.linspace(1, 20, 12))


@pytest.mark.slow
@pytest.mark.timeout(400)
@needs_brian2
def test_firing_rate_leaves_its_results_and_a_picture(folder):
    arguments = "firing_rate.py", "--seconds", "0.5", "--points", "6"
    run(folder, *arguments, seconds=180)
    assert is_picture(folder / "firing_rate.png")
    drives = drives_in(folder / "taskfarmexample.data")
    assert 6 == len(drives)

    run(folder, *arguments, seconds=180)
    assert drives == drives_in(folder / "taskfarmexample.data")


@pytest.mark.slow
@pytest.mark.timeout(400)
@needs_brian2
@needs_signals
def test_firing_rate_stopped_and_run_again_has_as_many_true_results_as_were_asked_for(folder):
    arguments = "firing_rate.py", "--seconds", "30", "--points", "5"
    data = folder / "taskfarmexample.data"
    stop_after(1, data, folder, *arguments, seconds=180)
    kept = drives_in(data)

    run(folder, *arguments, seconds=180)
    drives = drives_in(data)
    assert 5 == len(drives)
    assert kept.keys() <= drives.keys()
    for k, rate in DataManager.at(data).values():  # a simulation that Ctrl-C cut short has too few spikes
        steps = np.ceil(100 * np.log(k / (k - 1)))
        assert rate == pytest.approx(1e4 / steps, rel=0.02)


@contextmanager
def program(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run an example in a process group of its own, of which nothing remains."""
    command = [str(EXAMPLES / a) if a.endswith(".py") else a for a in arguments]
    with open(folder.parent / "output", "wb") as output:
        process = subprocess.Popen(
            [sys.executable, *command],
            cwd=folder,
            env={**os.environ, "MPLBACKEND": "Agg"},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            if os.name == "nt":
                process.kill()
            else:
                kill_group(process.pid)
            process.wait(10)


def kill_group(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        pass  # as it should be: all have ended by themselves


def run(folder: Path, *arguments: str, seconds: float) -> str:
    """Run an example to its end and return what it printed."""
    with program(folder, *arguments) as process:
        return ended_well(process, folder, seconds)


def stop_after(results: int, data: Path, folder: Path, *arguments: str, seconds: float) -> None:
    """Press Ctrl-C once so many results are stored; the example draws what it has, and ends well."""
    with program(folder, *arguments) as process:
        deadline = time.monotonic() + seconds
        while not (data.is_dir() and DataManager.at(data).itemcount() >= results):
            assert process.poll() is None, printed(folder)
            assert time.monotonic() < deadline, f"no results yet: {printed(folder)}"
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: the workers get it too
        ended_well(process, folder, seconds)


def ended_well(process: subprocess.Popen[bytes], folder: Path, seconds: float) -> str:
    assert 0 == process.wait(seconds), printed(folder)
    return printed(folder)


def printed(folder: Path) -> str:
    return (folder.parent / "output").read_text(encoding="utf-8", errors="replace")


def drives_in(data: Path) -> Counter[float]:
    return Counter(k for k, _ in DataManager.at(data).values())


def assert_each_once(data: Path, drives: np.ndarray) -> None:
    assert Counter(drives.tolist()) == drives_in(data)


def is_picture(path: Path) -> bool:
    return path.read_bytes().startswith(b"\x89PNG")
