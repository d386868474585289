"""Joins many small sessions into one, and gives back the space of what was deleted or replaced."""

from __future__ import annotations

from contextlib import ExitStack, suppress
from pathlib import Path

from .directory import Directory, new_session_name
from .errors import DamagedSessionError, IncompleteCopyError, SessionError
from .session import idle
from .store import Header, Store, adopt, create, open_reader, overlaps, sync
from .store.waste import size_with_blobs, waste
from .trust import Trust

__all__ = ["compact"]

SMALL = 16 << 20
"""Bytes up to which a session is small, its large values included. What was joined to more is left alone, as
long as not half of it is waste."""

WASTE = 1 << 20
"""Bytes of waste that are worth the writing of a session."""


def compact(directory: Directory) -> dict[str, int]:
    """Join the small or wasteful sealed sessions into one; return how many items and attempts each had.

    The new session and the disappearance of the old ones are one step for everyone who reads: see
    `Directory.replace`. It appears under its name when it is whole and on disk, and only then are the old
    ones removed.
    """
    with ExitStack() as locks:
        if not locks.enter_context(idle(directory, ".compact")):
            return {}  # another program is at it
        _finish(directory)
        sources = [path for path in _sealed(directory) if locks.enter_context(idle(directory, path.name))]
        # Looked at again now that nobody can begin to write.
        sources = [path for path in sources if path.exists() and _is_sealed(path)]
        wasteful = {path.name for path in sources if _is_wasteful(path)}
        sources = [path for path in sources if path.name in wasteful or size_with_blobs(path) <= SMALL]
        own, foreign = _by_kind(directory, sources)
        return _replace(directory, own, wasteful) or _replace(directory, foreign, wasteful, foreign=True)


def _replace(
    directory: Directory, sources: list[Path], wasteful: set[str], *, foreign: bool = False
) -> dict[str, int]:
    """Put one session in the place of some; return what each had, or nothing if it was not worth it."""

    def is_worth_it(names: list[str]) -> bool:
        return len(names) > 1 or not wasteful.isdisjoint(names)

    if not is_worth_it([path.name for path in sources]):
        return {}
    draft = directory.draft()
    try:
        joined = _join(sources, foreign, draft)
        if not is_worth_it(list(joined)) or not _is_sealed(draft):
            return {}
        name = new_session_name()
        directory.replace(list(joined), name)
        directory.publish(draft, name)
        _finish(directory)
        return joined
    finally:
        directory.discard(draft)


def _by_kind(directory: Directory, sources: list[Path]) -> tuple[list[Path], list[Path]]:
    """Return the sessions that only the user can have written, and the others."""
    trust = Trust(directory.path)
    own: list[Path] = []
    foreign: list[Path] = []
    for path in sources:
        with suppress(SessionError), open_reader(path) as reader:
            if reader is not None:
                (foreign if trust.doubt(path, foreign=reader.foreign) else own).append(path)
    return own, foreign


def _join(sources: list[Path], foreign: bool, draft: Path) -> dict[str, int]:
    create(draft)
    store = Store(draft, wal=False)
    joined: dict[str, int] = {}
    try:
        with store.transaction():
            for path in sources:
                try:
                    # What holds the same keys stays apart, so that both remain to be seen.
                    if not overlaps(path, store):
                        joined[path.name] = adopt(path, store, foreign=foreign)[0]
                except (DamagedSessionError, IncompleteCopyError):
                    pass  # it stays as it is, and whoever reads is told
    finally:
        store.close()
    sync(draft)
    return joined


def _sealed(directory: Directory) -> list[Path]:
    """Return the sessions that may be replaced: those whose names nobody chose, or will ask for again."""
    return [p for p in directory.sessions() if directory.is_anonymous(p.name) and _is_sealed(p)]


def _is_wasteful(path: Path) -> bool:
    least = max(WASTE, size_with_blobs(path) // 2)
    if size_with_blobs(path) < least:
        return False
    with suppress(SessionError):  # it stays as it is, and whoever reads is told
        return waste(path) >= least
    return False


def _is_sealed(path: Path) -> bool:
    header = Header.read(path)
    return header.ours and not header.writing and not header.wal


def _finish(directory: Directory) -> None:
    """Remove the sessions that were joined, also those that a killed program left behind."""
    for note, old in directory.replaced():
        for path in old:
            directory.discard(path)
        note.unlink(missing_ok=True)
