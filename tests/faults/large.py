"""What is large for a program of the battery: a few bytes, so that it meets many large values, and fast."""

from __future__ import annotations

import importlib

__all__ = ["large_from"]

ROOMS = ("session.session", "store.sidecar", "worker.crew")


def large_from(size: int) -> None:
    """Let this process keep values of so many bytes beside their session."""
    for room in ROOMS:
        vars(importlib.import_module(f"futurefarm.{room}"))["LARGE"] = size
