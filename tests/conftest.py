"""Nothing leaks: each test leaves no thread, no child process and no bar behind."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from futurefarm import DataManager

# Servants of loky and multiprocessing that serve the whole program by design.
_SERVANTS = ("resource_tracker", "forkserver")


@pytest.fixture
def dataman(tmp_path: Path) -> DataManager:
    return DataManager("farm", tmp_path)


@pytest.fixture(autouse=True)
def _nothing_leaks(request: pytest.FixtureRequest) -> Iterator[None]:
    before = set(threading.enumerate())
    children_before = {child.pid for child in psutil.Process().children(recursive=True)}
    yield
    gc.collect()
    threads = [t.name for t in set(threading.enumerate()) - before if t.name.startswith("futurefarm")]
    children = [
        " ".join(child.cmdline())
        for child in psutil.Process().children(recursive=True)
        if child.pid not in children_before
        and child.status() != psutil.STATUS_ZOMBIE
        and not any(s in " ".join(child.cmdline()) for s in _SERVANTS)
    ]
    assert not threads, f"left running: {threads}"
    assert getattr(request.cls, "keeps_workers", False) or not children, f"left running: {children}"
