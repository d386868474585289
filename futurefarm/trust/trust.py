"""Whose values are read by `pickle`, and whose as plain data only."""

from __future__ import annotations

import os
import pickle
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..blobs import MissingBlobError, Reader, detach, has_trailer, in_band
from ..errors import SessionError, UnreadableValueError, UntrustedValueError
from ..store import damage, named, sidecar_of, without_blobs
from .makers import find
from .parts import NotPlainError
from .plain import loads

__all__ = ["Loader", "Trust", "TrustWarning"]

_BESIDE = ("-wal", "-journal", ".blobs")


class TrustWarning(UserWarning):
    """Values that somebody else may have written are unpickled, because ``trusted=True`` says so."""


@dataclass(frozen=True, slots=True)
class Loader:
    """Reads the values of one session.

    Args:
        path: of the session.
        doubt: why its values are read as plain data only, or None.
        mapped: whether arrays that lie out of band are mapped, read-only and not checked, instead of copied.
    """

    path: Path
    doubt: str | None
    mapped: bool = False

    def loads_all(self, pickles: Sequence[bytes]) -> list[Any] | None:
        """Unpickle many small values at once.

        Returns:
            None where each has to be unpickled by itself: by `loads`, which names what cannot be, and when it
            is asked for, as what lies out of band may fill the memory.
        """
        if self.doubt is not None:
            return None
        try:
            return [pickle.loads(data) for data in pickles]  # of one with parts out of band this raises, too
        except (Exception, SystemExit):
            return None

    def loads(self, data: bytes, key: str | None, what: str = "") -> Any:
        """Unpickle a value.

        Args:
            data: the pickle.
            key: its key, or None.
            what: names in an error what has no key: ``the argument of task 3``.

        Raises:
            UntrustedValueError: it is more than plain data, and others may have written it; nothing was run.
            UnreadableValueError: it cannot be unpickled.
            DamagedSessionError: what lies out of band is not what was written.
            IncompleteCopyError: ... or is not there.
        """
        stream, buffers = self._whole(data, key)
        try:
            if self.doubt is None:
                return pickle.loads(stream, buffers=buffers)
            return loads(stream, find, buffers)
        except NotPlainError as error:
            what = what or f"the value of {key!r}"
            raise UntrustedValueError(
                f"{what} in the session {self.path.name} was not read: it asks for {error.what}, which is "
                f"more than plain data, and {self.doubt}. If you trust everyone who may have written it, "
                f"open the directory with trusted=True.",
                path=str(self.path),
                session=self.path.name,
                key=key,
                cause=f"{type(error).__name__}: {error}",
                refused=error.what,
            ) from None
        # A class of the user's may raise anything when it is unpickled, SystemExit included.
        except (Exception, SystemExit) as error:
            cause = f"{type(error).__name__}: {error}"[:500]
            what = what or f"the value of {key!r}"
            raise UnreadableValueError(
                f"{what} in the session {self.path.name} is whole but cannot be unpickled ({cause}). Where a "
                f"class has moved or is missing, make it importable under its old name; until then "
                f"{'record.item' if key is None else f'dataman.get_pickle({key!r})'} is the pickle.",
                path=str(self.path),
                session=self.path.name,
                key=key,
                cause=cause,
            ) from error

    def in_band(self, data: bytes, key: str) -> bytes:
        """Return a value as one whole pickle; nothing is unpickled.

        Raises:
            DamagedSessionError: what lies out of band is not what was written.
            IncompleteCopyError: ... or is not there.
        """
        if not has_trailer(data):
            return data
        try:
            return in_band(*self._whole(data, key))
        except (ValueError, StopIteration) as error:  # with a checksum that fits, so it was written like this
            raise UnreadableValueError(
                f"the value of {key!r} in the session {self.path.name} is no whole pickle ({error}).",
                path=str(self.path),
                session=self.path.name,
                key=key,
                cause=f"{type(error).__name__}: {error}"[:500],
            ) from error

    def _whole(self, data: bytes, key: str | None) -> tuple[bytes, list[Any]]:
        """Return a pickle and the buffers that it asks for."""
        if not has_trailer(data):
            return data, []
        try:
            with Reader(sidecar_of(self.path), mapped=self.mapped) as reader:
                return reader.get(detach(data))
        except MissingBlobError as error:
            if not self.path.exists():
                raise SessionError(
                    f"the session {self.path.name} was removed while {self.path.parent} was read, or was "
                    f"joined to another one by `futurefarm compact`. Read again.",
                    path=str(self.path),
                ) from error
            raise without_blobs(self.path, key) from error
        except ValueError as error:
            what = "a value" if key is None else f"the value of {key!r}"
            raise damage(self.path, f"{what} is not what was written ({error})", key) from error
        except OSError as error:
            raise named(self.path, error) from error


class Trust:
    """Decides how the values of a directory's sessions are read.

    Args:
        folder: the directory.
        trusted: True unpickles everything, False reads plain data only, None unpickles where the directory
            and the session are the user's own and nobody else can write to them.
        mapped: as in `Loader`.
    """

    def __init__(self, folder: Path, trusted: bool | None = None, *, mapped: bool = False) -> None:
        self.folder = folder
        self.trusted = trusted
        self.mapped = mapped
        self._said = False

    def loader(self, path: Path, *, foreign: bool) -> Loader:
        """Return what reads the values of a session; ``foreign`` if it notes that it came from others."""
        doubt = self.doubt(path, foreign=foreign)
        if doubt is not None and self.trusted:
            self._say(doubt)
            doubt = None
        return Loader(path, doubt, self.mapped)

    def doubt(self, path: Path, *, foreign: bool) -> str | None:
        """Return why somebody else may have written the values of a session, or None."""
        if self.trusted is False:
            return "the directory was opened with trusted=False"
        if foreign:
            return f"{path.name} has been merged from a directory that is not yours alone"
        files = (str(path), *(f"{path}{ending}" for ending in _BESIDE))
        return _doubt(str(self.folder)) or next(filter(None, map(_doubt, files)), None)

    def _say(self, doubt: str) -> None:
        if not self._said:
            self._said = True
            warnings.warn(
                f"values in {self.folder} are unpickled although {doubt}: whoever wrote them can run code "
                f"here. trusted=True asks for it.",
                TrustWarning,
                stacklevel=3,
            )


def _doubt(path: str) -> str | None:
    if not hasattr(os, "geteuid"):  # Windows: the mode does not tell who may write
        return None
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        return f"whose {path} is, cannot be told ({error.strerror})"
    if status.st_uid != os.geteuid():
        return f"{path} belongs to another user (number {status.st_uid})"
    if status.st_mode & 0o022:
        return f"{path} can be written by others (mode {status.st_mode & 0o7777:04o})"
    return None
