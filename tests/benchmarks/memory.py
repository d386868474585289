"""What this process holds in memory, in MB."""

from __future__ import annotations

from pathlib import Path

__all__ = ["forget_peak", "peak", "resident"]

PEAK_ONLY = "5"
"""What the kernel takes for: forget how much this process has held at most."""


def resident() -> float:
    return _read("VmRSS")


def peak() -> float:
    """Return the most that it has held since `forget_peak`."""
    return _read("VmHWM")


def forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text(PEAK_ONLY)


def _read(name: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise LookupError(f"the kernel does not tell {name}")
