"""Raise KeyboardInterrupt at every line of futurefarm that a commit, a merge and a resumed sweep go through.

After each, in the same process: the directory opens and what was acknowledged is there; whoever was
interrupted goes on with what it had in hand; and a new writer, in another thread, gets every session at once.

Left out is the line of a ``with`` when its block ends: a trace function can raise there, no signal can, as
Python looks for signals after calls. ``__exit__`` would not be called, which no program can mend.
"""

from __future__ import annotations

import dis
import gc
import shutil
import sys
import threading
import warnings
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import futurefarm
from futurefarm import DataManager, run_tasks
from futurefarm.session import Session
from futurefarm.task import Outcome, Task
from harness import Battery, Child, Figures, main, python, say

PACKAGE = str(Path(futurefarm.__file__).parent)
DEADLINE = 600.0
WAIT = 2.0


def run(battery: Battery) -> Figures:
    seen: dict[str, Any] = {"points": 0, "lines": 0, "damaged": 0, "stuck": 0, "late": 0}
    for number, name in enumerate(SCENES):
        most = battery.choose(25, 250)
        command = python(__file__, "scene", name, battery.folder / name, battery.seed + number, most)
        with Child(command, DEADLINE, battery.folder) as child:
            words = child.rest().split()
            seen["late"] += child.late
        if len(words) != 4:
            raise RuntimeError(f"{name} ended with {child.process.returncode}")
        for key, value in zip(("points", "lines", "damaged", "stuck"), map(int, words), strict=True):
            seen[key] += value
        say(name, words)
    targets = {
        "points": battery.choose(">= 60", ">= 300"),
        "damaged": "== 0",
        "stuck": "== 0",
        "late": "== 0",
    }
    return Figures(seen, targets)


class Interrupter:
    """Counts the lines of futurefarm that this thread goes through, and strikes at one of them."""

    def __init__(self, at: int = 0) -> None:
        self._at = at
        self.lines = 0
        self.where = ""

    def __enter__(self) -> Interrupter:
        sys.settrace(self._call)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)

    def _call(self, frame: FrameType, event: str, argument: Any) -> Any:
        return self._line if frame.f_code.co_filename.startswith(PACKAGE) else None

    def _line(self, frame: FrameType, event: str, argument: Any) -> Any:
        if event == "line" and frame.f_lasti not in _ends_of_blocks(frame.f_code):
            self.lines += 1
            if self.lines == self._at:
                sys.settrace(None)
                code = frame.f_code
                self.where = f"{Path(code.co_filename).name}:{frame.f_lineno} {code.co_qualname}"
                raise KeyboardInterrupt
        return self._line


@cache
def _ends_of_blocks(code: CodeType) -> set[int]:
    """Return the offsets where the block of a ``with`` has ended and its ``__exit__`` is next."""
    found = list(dis.get_instructions(code))
    return {
        first.offset
        for first, *more in zip(found, found[1:], found[2:], strict=False)
        if all(step.opname == "LOAD_CONST" and step.argval is None for step in (first, *more))
    }


class Scene:
    """Something that is interrupted; ``acknowledged`` is what has to be there in any case."""

    def __init__(self, folder: Path) -> None:
        self.dataman = DataManager("stage", folder, lock_timeout=WAIT)
        self.acknowledged: set[Any] = set()

    def play(self) -> None:
        """Do what is interrupted."""
        raise NotImplementedError

    def go_on(self) -> None:
        """Go on as a user who has seen the interrupt would; all is done then."""
        raise NotImplementedError

    def all(self) -> set[Any]:
        raise NotImplementedError


class Commit(Scene):
    """A session that is opened, gets commits and values, and is closed."""

    session: Session | None = None

    def play(self) -> None:
        if self.session is None:
            self.session = self.dataman.session("s")
        for number in range(3):
            if number not in self.acknowledged:
                self.session.commit("sweep", '{"function": "f"}', [_outcome(number)])
                self.acknowledged.add(number)
        self.session["value"] = "value"
        self.acknowledged.add("value")
        self.session.close()

    def go_on(self) -> None:
        if self.session is not None and self.session.closed:
            self.session = None
        self.acknowledged |= set(self.dataman.values())  # it was stored, and the answer cut off
        self.play()
        self.session = None

    def all(self) -> set[Any]:
        return {0, 1, 2, "value"}


class Shared(Commit):
    """The same with a session whose lock is taken for each operation."""

    def play(self) -> None:
        if self.session is None:
            self.session = self.dataman.locking_session("s")
        for number in range(3):
            self.session[str(number)] = number
            self.acknowledged.add(number)
        self.session["value"] = "value"
        self.acknowledged.add("value")
        self.session.close()


