"""Cut the power at every call: rebuild the disk as it could be then, and look what is left.

The file-system calls of a program that creates, commits, seals, merges and compacts are traced, and played on
a disk of our own, which knows what was synced. After each call that changes something, there are four disks:

* killed: all that was written is there, as after a kill;
* synced: what was not synced is not there, neither bytes nor names;
* torn: of what was not synced, the first half of each write is there;
* named: all names are as they were last, also those that were not synced, but the bytes are not.

A file that is synced is there under its name. What is written through mapped memory is not traced: that is
only SQLite's index of a log (-shm), which it makes anew.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import calls
import writer
from calls import CHANGING, DEADLINE, Damage, look, prepare, writing
from harness import Battery, Child, Figures, main, say

MODELS = ("killed", "synced", "torn", "named")
TRACED = [*(name for name in CHANGING if name != "fchmod"), "lseek", "newfstatat"]

LINE = re.compile(r"(\d+) +(.*)")
CALL = re.compile(r"(\w+)\((.*)\)\s+= (-?\d+)")
RESUMED = re.compile(r"<\.\.\. \w+ resumed>(.*)")
TEXT = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
DESCRIPTOR = re.compile(r"(\d+)<((?:\\x[0-9a-f]{2})+)>")
INODE = re.compile(r"st_ino=(\d+)")


def bytes_of(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))


@dataclass
class Inode:
    """A file: its bytes now, those that were synced, and what was done since."""

    number: int = 0  # on the disk on which the program ran
    now: bytearray = field(default_factory=bytearray)
    synced: bytes = b""
    since: list[tuple[int, bytes | None]] = field(default_factory=list)

    def write(self, at: int, data: bytes) -> None:
        _put(self.now, at, data)
        self.since.append((at, data))

    def cut(self, length: int) -> None:
        _cut(self.now, length)
        self.since.append((length, None))

    def torn(self) -> bytes:
        data = bytearray(self.synced)
        for at, written in self.since:
            if written is None:
                _cut(data, at)
            else:
                _put(data, at, written[: len(written) // 2])
        return bytes(data)


def _put(file: bytearray, at: int, data: bytes) -> None:
    file.extend(bytes(max(0, at + len(data) - len(file))))
    file[at : at + len(data)] = data


def _cut(file: bytearray, length: int) -> None:
    del file[length:]
    file.extend(bytes(length - len(file)))


class Disk:
    """What is on disk under ``root``, as the calls change it."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.names: dict[str, Inode] = {}
        self.synced: dict[str, Inode] = {}
        self.places: dict[int, int] = {}
        self.events = bytearray()

    def play(self, name: str, arguments: str, result: int) -> bool:
        """Do one call; return whether it may have changed something."""
        texts = [bytes_of(text) for text in TEXT.findall(arguments)]
        found = DESCRIPTOR.match(arguments)
        descriptor = int(found[1]) if found else -1
        path = bytes_of(found[2]).decode() if found else ""
        paths = [text.decode(errors="replace") for text in texts]
        if path.endswith("/events") or (paths and paths[0].endswith("/events")):
            if name == "write":
                self.events += texts[0]
            return False
        if not any(where.startswith(self.root) for where in (path, *paths)):
            return False
        act = getattr(self, f"_{name}", None)
        return bool(act and act(path, descriptor, arguments, texts, paths, result))

    def _openat(self, path, descriptor, arguments, texts, paths, result):  # type: ignore[no-untyped-def]
        self.places[result] = 0
        if "O_CREAT" in arguments and paths[0] not in self.names:
            self.names[paths[0]] = Inode()
            return True
        if "O_TRUNC" in arguments and self.names[paths[0]].now:
            self.names[paths[0]].cut(0)
            return True
        return False

    def _lseek(self, path, descriptor, arguments, texts, paths, result):  # type: ignore[no-untyped-def]
        self.places[descriptor] = result

    def _write(self, path, descriptor, arguments, texts, paths, result):  # type: ignore[no-untyped-def]
        place = self.places.get(descriptor, 0)
        self.places[descriptor] = place + result
        if path in self.names:  # else it was removed while it was open
            self.names[path].write(place, texts[0][:result])
        return True

    def _pwrite64(self, path, descriptor, arguments, texts, paths, result):  # type: ignore[no-untyped-def]
        if path in self.names:
            self.names[path].write(int(arguments.rsplit(",", 1)[1]), texts[0][:result])
        return True

    def _ftruncate(self, path, descriptor, arguments, texts, paths, result):  # type: ignore[no-untyped-def]
        if path in self.names:
            self.names[path].cut(int(arguments.rsplit(",", 1)[1]))
        return True

    def _truncate(self, path, descriptor, arguments, texts, paths, result):  # type: ignore[no-untyped-def]
        self.names[paths[0]].cut(int(arguments.rsplit(",", 1)[1]))
        return True

    def _fsync(self, path, descriptor, arguments, texts, paths, result):  # type: ignore[no-untyped-def]
        inode = self.names.get(path)
        if inode is None:  # a folder: its names are as they are now
            for name in [name for name in self.synced if os.path.dirname(name) == path]:
                del self.synced[name]
            self.synced |= {n: inode for n, inode in self.names.items() if os.path.dirname(n) == path}
        else:
            inode.synced, inode.since = bytes(inode.now), []
            self.synced = {n: other for n, other in self.synced.items() if other is not inode}
            self.synced[path] = inode
        return True

    _fdatasync = _fsync

    def _rename(self, path, descriptor, arguments, texts, paths, result):  # type: ignore[no-untyped-def]
        self.names[paths[1]] = self.names.pop(paths[0])
        return True

    def _link(self, path, descriptor, arguments, texts, paths, result):  # type: ignore[no-untyped-def]
        self.names[paths[1]] = self.names[paths[0]]
        return True

    def _unlink(self, path, descriptor, arguments, texts, paths, result):  # type: ignore[no-untyped-def]
        self.names.pop(paths[0], None)
        return True

    def _newfstatat(self, path, descriptor, arguments, texts, paths, result):  # type: ignore[no-untyped-def]
        where = (paths[0] if paths else "") or path
        if where in self.names and (inode := INODE.search(arguments)):
            self.names[where].number = int(inode[1])

    def image(self, model: str) -> dict[str, tuple[int, bytes]]:
        """Return what is there after the power failed: the inode's number and the bytes, by name."""
        names = self.names if model in ("killed", "named") else self.synced
        return {
            name[len(self.root) + 1 :]: (inode.number, self._bytes(inode, model))
            for name, inode in names.items()
            if not name.endswith("-shm")
        }

    def _bytes(self, inode: Inode, model: str) -> bytes:
        if model == "killed":
            return bytes(inode.now)
        return inode.torn() if model == "torn" else inode.synced


