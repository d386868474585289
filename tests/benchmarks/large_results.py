"""Results of 1, 10 and 100 MB, each kept and synced: beside a pool that keeps none, and beside bare writing.

A task returns an array that its worker has made before, so what is timed is the way of the bytes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

import tasks
from harness import WORKERS, Bench, Figures, Ratio, Value, expect, main
from memory import forget_peak, peak, resident
from pools import farm

SIZES = (1, 10, 100)
MEGABYTE = 1_000_000


def counts(bench: Bench) -> dict[int, int]:
    """Return the number of results by their size in MB: as many bytes of each size."""
    return dict(zip(SIZES, bench.choose((5, 2, 1), (600, 60, 6))))


def first_numbers(arrays: Iterable[Any], size: int, count: int) -> None:
    """Verify that there is an array of each number."""
    seen = [(int(array[0]), float(array[-1]), array.nbytes) for array in arrays]
    expect("arrays", sorted(seen), [(number, 0.5, size * MEGABYTE) for number in range(count)])


def touch_memory(folder: Path, size: int) -> None:
    """Use as much memory for files as is about to be used, and give it back.

    A virtual machine gets its memory from the host page by page, at some 400 MB/s here, and returns what it
    does not use for two seconds. So whoever writes first would be timed for that, and not for writing.
    """
    path = folder / "ballast"
    with open(path, "wb", buffering=0) as file:
        for _ in range(size):
            file.write(bytes(MEGABYTE))
    path.unlink()


def speeds(bench: Bench, call: Callable[[int, int], float]) -> Figures:
    figures: Figures = {}
    for size, count in counts(bench).items():
        touch_memory(bench.folder, size * count)
        figures[f"{size} MB, MB/s"] = size * count / call(size, count)
    return figures


def futurefarm(bench: Bench) -> Figures:
    from futurefarm import DataManager, run_tasks

    warm_up = [(number, SIZES) for number in range(2 * WORKERS)]
    farm(bench.folder / "warm up", tasks.make_arrays, warm_up)

    def call(size: int, count: int) -> float:
        dataman = DataManager(str(size), bench.folder)
        items = [(number, size) for number in range(count)]
        begin = time.perf_counter()
        run_tasks(dataman, tasks.array, items, workers=WORKERS, progress=False)
        return time.perf_counter() - begin

    before = resident()
    forget_peak()
    figures = speeds(bench, call)
    figures["memory of the parent, MB"] = peak() - before
    for size, count in counts(bench).items():
        figures |= read_back(bench.folder, size, count)
    return figures


def read_back(folder: Path, size: int, count: int) -> Figures:
    """Return the speeds of reading, and what it takes of memory to map all and look at both ends of each."""
    from futurefarm import DataManager

    copies = timed(DataManager(str(size), folder), size, count)
    mapping = DataManager(str(size), folder, mmap=True)
    before = resident()
    forget_peak()
    mapped = timed(mapping, size, count)
    expect("mapped arrays that can be written", any(a.flags.writeable for a in mapping.values()), False)
    return {
        f"read {size} MB, MB/s": copies,
        f"map {size} MB, MB/s": mapped,
        f"memory of mapped {size} MB, MB": peak() - before,
    }


def timed(dataman: Any, size: int, count: int) -> float:
    begin = time.perf_counter()
    first_numbers(dataman.values(), size, count)
    return size * count / (time.perf_counter() - begin)


def loky(bench: Bench) -> Figures:
    """Return them to the parent, which keeps none of them."""
    from loky import get_reusable_executor

    executor = get_reusable_executor(max_workers=WORKERS)
    list(executor.map(tasks.make_arrays, range(2 * WORKERS), [SIZES] * 2 * WORKERS))

    def call(size: int, count: int) -> float:
        begin = time.perf_counter()
        first_numbers(executor.map(tasks.array, range(count), [size] * count), size, count)
        return time.perf_counter() - begin

    return speeds(bench, call)


def os_write(bench: Bench) -> Figures:
    return speeds(
        bench, lambda size, count: write(bench.folder / str(size), size, count, sync=lambda _: None)
    )


def os_write_and_sync(bench: Bench) -> Figures:
    """Sync after each result."""
    return speeds(bench, lambda size, count: write(bench.folder / str(size), size, count, os.fdatasync))


def write(path: Path, size: int, count: int, sync: Callable[[int], None]) -> float:
    """Append all results to one file, from one process; return the seconds.

    In pieces of 1 MB: a call that writes 100 MB at once takes up to eight times as long, and is no limit.
    """
    tasks.array(0, size)
    begin = time.perf_counter()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    for number in range(count):
        data = memoryview(tasks.array(number, size)).cast("B")
        for at in range(0, len(data), MEGABYTE):
            os.write(descriptor, data[at : at + MEGABYTE])
        sync(descriptor)
    os.close(descriptor)
    seconds = time.perf_counter() - begin
    written = np.memmap(path, dtype=float, mode="r").reshape(count, -1)
    first_numbers(written, size, count)
    return seconds


def targets() -> list[Value]:
    found: list[Value] = []
    for size, times in zip(SIZES, ("1.8", "2.5", "4")):
        found.append(ratio(size, "loky without storage", "loky", f">= {times}"))
    for size in SIZES[1:]:
        found.append(ratio(size, "os.write", "os write", ">= 0.7"))
        found.append(ratio(size, "os.write and fdatasync", "os write and sync", ">= 0.7"))
    found.append(Value("parent's memory, MB", "futurefarm: memory of the parent, MB", "<= 20"))
    for size in SIZES:
        figure = f"futurefarm: memory of mapped {size} MB, MB"
        found.append(Value(f"memory of all {size} MB results mapped, MB", figure, "<= 20"))
    return found


def ratio(size: int, words: str, peer: str, target: str) -> Ratio:
    ours, theirs = f"futurefarm: {size} MB, MB/s", f"{peer}: {size} MB, MB/s"
    return Ratio(f"results of {size} MB, over {words}", ours, theirs, target)


if __name__ == "__main__":
    main([futurefarm, loky, os_write, os_write_and_sync], targets())
