"""The names of everything in a DataManager's directory.

::

    taskfarmexample.data/
        romain.laptop.3f9a2c...      a session
        romain.laptop.3f9a2c....blobs   its large values, from the first one on
        .farm/                       never copied by `cp A.data/* B.data/`
            id                       tells a worker whether it sees this very directory
            stop                     touched: every sweep in this directory stops
            stop-SWEEP               that sweep stops
            bundles/SWEEP...         what its tasks share
            claims/SWEEP             which tasks that sweep has begun
            computers/USER.HOST      the stamp of this computer's own session
            locks/NAME.lock          the lock of a session
            locks/NAME.json          who holds it, and which file it is
            workers/SWEEP/0 1 2 ...  a page per worker
            workers/SWEEP/0.out      what the tasks of a worker process print
            draft-...                a session that is being made, whole only under its name
            damaged/NAME             what `repair` put a fresh session in the place of
            replaced/NAME            which files the session NAME stands for, from the moment it exists
"""

from __future__ import annotations

import errno
import getpass
import json
import os
import platform
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path

from .errors import DirectoryError, FutureFarmError, SessionNameError
from .smallfile import make, make_folder, read, touch, write

__all__ = [
    "Directory",
    "check_session_name",
    "computer_name",
    "new_session_name",
    "stop_mark",
]

_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]{0,98}[A-Za-z0-9_-])?")
_STAMP = re.compile(r"[0-9a-f]{10}")
_NEEDED = 256 << 10  # bytes: what a session needs to be made at all
_DRAFT = re.compile(r"(draft|note|probe)-[0-9a-f]+(-wal|-shm|-journal|\.blobs)?|(id|.*\.json)\.[0-9a-f]{8}")
_DEVICE = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.ASCII | re.IGNORECASE)
_NOTE_LIMIT = 64 << 20
_BLOBS = ".blobs"
_SIDE_FILES = ("-wal", "-shm", "-journal", _BLOBS)
_LONGEST = 400
"""Bytes that the path of a directory may have: SQLite opens no file whose path has more than 512."""

_NETWORK = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "lustre", "gpfs", "beegfs", "ceph", "afs", "9p"}
)