def trace(folder: Path, log: Path) -> Iterator[tuple[str, str, int]]:
    """Run the writer and yield its calls: name, arguments, result."""
    command = ["strace", "-f", "--seccomp-bpf", "-qq", "-y", "-v", "-xx", "-s", "2000000", "-o", str(log)]
    with Child([*command, "-e", f"trace={','.join(TRACED)}", *writing(folder)], DEADLINE) as child:
        if child.wait() != 0:
            raise RuntimeError(f"the writer ended with {child.wait()}")
    begun: dict[str, str] = {}
    with open(log, errors="replace") as lines:
        for line in lines:
            match = LINE.match(line)
            if match is None:
                continue
            thread, text = match.groups()
            if text.endswith("<unfinished ...>"):
                begun[thread] = text.removesuffix("<unfinished ...>")
                continue
            if resumed := RESUMED.match(text):
                text = begun.pop(thread) + resumed[1]
            if (call := CALL.match(text)) and int(call[3]) >= 0:
                yield call[1], call[2], int(call[3])


def states(disk: Disk, played: Iterator[tuple[str, str, int]]) -> Iterator[tuple[int, str, dict, bytes]]:
    """Yield all states: after each call that changes something, by each model."""
    for number, call in enumerate(played):
        if disk.play(*call):
            for model in MODELS:
                yield number, model, disk.image(model), bytes(disk.events)


