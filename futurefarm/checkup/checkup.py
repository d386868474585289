"""Verifies everything in a directory, and changes nothing."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..directory import Directory
from ..errors import SessionError
from ..session import home_of, was_session
from ..store import Header, open_reader
from ..store.examine import Finding, examine
from .pickles import fault_of

__all__ = ["Checkup", "Problem", "check"]

OLD = 3600.0
"""Seconds after which a draft is taken to be left behind by a program that was killed."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is wrong in a directory.

    Attributes:
        file: the name of the session or file.
        key: of the value that it is about, or None.
        what: is wrong.
        advice: what to do now.
        harmless: whether no data is concerned.
    """

    file: str
    key: str | None
    what: str
    advice: str
    harmless: bool = False

    def __str__(self) -> str:
        about = f"{self.file}: " if self.key is None else f"{self.file}, key {self.key!r}: "
        return f"{about}{self.what}. {self.advice}".strip()


@dataclass(frozen=True, slots=True)
class Checkup:
    """What a check found: the problems, and how much there is that could be counted."""

    path: str
    sessions: int
    items: int
    problems: tuple[Problem, ...]

    @property
    def fine(self) -> bool:
        """Whether nothing is wrong but what is harmless."""
        return all(problem.harmless for problem in self.problems)


def check(directory: Directory) -> Checkup:
    """Verify all that lies in a directory; nothing is changed and nothing that it holds is run."""
    problems: list[Problem] = []
    sessions = items = 0
    begins: dict[bytes, str] = {}
    for path in directory.sessions():
        if not Header.read(path).ours:
            problems.append(_not_ours(directory, path))
            continue
        sessions += 1
        home = home_of(directory, path.name)
        problems += (_problem(directory, path, f) for f in examine(path, fault_of, home=home))
        try:
            with open_reader(path, home=home) as reader:
                if reader is not None:
                    items += len(reader)
                    first = [key for _, key in reader.keys(0)[0][:1] if key]
                    problems += (_twin(path, begins[key]) for key in first if key in begins)
                    begins.update(dict.fromkeys(first, path.name))
        except SessionError:
            pass  # told above
    problems += _beside(directory)
    problems += _leftovers(directory)
    return Checkup(str(directory.path), sessions, items, tuple(problems))


def _repair(directory: Directory) -> str:
    return f"Recover the rest with: futurefarm repair {shlex.quote(str(directory.path))}"


def _problem(directory: Directory, path: Path, finding: Finding) -> Problem:
    advice = _repair(directory) if finding.damage else ""
    return Problem(path.name, finding.key, finding.what.rstrip("."), advice)


def _not_ours(directory: Directory, path: Path) -> Problem:
    if was_session(directory, path):
        return Problem(path.name, None, "it was a session, and its beginning is lost", _repair(directory))
    return Problem(path.name, None, "it is no session of futurefarm", "Move it out of the directory.")


def _twin(path: Path, other: str) -> Problem:
    what = f"it holds what {other} holds too, and is counted twice"
    return Problem(path.name, None, what, "If it is a copy, move it out of the directory.")


def _beside(directory: Directory) -> Iterator[Problem]:
    """Iterate over what lies beside the sessions and is none."""
    known = {path.name for path in directory.sessions()}
    replaced = {path.name for _, old in directory.replaced() for path in old}
    for entry in sorted(os.scandir(directory.path), key=lambda entry: entry.name):
        name = entry.name
        session = directory.session_beside(name)
        if entry.path == str(directory.farm) or name in known:
            continue
        if name in replaced:
            yield Problem(
                name,
                None,
                "it was joined to another session",
                "futurefarm compact removes it.",
                harmless=True,
            )
        elif session is None:
            yield Problem(
                name, None, "it is no session of futurefarm and is ignored", "Move it away.", harmless=True
            )
        elif session not in known:
            what = "it holds the large values" if name.endswith(".blobs") else "it is the log"
            yield Problem(name, None, f"{what} of {session}, which is not there", "Copy both, or delete it.")
        elif name.endswith(".blobs"):
            pass  # looked at with its session
        elif not Header.read(directory.path / session).writing and entry.stat().st_size:
            what = f"it is of an older state of {session}, which is complete without it"
            yield Problem(name, None, what, "It may be deleted.", harmless=True)


def _leftovers(directory: Directory) -> Iterator[Problem]:
    """Iterate over what killed programs left in ``.farm``."""
    now = time.time()
    for path in directory.drafts():
        try:
            age = now - path.stat().st_mtime
        except FileNotFoundError:
            continue
        if age > OLD:
            name = str(path.relative_to(directory.path))
            yield Problem(name, None, "a killed program left it", "It may be deleted.", harmless=True)
