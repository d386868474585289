"""``run_tasks``: a function farmed over arguments, each result stored the moment it is done."""

from .run import run_tasks
from .summary import Summary

__all__ = ["Summary", "run_tasks"]
