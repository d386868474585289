"""The directory is made safely, and every name in it has a place."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from futurefarm import DataManager, FutureFarmError, run_tasks
from futurefarm.directory import Directory, check_session_name, computer_name, new_session_name, stop_mark
from futurefarm.errors import DirectoryError, SessionError, SessionNameError, UsageError

from .companion import companions

AS_NOBODY = pytest.mark.skipif(
    os.name != "posix" or os.getuid() != 0, reason="only root can run a child as another user"
)


@pytest.fixture
def open_to_all(tmp_path):
    """A folder that every user can reach."""
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == 0 and not folder.stat().st_mode & 0o001:
            folder.chmod(folder.stat().st_mode | 0o011)
    return tmp_path


def as_nobody(source: str, *arguments: object) -> str:
    """Run a program as a user who may write nothing here; it need not be able to import what root can."""
    source = f"import sys\nsys.path[:0] = {sys.path!r}\nimport os\n{source}"
    result = subprocess.run(
        [sys.executable, "-B", "-c", f"import os\n{PRELOAD}\nos.setgid(65534); os.setuid(65534)\n{source}"]
        + [str(argument) for argument in arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "" == result.stderr
    return result.stdout.strip()


# Everything is imported before root's rights are given up, because nobody may not read root's libraries.
PRELOAD = "import futurefarm.session, futurefarm.dataman, filelock, sqlite3, pickle, urllib.parse\n"


@pytest.mark.parametrize("name", ["plain", "paper/fig3/run", "with space", "dots.in.name"])
def test_the_directory_lies_where_the_name_says(name, tmp_path):
    dataman = DataManager(name, tmp_path)

    assert str(tmp_path / f"{name}.data") == dataman.basepath
    assert os.path.isdir(dataman.basepath)


def test_without_datapath_it_lies_in_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    dataman = DataManager("x")
    monkeypatch.chdir("/")

    assert str(tmp_path / "x.data") == dataman.basepath
    assert 0 == dataman.itemcount()


def test_an_absolute_name_needs_no_datapath(tmp_path):
    assert str(tmp_path / "x.data") == DataManager(str(tmp_path / "x"), "elsewhere").basepath
    assert str(tmp_path / "y.data") == DataManager(tmp_path / "y").basepath


@pytest.mark.parametrize("name", ["", "folder/", os.sep])
def test_a_name_that_names_no_directory_is_refused(name, tmp_path):
    with pytest.raises(UsageError, match="names no directory"):
        DataManager(name, tmp_path)

    assert [] == os.listdir(tmp_path)


def test_at_opens_a_directory_and_never_makes_one(tmp_path):
    DataManager("x", tmp_path)

    assert str(tmp_path / "x.data") == DataManager.at(tmp_path / "x.data").basepath
    with pytest.raises(UsageError, match="there is no directory"):
        DataManager.at(tmp_path / "y.data")
    assert ["x.data"] == os.listdir(tmp_path)


def test_a_file_in_its_place_is_named(tmp_path):
    (tmp_path / "x.data").write_text("mine")
    with pytest.raises(DirectoryError, match=r"x\.data is a file") as caught:
        DataManager("x", tmp_path)

    assert str(tmp_path / "x.data") == caught.value.path
    assert "mine" == (tmp_path / "x.data").read_text()


def test_a_file_in_place_of_a_parent_is_refused(tmp_path):
    (tmp_path / "paper").write_text("mine")
    with pytest.raises(DirectoryError, match="paper is a file or a link"):
        DataManager("paper/fig3", tmp_path)


@pytest.mark.slow
def test_eight_programs_make_it_at_once(tmp_path):
    program = """
        import sys
        from futurefarm import DataManager, FutureFarmError, run_tasks

        print("ready", flush=True)
        input()
        dataman = DataManager("deep/in/folders", sys.argv[1])
        with dataman.session() as session:
            session["me"] = dataman.directory.id, dataman.computer_session_filename
    """
    with companions(program, *[(tmp_path,)] * 8) as programs:
        for each in programs:
            each.hear()
        for each in programs:
            each.say()
        for each in programs:
            assert "" == each.rest()
    dataman = DataManager("deep/in/folders", tmp_path)

    assert 8 == dataman.itemcount()
    assert {(dataman.directory.id, dataman.computer_session_filename)} == set(dataman.values())
    assert [] == [name for name in os.listdir(Path(dataman.basepath, ".farm")) if "." in name]


@pytest.mark.skipif(os.name != "posix", reason="modes of POSIX")
def test_nobody_else_may_read_what_is_in_it(dataman):
    with dataman.session("s") as session:
        session["a"] = 1
        modes = {
            path.relative_to(dataman.basepath): oct(path.stat().st_mode & 0o077)
            for path in Path(dataman.basepath).rglob("*")
            if path.is_file()
        }

    assert 0o700 == os.stat(dataman.basepath).st_mode & 0o777
    assert {Path("s"), Path("s-wal"), Path("s-shm"), Path(".farm/locks/s.lock")} <= modes.keys()
    assert {"s": "0o0", "s-wal": "0o0"} == {str(p): m for p, m in modes.items() if str(p) in ("s", "s-wal")}
    assert 0o600 == os.stat(dataman.session_filename("s")).st_mode & 0o777


@AS_NOBODY
def test_a_place_that_may_not_be_written_is_refused(open_to_all):
    program = """