class Directory:
    """The directory at ``path``; nothing is made until `create` is called.

    Raises:
        DirectoryError: the path is too long for the files that would lie there.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path).absolute()
        length = len(os.fsencode(self.path))
        if length > _LONGEST:
            raise DirectoryError(
                f"the path {str(self.path)[:60]}... has {length} bytes, and at most {_LONGEST} are possible "
                f"for a directory of sessions. Choose a shorter datapath or name.",
                path=str(self.path),
            )
        self.farm = self.path / ".farm"
        self.locks = self.farm / "locks"
        self.stop = self.farm / "stop"
        self.claims = self.farm / "claims"

    def create(self) -> None:
        """Make the directory and what belongs into it; many processes may do so at once.

        Raises:
            DirectoryError: a file is in the way, or the place cannot be written.
        """
        try:
            self._make_path()
            for folder in (self.farm, self.locks, self.farm / "computers", self.farm / "workers"):
                make_folder(folder)
            self._once(self.farm / "id", secrets.token_hex(16))
        except NotADirectoryError as error:
            raise DirectoryError(
                f"{error.filename} is a file or a link, and a directory of that name is needed. "
                f"Move it away or choose another name.",
                path=str(error.filename),
            ) from error
        except OSError as error:
            advice = "Choose a datapath that you may write to."
            if error.errno == errno.ENAMETOOLONG:
                advice = "Choose a shorter name."
            raise DirectoryError(
                f"the directory {self.path} cannot be written ({error.strerror}). {advice}",
                path=str(self.path),
            ) from error

    def _make_path(self) -> None:
        """Make the directory itself, which may be a link to one, and the folders in which it lies."""
        for folder in (*reversed(self.path.parents), self.path):
            if not os.path.isdir(folder):
                make_folder(folder)

    def ask_to_stop(self) -> None:
        """Ask all sweeps in this directory to stop.

        Raises:
            DirectoryError: the place cannot be written, or the stop file is a link.
        """
        self.create()
        try:
            touch(self.stop)
        except OSError as error:
            raise DirectoryError(
                f"the stop file {self.stop} cannot be written ({error.strerror}). Move away what is there.",
                path=str(self.path),
            ) from error

    @contextmanager
    def named_errors(self) -> Iterator[None]:
        """Turn the errors of the file system into ours, which name the directory."""
        try:
            yield
        except OSError as error:
            if isinstance(error, FutureFarmError):
                raise
            raise DirectoryError(
                f"the directory {self.path} cannot be used ({error}). What it holds was left as it is.",
                path=str(self.path),
                errno=error.errno,
            ) from error

    def check_writable(self) -> None:
        """Raise DirectoryError unless sessions can be made here."""
        self.create()
        probe = self.farm / f"probe-{secrets.token_hex(4)}"
        try:
            for path in (probe, self.path / f".{probe.name}"):
                _write_and_remove(path)
        except OSError as error:
            raise DirectoryError(
                f"the directory {self.path} cannot be written ({error.strerror}), so results could not be "
                f"stored. Nothing was run. Choose a datapath that you may write to.",
                path=str(self.path),
            ) from error

    @property
    def id(self) -> str | None:
        """The random id of this directory, or None if it is not one (or not to be seen from here)."""
        try:
            return read(self.farm / "id").decode("ascii", "replace")
        except OSError:
            return None

    @cached_property
    def computer_session(self) -> str:
        """The name of this computer's own session in this directory; it never changes.

        Raises:
            DirectoryError: the file that holds it cannot be written, or is a link.
        """
        computer = computer_name()
        path = self.farm / "computers" / computer
        try:
            return f"{computer}.{self._once(path, secrets.token_hex(5))}"
        except OSError as error:
            raise DirectoryError(
                f"the file {path}, which names this computer's session, cannot be used ({error.strerror}). "
                f"Move away what is there.",
                path=str(self.path),
            ) from error

    def session(self, name: str) -> Path:
        """Return the path of a session.

        Raises:
            SessionNameError: no session can have this name.
        """
        check_session_name(name)
        return self.path / name

    def sessions(self) -> list[Path]:
        """Return the paths of all files that may be sessions, sorted by name."""
        with self.named_errors():
            gone = {path.name for _, old in self.replaced() for path in old}
        names = (name for name in self._files() if _NAME.fullmatch(name) and name not in gone)
        return [self.path / name for name in names]

    def strangers(self) -> list[Path]:
        """Return the paths of files whose names no session can have: copies like ``name (1)``, backups..."""
        return [self.path / name for name in self._files() if not _NAME.fullmatch(name)]

    def _files(self) -> list[str]:
        with self.named_errors():
            try:
                with os.scandir(self.path) as entries:
                    names = [entry.name for entry in entries if entry.is_file()]
            except FileNotFoundError:
                return []
        return sorted(name for name in names if not name.startswith(".") and not name.endswith(_SIDE_FILES))

    def is_anonymous(self, name: str) -> bool:
        """Whether this is a name that `new_session_name` made, and no computer's own session."""
        computer, _, stamp = name.rpartition(".")
        try:
            return (
                bool(_STAMP.fullmatch(stamp)) and read(self.farm / "computers" / computer) != stamp.encode()
            )
        except FileNotFoundError:
            return bool(_STAMP.fullmatch(stamp))
        except OSError:  # a link, for example: whose it is is not known
            return False

    def has_made_up_name(self, path: Path) -> bool:
        """Whether `new_session_name` may have made the name."""
        return path.name.count(".") > 1 and bool(_STAMP.fullmatch(path.name.rpartition(".")[2]))

    def session_beside(self, name: str) -> str | None:
        """Return the session to which a log belongs, or None if the name is that of no log."""
        return next((name.removesuffix(end) for end in _SIDE_FILES if name.endswith(end)), None)

    def drafts(self) -> list[Path]:
        """Return what is being written and has not got its name; also what killed programs left of it."""
        files = [path for place in (self.farm, self.locks) if place.is_dir() for path in place.iterdir()]
        return sorted(path for path in files if _DRAFT.fullmatch(path.name))

    def draft(self) -> Path:
        """Return a path for a session that is being made."""
        return self.farm / f"draft-{secrets.token_hex(5)}"

    def publish(self, draft: Path, name: str) -> Path:
        """Give a draft, whole and on disk, the name of a session; durable on return.

        Its large values come first, so that the session never lacks them; a draft without any leaves what
        lies there.
        """
        path = self.session(name)
        with suppress(FileNotFoundError):
            Path(f"{draft}{_BLOBS}").replace(f"{path}{_BLOBS}")
        draft.replace(path)
        self.sync(self.path)
        return path

    def discard(self, path: Path) -> None:
        """Remove a draft, or a session, and its large values; nothing needs to be there."""
        Path(f"{path}{_BLOBS}").unlink(missing_ok=True)
        path.unlink(missing_ok=True)

    def sync(self, folder: Path) -> None:
        """Make names in a folder durable; Windows keeps names without being asked."""
        if os.name == "posix":
            fd = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)

    def replace(self, old: list[str], new: str) -> None:
        """Let the session ``new`` stand for other ones, from the moment that it exists."""
        folder = self.farm / "replaced"
        make_folder(folder)
        draft = self.farm / f"note-{secrets.token_hex(5)}"
        write(draft, json.dumps({name: _mark(self.path / name) for name in old}))
        draft.rename(folder / new)
        self.sync(folder)

    def replaced(self) -> list[tuple[Path, list[Path]]]:
        """Return the notes that `replace` left, each with the files that another session stands for.

        A program that was killed while it removed them has left both. Files that were written since are
        not among them.
        """
        found: list[tuple[Path, list[Path]]] = []
        try:
            notes = sorted((self.farm / "replaced").iterdir())
        except (FileNotFoundError, NotADirectoryError):
            return found
        for note in notes:
            try:
                marks = json.loads(read(note, _NOTE_LIMIT)) if (self.path / note.name).is_file() else {}
                named = {self.session(name): mark for name, mark in marks.items()}
            except (OSError, ValueError, AttributeError, RecursionError):
                continue  # another program has removed it meanwhile, or it is not ours
            found.append((note, [path for path, mark in named.items() if mark == _mark(path)]))
        return found

    def lock(self, name: str) -> Path:
        return self.locks / f"{name}.lock"

    def holder(self, name: str) -> Path:
        return self.locks / f"{name}.json"

    def stop_of(self, sweep: str) -> Path:
        return self.farm / f"stop-{sweep}"

    def workers(self, sweep: str) -> Path:
        return self.farm / "workers" / sweep

    def bundle(self, sweep: str, program: tuple[str, int, int]) -> Path:
        """Return the path of what the tasks of a sweep share; its name tells whose it is, see `bundle`."""
        host, pid, started = program
        return self.farm / "bundles" / f"{sweep}.{pid}.{started}.{host}"

    @cached_property
    def on_network(self) -> bool:
        """Whether the directory lies on a network file system, where SQLite's WAL must not be used."""
        return _file_system(self.path) in _NETWORK

    def _once(self, path: Path, text: str) -> str:
        """Return the text of a file, which whoever comes first has written."""
        if not os.path.lexists(path):
            draft = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
            try:
                write(draft, text)
                os.link(draft, path)  # unlike a rename it does not replace what another process wrote
            except FileExistsError:
                pass
            finally:
                draft.unlink(missing_ok=True)
        return read(path).decode("ascii", "replace")


