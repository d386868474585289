"""Verifies everything in a directory, and changes nothing."""

from .checkup import Checkup, Problem, check

__all__ = ["Checkup", "Problem", "check"]