class Merge(Scene):
    """A merge of sessions that the target lacks, has, and has in part."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._other = DataManager("other", folder)
        for name, numbers in (("a", [0, 1]), ("b", [2]), ("mine", [3])):
            with (self._other if name != "mine" else self.dataman).session(name) as session:
                session.commit("sweep", '{"function": "f"}', [_outcome(number) for number in numbers])
        shutil.copy(self._other.session_filename("a"), self.dataman.basepath)
        with self._other.session("a") as session:
            session.commit("sweep", '{"function": "f"}', [_outcome(4)])
        self.acknowledged = {0, 1, 3}

    def play(self) -> None:
        self.dataman.merge(self._other)
        self.acknowledged = self.all()

    def go_on(self) -> None:
        self.play()

    def all(self) -> set[Any]:
        return {0, 1, 2, 3, 4}


class Resume(Scene):
    """A sweep of which half is done."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        run_tasks(self.dataman, same, range(3), "serial", progress=False, resume=True)
        self.acknowledged = {0, 1, 2}

    def play(self) -> None:
        run_tasks(self.dataman, same, range(6), "serial", progress=False, resume=True, on_error="record")

    def go_on(self) -> None:
        self.play()

    def all(self) -> set[Any]:
        return set(range(6))


SCENES: dict[str, Callable[[Path], Scene]] = {
    "commit": Commit,
    "shared": Shared,
    "merge": Merge,
    "resume": Resume,
}


def same(number: int) -> int:
    return number


def _outcome(number: int) -> Outcome:
    import pickle

    task = Task(number, number.to_bytes(16, "big"), 0, 1, pickle.dumps(number))
    return Outcome(task, "ok", pickle.dumps(number), None, None, "host", 1, 0.0, 0.0, None)


# -- one scene, in a process of its own


def scene(name: str, folder: str, seed: str, most: str) -> None:
    import random

    warnings.simplefilter("ignore", ResourceWarning)
    place = Path(folder)
    _play(SCENES[name](place / "warm-up"), 0)  # what is imported late is there then
    lines = _play(SCENES[name](place / "count"), 0).lines
    points = sorted(random.Random(int(seed)).sample(range(1, lines + 1), min(int(most), lines)))
    tally: Counter[str] = Counter()
    for point in points:
        stage = place / str(point)
        interrupter, problems = _interrupt(SCENES[name](stage), point)
        for kind, problem in problems:
            say(f"{name} {point} {interrupter.where}: {kind}: {problem}")
        tally.update({kind for kind, _ in problems})
        shutil.rmtree(stage, ignore_errors=True)
    print(len(points), lines, tally["damaged"], tally["stuck"])


def _play(scene: Scene, at: int) -> Interrupter:
    with Interrupter(at) as interrupter:
        scene.play()
    return interrupter


def _interrupt(scene: Scene, point: int) -> tuple[Interrupter, list[tuple[str, str]]]:
    problems: list[tuple[str, str]] = []
    interrupter = Interrupter(point)
    try:
        with interrupter:
            scene.play()
    except KeyboardInterrupt:
        pass
    _look(scene, scene.acknowledged, problems)
    try:
        scene.go_on()
    except Exception as error:
        problems.append(("stuck", f"cannot go on: {type(error).__name__}: {error}"))
    _look(scene, scene.all() if not problems else scene.acknowledged, problems)
    gc.collect()
    newcomer = threading.Thread(target=_come, args=(scene.dataman.basepath, problems))
    newcomer.start()
    newcomer.join()
    return interrupter, problems


def _look(scene: Scene, expected: set[Any], problems: list[tuple[str, str]]) -> None:
    """What has to be there is there, once, and nothing else that could not be."""
    try:
        values = Counter(DataManager.at(scene.dataman.basepath).values())
    except Exception as error:
        problems.append(("damaged", f"{type(error).__name__}: {error}"))
        return
    if missing := expected - values.keys():
        problems.append(("damaged", f"missing: {missing}"))
    if foreign := values.keys() - scene.all():
        problems.append(("damaged", f"never stored: {foreign}"))
    if doubled := {value for value, number in values.items() if number > 1}:
        problems.append(("damaged", f"doubled: {doubled}"))


def _come(path: str, problems: list[tuple[str, str]]) -> None:
    """Be a new writer in every session."""
    dataman = DataManager.at(path, lock_timeout=WAIT)
    for session in dataman.session_filenames():
        try:
            with dataman.session(Path(session).name) as opened:
                opened["newcomer"] = "newcomer"
                del opened["newcomer"]
        except Exception as error:
            problems.append(("stuck", f"{type(error).__name__}: {error}"))


if __name__ == "__main__":
    if sys.argv[1:2] == ["scene"]:
        scene(*sys.argv[2:])
    else:
        main(run)
