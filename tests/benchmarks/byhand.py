"""What people write by hand to keep results: a lock, and a shelf that is opened for each of them."""

from __future__ import annotations

import ctypes
import ctypes.util
import os
import shelve
from collections.abc import Iterator, MutableMapping
from pathlib import Path

from filelock import FileLock

__all__ = ["Shelf", "open_gdbm"]

WRITE_OR_CREATE, REPLACE = 2, 1


class Shelf:
    """Each result is stored by lock, open, set, close.

    The shelf lies on gdbm, the fastest of what ``shelve`` may use. On Pythons without it, ``shelve.open``
    falls back to a table that is written anew at each close, and is a hundred times slower.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lock = FileLock(f"{path}.lock")

    def store(self, key: str, value: object) -> None:
        with self.lock, shelve.Shelf(open_gdbm(self.path)) as shelf:
            shelf[key] = value

    def count(self) -> int:
        with self.lock, shelve.Shelf(open_gdbm(self.path)) as shelf:
            return len(shelf)


def open_gdbm(path: Path) -> MutableMapping[bytes, bytes]:
    try:
        import dbm.gnu
    except ImportError:  # Python was built without it; the library is on nearly every system
        return _Gdbm(path)
    return dbm.gnu.open(os.fspath(path), "c")


class _Datum(ctypes.Structure):
    _fields_ = [("pointer", ctypes.c_void_p), ("size", ctypes.c_int)]

    @classmethod
    def of(cls, data: bytes) -> _Datum:
        return cls(ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p), len(data))


class _Gdbm(MutableMapping[bytes, bytes]):
    """What a shelf needs of the module ``dbm.gnu``, on the same C library."""

    def __init__(self, path: Path) -> None:
        self._library = _library()
        self._file = self._library.gdbm_open(os.fsencode(path), 0, WRITE_OR_CREATE, 0o666, None)
        if not self._file:
            raise OSError(f"gdbm cannot open {path}")

    def __setitem__(self, key: bytes, value: bytes) -> None:
        if self._library.gdbm_store(self._file, _Datum.of(key), _Datum.of(value), REPLACE):
            raise OSError(f"gdbm cannot store {key!r}")

    def __len__(self) -> int:
        number = ctypes.c_ulonglong()
        self._library.gdbm_count(self._file, ctypes.byref(number))
        return number.value

    def __getitem__(self, key: bytes) -> bytes:
        raise NotImplementedError

    def __delitem__(self, key: bytes) -> None:
        raise NotImplementedError

    def __iter__(self) -> Iterator[bytes]:
        raise NotImplementedError

    def close(self) -> None:
        file, self._file = self._file, None
        if file:
            self._library.gdbm_close(file)


def _library() -> ctypes.CDLL:
    library = ctypes.CDLL(ctypes.util.find_library("gdbm") or "libgdbm.so.6")
    library.gdbm_open.restype = ctypes.c_void_p
    library.gdbm_open.argtypes = [ctypes.c_char_p, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_void_p]
    library.gdbm_store.argtypes = [ctypes.c_void_p, _Datum, _Datum, ctypes.c_int]
    library.gdbm_count.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
    library.gdbm_close.argtypes = [ctypes.c_void_p]
    return library
