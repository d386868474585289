"""What is large of results that have ended and are not committed yet: it lies on disk already."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..blobs import Reader, SpoiltBlobError, detach, has_trailer, in_band
from ..errors import SessionError
from ..session import Session
from ..store import sidecar_of
from ..task import Outcome

__all__ = ["Kept"]


class Kept:
    """Knows beside which session the large parts of a result lie, and takes them along to another one.

    A session is left when its log is long, and when a write or sync on it failed: then what was written is
    most likely still in the system's memory, and its checksum tells.
    """

    def __init__(self) -> None:
        self._files: dict[bytes | None, Path] = {}

    def keep(self, session: Session, stream: bytes, buffers: list[Any]) -> bytes:
        """Write what is large of a result beside a session; return what stands in its place."""
        value = session.store.keep(stream, buffers)
        self._files[session.store.mark] = sidecar_of(session.store.path)
        return value

    def move(self, outcomes: list[Outcome], session: Session) -> None:
        """Put what is large in the outcomes beside a session, where it does not lie there yet.

        One by one, so that a second try on a full disk needs no more space than the first one.
        """
        for at, outcome in enumerate(outcomes):
            value = outcome.value
            if value is None:
                continue
            if has_trailer(value) and detach(value).mark != session.store.mark:
                placed = self.keep(session, *self._read(value))
            else:
                placed = session.store.place(value)
            if placed is not value:
                outcomes[at] = outcome._replace(value=placed)

    def whole(self, outcome: Outcome) -> Outcome:
        """Return an outcome whose value has all in it, for a process that commits elsewhere."""
        if outcome.value is None or not has_trailer(outcome.value):
            return outcome
        return outcome._replace(value=in_band(*self._read(outcome.value)))

    def _read(self, value: bytes) -> tuple[bytes, list[Any]]:
        parts = detach(value)
        path = self._files.get(parts.mark)
        try:
            if path is None:
                raise SpoiltBlobError("nobody knows where it lies")
            with Reader(path) as reader:
                return reader.get(parts)
        except (OSError, SpoiltBlobError) as error:
            raise SessionError(
                f"the large parts of a result, which were not committed yet, cannot be read again ({error}).",
                path=str(path or ""),
            ) from error
