"""The large values of a session that is being written: in a file beside it."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..blobs import LARGE, Writer, attach, detach, has_trailer
from ..errors import SessionClosedError, SessionError
from .format import named, sidecar_of

__all__ = ["Sidecar"]


class Sidecar:
    """Writes the large values of the session at ``path``; its file is made with the first of them.

    What is kept is not on disk before `settle`, which has to come before the commit of what refers to it.
    """

    def __init__(self, path: Path) -> None:
        self._session = path
        self._opening = threading.Lock()
        self._writer: Writer | None = None
        self._settled = 0
        self._failed = False

    @property
    def mark(self) -> bytes | None:
        """What tells the file from all others; None where there is none yet."""
        if self._writer is None and not sidecar_of(self._session).exists():
            return None
        return self._opened().mark

    def keep(self, stream: bytes, buffers: Sequence[Any] = (), *, whole: bool = False) -> bytes:
        """Write what is large of a value; return what stands in its place. Several threads may do so at once.

        Args:
            stream: the pickle of the value.
            buffers: the memory that lies outside of it.
            whole: whether to write the pickle itself, too, be it small.

        Raises:
            StorageFullError: there is no space, and nothing of it is left.
            SessionError: it cannot be written.
        """
        whole = whole or len(stream) >= LARGE
        pieces = [*buffers, stream] if whole else buffers
        if not pieces:
            return stream
        if self._failed:
            raise self._lost()
        try:
            writer = self._opened()
            return attach(stream, [writer.append(piece) for piece in pieces], writer.mark, whole=whole)
        except OSError as error:
            raise named(self._session, error) from error
        except ValueError as error:  # another thread has closed it meanwhile
            text = f"the session {self._session.name} is closed."
            raise SessionClosedError(text, path=str(self._session)) from error

    def place(self, value: bytes) -> bytes:
        """Keep what is large of a value from elsewhere; of one that was kept here, see that it was here.

        Raises:
            StorageFullError: there is no space.
            SessionError: it cannot be written, or its large parts lie beside another session.
        """
        if not has_trailer(value):
            return self.keep(value)
        if detach(value).mark != self.mark:
            raise SessionError(
                f"a value whose large parts lie beside another session cannot be stored in {self._session}.",
                path=str(self._session),
            )
        return value

    def settle(self) -> int | None:
        """Sync what was kept; return how long the file must be from now on, or None if that is as before.

        Raises:
            SessionError: it is not on disk for sure, and the session must not be written again: a second sync
                may report success for pages that the first one lost.
        """
        if self._writer is None:
            return None
        if self._failed:
            raise self._lost()
        end, before = self._writer.end, self._settled
        try:
            self._writer.sync()  # also where the end is as before: threads need not finish in order
        except OSError as error:
            self._failed = True
            raise self._lost() from error
        self._settled = end
        return end if end > before else None

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()

    def _opened(self) -> Writer:
        with self._opening:
            if self._writer is None:
                self._writer = Writer(sidecar_of(self._session))
            return self._writer

    def _lost(self) -> SessionError:
        return SessionError(
            f"large values could not be written to {sidecar_of(self._session)}, and nothing more is written "
            f"to it. What was acknowledged is there. Go on in a new session.",
            path=str(self._session),
        )
