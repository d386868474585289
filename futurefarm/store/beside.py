"""The large values of a session, for those who check them or take them elsewhere."""

from __future__ import annotations

from pathlib import Path

from ..blobs import MissingBlobError, Parts, Reader, detach, has_trailer
from .format import damage, named, sidecar_of, without_blobs
from .store import Store

__all__ = ["Beside", "end_of", "is_same", "size_apart"]


class Beside:
    """Reads what lies beside the session at ``path``. Use it as a context manager, or close it."""

    def __init__(self, path: Path) -> None:
        self._session = path
        self._reader: Reader | None = None

    def fault(self, value: bytes) -> str | None:
        """Return what is wrong with the large parts of a value, or None. It takes little memory."""
        try:
            if has_trailer(value):
                self._opened().verify(detach(value))
        except MissingBlobError as error:
            return f"its value is not all there: {error}"
        except (ValueError, OSError) as error:
            return f"its value is not what was written: {error}"
        return None

    def stream(self, value: bytes) -> bytes:
        """Return the pickle of a value that has no fault, without the buffers that it asks for."""
        parts = detach(value)
        return bytes(self._opened().read(parts.references[-1])) if parts.whole else parts.stream

    def move(self, key: str, value: bytes, store: Store) -> bytes:
        """Keep the large parts of a value beside another session; return what stands in its place there.

        What lay apart lies apart there, too, so that the two can be compared without reading them.

        Raises:
            DamagedSessionError: they are not what was written.
            IncompleteCopyError: they are not there.
        """
        if not has_trailer(value):
            return value
        try:
            parts = detach(value)
            stream, buffers = self._opened().get(parts)
        except MissingBlobError:
            raise without_blobs(self._session, key) from None
        except ValueError as error:
            raise damage(self._session, f"the value of {key!r} is not what was written", key) from error
        except OSError as error:
            raise named(self._session, error) from error
        return store.keep(stream, buffers, whole=parts.whole)

    def _opened(self) -> Reader:
        if self._reader is None:
            self._reader = Reader(sidecar_of(self._session))
        return self._reader

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()

    def __enter__(self) -> Beside:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def end_of(value: bytes) -> int:
    """Return how long the file with the large parts of a value has to be."""
    return max((offset + size for offset, size, _ in detach(value).references), default=0)


def size_apart(value: bytes) -> int:
    """Return how many bytes of a value lie beside the session."""
    return sum(size for _, size, _ in _parts(value).references)


def is_same(one: bytes, other: bytes) -> bool:
    """Whether two stored values are the same one, wherever their large parts lie."""
    return one == other or _parts(one).content == _parts(other).content


def _parts(value: bytes) -> Parts:
    try:
        return detach(value)
    except ValueError:  # of another hand
        return Parts(value)
