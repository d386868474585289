"""Joins many small sessions into one."""

from __future__ import annotations

from contextlib import ExitStack, suppress
from pathlib import Path

from .directory import Directory, new_session_name
from .errors import DamagedSessionError, IncompleteCopyError, SessionError
from .session import idle
from .store import Header, Store, adopt, create, open_reader, overlaps, sync
from .trust import Trust

__all__ = ["compact"]

SMALL = 16 << 20
"""Bytes up to which a session is small; what was joined to more is left alone from then on."""


def compact(directory: Directory) -> dict[str, int]:
    """Join the small sealed sessions into one; return how many items and attempts each had.

    The new session and the disappearance of the old ones are one step for everyone who reads: see
    `Directory.replacing`. It appears under its name when it is whole and on disk, and only then are the old
    ones removed.
    """
    with ExitStack() as locks:
        if not locks.enter_context(idle(directory, ".compact")):
            return {}  # another program is at it
        _finish(directory)
        sources = [path for path in _small(directory) if locks.enter_context(idle(directory, path.name))]
        # Looked at again now that nobody can begin to write.
        sources = [path for path in sources if path.exists() and _is_sealed(path)]
        if len(sources) < 2:
            return {}
        draft = directory.draft()
        try:
            joined = _join(*_of_one_kind(directory, sources), draft)
            if len(joined) > 1 and _is_sealed(draft):
                name = new_session_name()
                directory.replace([path.name for path in sources if path.name in joined], name)
                directory.publish(draft, name)
                _finish(directory)
                return joined
        finally:
            draft.unlink(missing_ok=True)
    return {}


def _of_one_kind(directory: Directory, sources: list[Path]) -> tuple[list[Path], bool]:
    """Return the sessions that only the user can have written, or else the others, and which they are."""
    trust = Trust(directory.path)
    own: list[Path] = []
    foreign: list[Path] = []
    for path in sources:
        with suppress(SessionError), open_reader(path) as reader:
            if reader is not None:
                (foreign if trust.doubt(path, foreign=reader.foreign) else own).append(path)
    return (own, False) if len(own) > 1 else (foreign, True)


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


def _small(directory: Directory) -> list[Path]:
    """Return the sessions that may be joined: those whose names nobody chose, or will ask for again."""
    return [
        path
        for path in directory.sessions()
        if directory.is_anonymous(path.name) and path.stat().st_size <= SMALL and _is_sealed(path)
    ]


def _is_sealed(path: Path) -> bool:
    header = Header.read(path)
    return header.ours and not header.writing and not header.wal


def _finish(directory: Directory) -> None:
    """Remove the sessions that were joined, also those that a killed program left behind."""
    for note, old in directory.replaced():
        for path in old:
            path.unlink(missing_ok=True)
        note.unlink(missing_ok=True)
