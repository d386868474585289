"""Small files are made for the user alone, never through a link, and never read without a bound."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

import pytest

from futurefarm import smallfile


@pytest.fixture(params=[0o000, 0o022, 0o777])
def umask(request) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


def mode(path) -> int:
    return stat.S_IMODE(os.lstat(path).st_mode)


def test_what_is_made_is_for_the_user_alone_whatever_the_umask(umask, tmp_path):
    smallfile.write(tmp_path / "note", "text")
    smallfile.touch(tmp_path / "stop")
    smallfile.make_folder(tmp_path / "folder")

    assert [0o600, 0o600, 0o700] == [mode(tmp_path / name) for name in ("note", "stop", "folder")]
    assert b"text" == smallfile.read(tmp_path / "note")


def planted(path, kind):
    """Put something else in the place of a file; return what it points to."""
    target = path.with_name("target")
    if kind == "link":
        target.write_text("mine")
        path.symlink_to(target)
    elif kind == "dangling link":
        path.symlink_to(target)
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()
    return target


KINDS = ["link", "dangling link", "pipe", "folder"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "use",
    [
        smallfile.read,
        smallfile.touch,
        lambda path: smallfile.read_end(path, 9),
        lambda path: smallfile.write(path, "new"),
    ],
)
def test_what_was_planted_in_the_place_of_a_file_is_refused(kind, use, tmp_path):
    target = planted(tmp_path / "file", kind)
    before = target.stat().st_mtime_ns if target.exists() else None
    with pytest.raises(OSError, match="file"):
        use(tmp_path / "file")

    assert before == (target.stat().st_mtime_ns if target.exists() else None)
    assert not target.exists() or "mine" == target.read_text()


@pytest.mark.parametrize("kind", ["link", "dangling link", "pipe"])
def test_what_was_planted_in_the_place_of_a_folder_is_refused(kind, tmp_path):
    planted(tmp_path / "folder", kind)
    with pytest.raises(NotADirectoryError):
        smallfile.make_folder(tmp_path / "folder")


def test_a_folder_that_is_there_is_fine(tmp_path):
    tmp_path.chmod(0o750)
    smallfile.make_folder(tmp_path)

    assert 0o750 == mode(tmp_path)


def test_nothing_is_overwritten(tmp_path):
    smallfile.write(tmp_path / "file", "old")
    with pytest.raises(FileExistsError):
        smallfile.write(tmp_path / "file", "new")

    assert b"old" == smallfile.read(tmp_path / "file")


def test_a_file_that_is_too_large_is_not_read(tmp_path):
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(OSError, match="too large"):
        smallfile.read(tmp_path / "huge")

    assert b"12" == smallfile.read(_written(tmp_path / "small", "12"), 2)
    with pytest.raises(OSError, match="too large"):
        smallfile.read(_written(tmp_path / "larger", "123"), 2)


def _written(path, text):
    smallfile.write(path, text)
    return path


def test_the_end_of_a_file_can_be_read(tmp_path):
    path = _written(tmp_path / "file", "beginning end")

    assert [b"end", b"", b"beginning end"] == [smallfile.read_end(path, size) for size in (3, 0, 99)]
