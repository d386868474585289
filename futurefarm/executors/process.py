"""Processes of the standard library."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor

from ..worker import prepare_process

__all__ = ["ProcessExecutor", "make"]


class ProcessExecutor(ProcessPoolExecutor):
    """The standard library's executor, with Python 3.14's method to end running tasks."""

    def kill_workers(self) -> None:
        if hasattr(super(), "kill_workers"):
            super().kill_workers()
            return
        processes = list((getattr(self, "_processes", None) or {}).values())
        self.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.kill()
        for process in processes:
            process.join(5)


def make(max_workers: int) -> ProcessExecutor:
    # Never fork: it copies locks that other threads hold, and random generators in their state.
    methods = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    return ProcessExecutor(max_workers, mp_context=context, initializer=prepare_process)
