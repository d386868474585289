"""Threads of this process: for functions that wait, or that let go of the interpreter lock."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

__all__ = ["make"]


def make(max_workers: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers, thread_name_prefix="futurefarm")