def run(battery: Battery) -> Figures:
    calls.TASKS = battery.choose(6, 60)
    template = battery.folder / "template"
    template.mkdir()
    writer.make_other(template)
    source = prepare(template, battery.folder / "run-00000")
    played = list(trace(source, battery.folder / "trace"))
    disk = Disk(str(source / "farm.data"))
    shutil.rmtree(source / "farm.data")
    figures = {"calls": len(played), "states": 0, "different": 0, "states_with_loss": 0, "worst": 0}
    figures |= {"wrong": 0, "doubled": 0} | dict.fromkeys(MODELS, 0)
    scratch = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else battery.folder
    known: dict[int, int] = {}

    def different() -> Iterator[tuple[Path, int, str, dict, bytes]]:
        for number, model, image, events in states(disk, iter(played)):
            figures["states"] += 1
            key = hash((frozenset(image.items()), events))
            if key not in known:
                known[key] = number
                yield scratch, number, model, image, events

    with multiprocessing.get_context("fork").Pool(2) as pool:
        for number, model, damage in pool.imap_unordered(after, different(), chunksize=8):
            figures["different"] += 1
            figures["states_with_loss"] += damage.lost > 0
            figures["worst"] = max(figures["worst"], damage.lost)
            figures["wrong"] += damage.wrong
            figures["doubled"] += damage.doubled
            figures[model] += bool(damage)
            if damage:
                say(f"{model} after call {number}, {played[number][0]}: {damage}")
    targets = {"states": battery.choose(">= 300", ">= 2000"), "states_with_loss": "== 0", "wrong": "== 0"}
    return Figures(figures, targets | {"doubled": "== 0"})


def after(state: tuple[Path, int, str, dict, bytes]) -> tuple[int, str, Damage]:
    """Put a state on disk and look at it."""
    scratch, number, model, image, events = state
    folder = scratch / f"futurefarm-power-{os.getpid()}"
    try:
        build(folder, image, events)
        return number, model, look(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def build(folder: Path, image: dict[str, tuple[int, bytes]], events: bytes) -> None:
    farm = folder / "farm.data"
    for below in ("locks", "computers", "workers", "replaced"):
        (farm / ".farm" / below).mkdir(parents=True, mode=0o700)
    (folder / "events").write_bytes(events)
    for name, (_, data) in image.items():
        path = farm / name
        path.write_bytes(data)
        path.chmod(0o600)

    def here(name: str, number: int) -> os.stat_result | None:
        """Return what there is of a session that was this inode: it has another number here."""
        return (farm / name).stat() if image.get(name, (0,))[0] == number else None

    # Two kinds of notes speak of inodes.
    for note in (farm / ".farm" / "locks").glob("*.json"):
        edit(note, lambda said, name=note.stem: said | {"inode": inode_of(here(name, said["inode"]))})
    for note in (farm / ".farm" / "replaced").iterdir():
        edit(note, lambda said: {n: mark_of(farm / n, here(n, mark[0]), *mark) for n, mark in said.items()})


def edit(note: Path, change) -> None:  # type: ignore[no-untyped-def]
    try:
        said = json.loads(note.read_bytes())
    except ValueError:
        return  # not all of it is on disk
    note.write_text(json.dumps(change(said)))


def inode_of(status: os.stat_result | None) -> int:
    return 0 if status is None else status.st_ino


def mark_of(path: Path, status: os.stat_result | None, number: int, time: int, size: int) -> list[int]:
    if status is not None:
        os.utime(path, ns=(time, time))
    return [inode_of(status), time, size]


if __name__ == "__main__":
    main(run)
