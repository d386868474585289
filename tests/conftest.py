"""Nothing leaks: each test leaves no thread and no process of futurefarm behind."""

from __future__ import annotations

import gc
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import cloudpickle
import psutil
import pytest

from futurefarm import DataManager
from futurefarm.executors import end_idle_workers

from .disk import SmallDisk

# Whoever started pytest may ignore signals (`nohup`, a job in the background), and programs inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP"):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

# Servants of loky and multiprocessing that serve the whole program by design.
_SERVANTS = ("resource_tracker", "forkserver")


@pytest.fixture
def dataman(tmp_path: Path) -> DataManager:
    return DataManager("farm", tmp_path)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """A real file system of 1 MB."""
    disk = SmallDisk(tmp_path / "disk")
    if not disk.mount(1 << 20):
        pytest.skip("only root may mount a small disk")
    yield disk
    disk.unmount()


@pytest.fixture
def by_value(request: pytest.FixtureRequest) -> Iterator[None]:
    """Functions of the test's module travel by value: where the wheel is tested, workers cannot import it."""
    cloudpickle.register_pickle_by_value(request.module)
    yield
    cloudpickle.unregister_pickle_by_value(request.module)


@pytest.fixture(autouse=True)
def _by_value_to_processes(request: pytest.FixtureRequest) -> None:
    callspec = getattr(request.node, "callspec", None)
    if callspec is not None and {"loky", "process"} & {str(value) for value in callspec.params.values()}:
        request.getfixturevalue("by_value")


@pytest.fixture(autouse=True)
def _nothing_leaks(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    end_idle_workers()
    if getattr(request.cls, "keeps_workers", False) or not (threads() or workers()):
        return
    gc.collect()  # what only waits for the collector is not left behind
    assert not (left := threads() + workers()), f"left running: {left}"


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("futurefarm")]


def workers() -> list[str]:
    found = []
    for child in psutil.Process().children(recursive=True):
        try:
            command = " ".join(child.cmdline())
            alive = child.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            continue
        if alive and not any(servant in command for servant in _SERVANTS):
            found.append(command)
    return found