def _write_and_remove(path: Path) -> None:
    try:
        with os.fdopen(make(path), "wb") as file:
            file.write(bytes(_NEEDED))
    finally:
        path.unlink(missing_ok=True)


def computer_name() -> str:
    """Return ``user.computer``, in characters that a session name may have.

    A container may have no name for its user; the number stands in.
    """
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = f"user{os.getuid()}"
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", f"{user}.{platform.node() or 'computer'}")
    plain = plain.strip(".-")[:70] or "user.computer"
    return f"_{plain}" if _DEVICE.fullmatch(plain) else plain


def new_session_name() -> str:
    """Return a new, unique session name ``user.computer.stamp``."""
    return f"{computer_name()}.{secrets.token_hex(5)}"


def check_session_name(name: str) -> None:
    """Raise SessionNameError unless ``name`` can be a session's.

    Example:
        >>> check_session_name("../elsewhere")
        Traceback (most recent call last):
            ...
        futurefarm.errors.SessionNameError: '../elsewhere' cannot be the name of a session: ...
    """
    if (
        isinstance(name, str)
        and _NAME.fullmatch(name)
        and not name.endswith(_SIDE_FILES)
        and not _DEVICE.fullmatch(name)
    ):
        return
    shown = f"{name[:100]!r}..." if isinstance(name, str) and len(name) > 100 else repr(name)
    raise SessionNameError(
        f"{shown} cannot be the name of a session: use 1 to 100 letters, digits, '.', '_' and '-', "
        f"beginning with a letter, a digit or '_', none of the endings {', '.join(_SIDE_FILES)} and '.', and "
        f"no device of Windows, such as CON or NUL.",
        name=name,
    )


def _mark(path: Path) -> list[int]:
    """Return what tells a file from another one of the same name."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return []
    return [status.st_ino, status.st_mtime_ns, status.st_size]


def stop_mark(path: Path) -> tuple[int, int] | None:
    """Return what tells one touch of a stop file from the next, or None where there is no file."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns


def _file_system(path: Path) -> str:
    found = (-1, "")
    for mounted, kind in _mounts():
        if path.is_relative_to(mounted):
            found = max(found, (len(mounted.parts), kind))
    return found[1]


def _mounts() -> Iterator[tuple[Path, str]]:
    try:
        with open("/proc/self/mounts", "rb") as file:
            for line in file:
                _, mounted, kind, *_ = line.split(b" ")
                path = re.sub(rb"\\([0-7]{3})", lambda octal: bytes([int(octal[1], 8)]), mounted)
                yield Path(os.fsdecode(path)), kind.decode().removeprefix("fuse.")
    except OSError:  # not Linux: nothing is known, and local is by far the likeliest
        return