from futurefarm.dataman import DataManager
try:
    DataManager("x", sys.argv[1])
except OSError as error:
    print(type(error).__name__, error)
"""
    said = as_nobody(program, open_to_all)

    assert said.startswith(
        f"DirectoryError the directory {open_to_all / 'x.data'} cannot be written (Permission"
    )


@AS_NOBODY
def test_a_directory_of_somebody_else_can_be_read_but_not_written(open_to_all):
    dataman = DataManager("x", open_to_all)
    with dataman.session("s") as session:
        session["a"] = 1
    with dataman.session("secret") as session:
        session["b"] = 2
    for folder, _, files in os.walk(dataman.basepath):
        os.chmod(folder, 0o755)
        for file in files:
            os.chmod(os.path.join(folder, file), 0o644)
    os.chmod(dataman.session_filename("secret"), 0o600)
    program = """
from futurefarm.dataman import DataManager
dataman = DataManager("x", sys.argv[1])
for attempt in (lambda: dataman.session("s"), lambda: dataman.session(), dataman.directory.check_writable):
    try:
        attempt()
    except OSError as error:
        print(type(error).__name__)
read = []
try:
    for item in dataman.items():
        read.append(item)
except OSError as error:
    print(type(error).__name__, error.path, read)
"""
    said = as_nobody(program, open_to_all)

    assert ["SessionError", "SessionError", "DirectoryError"] == said.splitlines()[:3]
    assert f"SessionError {dataman.session_filename('secret')} [('a', 1)]" == said.splitlines()[3]


def test_checking_that_it_can_be_written_leaves_nothing_behind(dataman):
    before = sorted(Path(dataman.basepath).rglob("*"))
    dataman.directory.check_writable()

    assert before == sorted(Path(dataman.basepath).rglob("*"))


@pytest.mark.parametrize("name", ["a", "A.b-c_1", "_x", "0", "a..b", "x" * 100, "run-wal.2", "shm"])
def test_a_session_can_have_this_name(name, dataman):
    with dataman.session(name) as session:
        session["a"] = 1

    assert [os.path.join(dataman.basepath, name)] == dataman.session_filenames()
    assert 1 == dataman["a"]


@pytest.mark.parametrize(
    "name",
    [
        "..",
        "../elsewhere",
        "a/b",
        "/etc/passwd",
        "a\\b",
        ".hidden",
        "-option",
        "x" * 101,
        "a b",
        "a\n",
        "a\0b",
        "é",
        "s-wal",
        "s-shm",
        "s-journal",
        "s.blobs",
        "",
        7,
        None,
    ],
)
def test_no_session_can_have_this_name(name, dataman):
    with pytest.raises(SessionNameError) as caught:
        check_session_name(name)
    assert name == caught.value.name
    if name is not None:
        for make in (dataman.session, dataman.locking_session, dataman.session_filename):
            with pytest.raises(SessionError):
                make(name)

    assert [] == dataman.session_filenames()


def test_new_session_names_are_unique_and_valid():
    names = {new_session_name() for _ in range(1000)}

    assert 1000 == len(names)
    for name in names:
        check_session_name(name)
        assert name.startswith(computer_name() + ".")


@pytest.mark.parametrize("user", ["Jane Doe", "DOMAIN\\jane", "..", "é", "x" * 300, "-"])
def test_every_user_has_a_computer_name(user, monkeypatch):
    for variable in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.setenv(variable, user)

    check_session_name(new_session_name())


def test_the_computers_own_session_stays_the_same(tmp_path):
    first, again = (DataManager("x", tmp_path).computer_session_filename for _ in range(2))

    assert first == again
    assert first != DataManager("y", tmp_path).computer_session_filename.replace("y.data", "x.data")
    assert os.path.basename(first).startswith(DataManager("x", tmp_path).computer_name)


def test_side_files_and_hidden_files_are_no_sessions(dataman):
    for name in ("s-wal", "s-shm", "s-journal", "s.blobs", ".DS_Store"):
        Path(dataman.basepath, name).write_bytes(b"x")
    Path(dataman.basepath, "folder").mkdir()

    assert [] == dataman.session_filenames()
    assert 0 == dataman.itemcount()


def test_each_touch_of_a_stop_file_is_another_mark(tmp_path):
    path = tmp_path / "stop"
    before = stop_mark(path)
    path.touch()
    first = stop_mark(path)
    os.utime(path, ns=(1, 1))

    assert before is None
    assert first is not None
    assert first != stop_mark(path)


def test_a_local_directory_is_not_on_a_network(tmp_path):
    assert Directory(tmp_path).on_network is False


PLACES = {
    "spaces": " a name  with spaces ",
    "composed": "caf\N{LATIN SMALL LETTER E WITH ACUTE}",
    "decomposed": "cafe\N{COMBINING ACUTE ACCENT}",
    "a newline": "two\nlines",
    "what URIs take for their own": "100%41 #1? a=b&c",
    "quotes": 'it\'s "so" \\n',
    "no text": os.fsdecode(b"\xff\xfe"),
    "a dot": ".hidden",
    "a dash": "-rf",
    "255 bytes with .data": "x" * 250,
    "255 bytes in few letters": "\N{LATIN SMALL LETTER E WITH ACUTE}" * 125,
}


@pytest.mark.parametrize("name", PLACES.values(), ids=PLACES)
def test_a_directory_works_under_any_name_that_the_system_allows(name, tmp_path):
    dataman = DataManager(name, tmp_path)
    run_tasks(dataman, pow, [(2, 3), (2, 4)], "serial", progress=False)
    summary = run_tasks(dataman, pow, [(2, 3), (2, 5)], "serial", progress=False, resume=True)
    with dataman.locking_session("shared") as session:
        session["a"] = 1
    copy = DataManager("copy", tmp_path)
    copy.merge(dataman.basepath)

    assert 1 == summary.skipped
    assert [1, 8, 16, 32] == sorted(DataManager.at(dataman.basepath).values()) == sorted(copy.values())
    assert {f"{name}.data", "copy.data"} == set(os.listdir(tmp_path))


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("x" * 251, "File name too long"),
        ("x/" * 200 + "x", "bytes, and at most"),
        ("a\0b", "no file system takes"),
    ],
    ids=["256 bytes", "a path that SQLite does not open", "a zero byte"],
)
def test_a_name_that_cannot_be_is_refused_at_once_in_one_sentence(name, problem, tmp_path):
    with pytest.raises(FutureFarmError, match=problem):
        DataManager(name, tmp_path)
    assert not list(tmp_path.rglob("*.data"))


def test_the_longest_path_holds_the_longest_session_names(tmp_path):
    folder = tmp_path
    while len(str(folder)) < 380:
        folder /= "x" * min(100, 390 - len(str(folder)))
    dataman = DataManager("n" * (400 - len(str(folder)) - len("/.data")), folder)
    assert 400 == len(dataman.basepath)
    with dataman.session("s" * 100) as session:
        session["a"] = 1

    assert 1 == dataman["a"]


def test_a_session_that_cannot_be_looked_at_is_not_said_to_be_replaced(dataman):
    """Or it would be read beside the one that replaces it, and all of it twice."""
    loop = Path(dataman.basepath, "loop")
    loop.symlink_to(loop)
    with pytest.raises(OSError, match="symbolic links"):
        dataman.directory.replace(["loop"], "new")

    assert [] == dataman.directory.replaced()
