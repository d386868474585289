"""Recovers what can be read of damaged sessions."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from .directory import Directory
from .session import home_of, idle, was_session
from .smallfile import make_folder
from .store import Header, sync
from .store.examine import examine
from .store.recover import recover
from .trust import Trust

__all__ = ["Repair", "repair"]


@dataclass(frozen=True, slots=True)
class Repair:
    """What was done about a damaged session.

    Attributes:
        session: its name, under which a fresh session has what could be read.
        kept: where the damaged file lies now; None if a writer holds it, and nothing was done.
        items: values in the fresh session.
        attempts: rows of the ledger in the fresh session.
        unchecked: values among them that have no checksum, because another program wrote them.
        lost: the keys of values that could not be read, as far as they are known. Their attempts are not in
            the ledger either, so that ``run_tasks(..., resume=True)`` runs those tasks again.
        damaged_attempts: rows of the ledger that could not be read, as far as they are known.
    """

    session: str
    kept: str | None
    items: int = 0
    attempts: int = 0
    unchecked: int = 0
    lost: tuple[str, ...] = ()
    damaged_attempts: int = 0


def repair(directory: Directory) -> list[Repair]:
    """Put a fresh session in the place of each damaged one; the damaged file is kept in ``.farm/damaged``.

    A kill at any moment loses nothing: the fresh session is whole and on disk, and the damaged one has its
    second name, before the first name goes over from one to the other.
    """
    done: list[Repair] = []
    for path in directory.sessions():
        if not _is_damaged(directory, path):
            continue
        with idle(directory, path.name) as ours:
            if not ours:
                done.append(Repair(path.name, None))
            elif _is_damaged(directory, path):  # nobody has repaired it meanwhile
                done.append(_repair(directory, path))
    return done


def _is_damaged(directory: Directory, path: Path) -> bool:
    if not Header.read(path).ours:
        return was_session(directory, path)
    return any(finding.damage for finding in examine(path, home=home_of(directory, path.name)))


def _repair(directory: Directory, path: Path) -> Repair:
    draft = directory.draft()
    try:
        foreign = Trust(directory.path).doubt(path, foreign=False) is not None
        told = recover(path, draft, foreign=foreign)
        kept = _keep(directory, path)
        directory.publish(draft, path.name)
    finally:
        directory.discard(draft)
    for ending in ("-wal", "-shm", "-journal"):  # of the damaged file; beside a sealed one they mean nothing
        Path(f"{path}{ending}").unlink(missing_ok=True)
    return Repair(
        path.name,
        str(kept),
        told.items,
        told.attempts,
        told.unchecked,
        tuple(told.lost),
        told.damaged_attempts,
    )


def _keep(directory: Directory, path: Path) -> Path:
    """Give a damaged session, its log and its large values a second name, under which they stay; durable."""
    folder = directory.farm / "damaged"
    make_folder(folder)
    kept = folder / path.name
    number = 1
    while kept.exists() and not kept.samefile(path):
        number += 1
        kept = folder / f"{path.name}.{number}"
    for ending in ("-wal", "-journal", ".blobs", ""):
        with suppress(FileNotFoundError):
            _link(Path(f"{path}{ending}"), Path(f"{kept}{ending}"))
    directory.sync(folder)
    return kept


def _link(path: Path, second: Path) -> None:
    try:
        os.link(path, second)
    except FileExistsError:
        pass  # a program that was killed had got so far
    except OSError:  # a file system without links
        if path.exists():
            shutil.copyfile(path, second)
            sync(second)
