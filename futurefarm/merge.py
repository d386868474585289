"""Merging two directories, with more care than ``cp`` takes."""

from __future__ import annotations

import warnings
from pathlib import Path

from .directory import Directory
from .errors import SessionError
from .session import NotedHome, Session, home_of
from .store import adopt, copy
from .trust import Trust

__all__ = ["MergeConflictWarning", "merge"]


class MergeConflictWarning(UserWarning):
    """Two directories hold different values under one key of one session; the target keeps its own."""


def merge(source: Directory, target: Directory, lock_timeout: float, trust: Trust) -> dict[str, int]:
    """Take over into ``target`` what ``source`` holds; return how much, by session.

    A session that ``target`` lacks is copied whole and appears under its name when it is complete. Of one
    that it has (the same session, copied earlier) the missing rows are added. What others may have written
    stays so: ``trust``, that of ``source``, decides, and the session in ``target`` notes it.
    """
    if source.id is not None and source.id == target.id and source.path.samefile(target.path):
        return {}
    taken: dict[str, int] = {}
    problems: list[SessionError] = []
    for path in source.sessions():
        try:
            foreign = not trust.trusted and trust.doubt(path, foreign=False) is not None
            number = _merge_session(path, home_of(source, path.name), target, lock_timeout, foreign)
        except SessionError as error:
            problems.append(error)
        else:
            if number:
                taken[path.name] = number
    if problems:
        raise problems[0]
    return taken


def _merge_session(path: Path, home: NotedHome, target: Directory, lock_timeout: float, foreign: bool) -> int:
    if not (target.path / path.name).exists():
        draft = target.draft()
        try:
            number = copy(path, draft, home=home, foreign=foreign)
            if number is None:
                return 0
            target.publish(draft, path.name)
        finally:
            target.discard(draft)
        return number
    session = Session(target, path.name, lock_timeout=lock_timeout)
    try:
        number, conflicts = adopt(path, session.store, home=home, foreign=foreign)
    finally:
        session.close()
    if conflicts:
        warnings.warn(
            f"{path} and {target.path / path.name} hold different values for {', '.join(conflicts[:5])}"
            f"{' and more' if len(conflicts) > 5 else ''}; those in {target.path} were kept.",
            MergeConflictWarning,
            stacklevel=4,
        )
    return number
