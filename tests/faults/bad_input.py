"""Random arguments to every public function: only documented errors, nothing written if refused, no hang.

Hypothesis makes values of all kinds and puts them where a name, a number, a function or an iterable belongs.
What comes out has to be an answer or an error that the docstring announces. After a UsageError the directory
has to be as it was before.
"""

from __future__ import annotations

import faulthandler
import io
import math
import os
import shutil
import threading
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, redirect_stderr
from pathlib import Path
from typing import Any

from click.testing import CliRunner
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from futurefarm import DataManager, FutureFarmError, StopFlag, run_tasks, spaces
from futurefarm.cli import main as command
from futurefarm.errors import UsageError
from futurefarm.executors import override, register, resolve
from harness import Battery, Figures, main, say

DEADLINE = 30.0
"""Seconds after which a call hangs: then all stacks are printed, and the program ends."""

SLOW = 5.0

NEVER = ("undocumented", "written_though_refused", "slow")

# Names stay below the folder of this program: no absolute ones, and not many steps up.
TEXT = st.text(st.sampled_from("ab.-_ /\0\n\ud800é\U0001f600~*%"), max_size=12).filter(
    lambda text: not text.startswith("/") and text.count("..") < 3
)


def _steps() -> Iterator[int]:
    yield from range(3)


OBJECTS: list[Callable[[], Any]] = [
    object,
    threading.Lock,
    _steps,
    lambda: len,
    lambda: lambda: None,
    lambda: int,
    lambda: ValueError,
    lambda: os,
    lambda: Path("a"),
    lambda: StopFlag(),
    lambda: io.StringIO(),
    lambda: {1: [2]},
]
JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.integers(-3, 3),
    st.floats(),
    TEXT,
    st.binary(max_size=5),
    st.tuples(),
    st.lists(st.integers(0, 3), max_size=3),
    st.dictionaries(TEXT, st.integers(), max_size=2),
    st.sampled_from(OBJECTS).map(lambda make: make()),
)


def works(x: Any = 0, *more: Any, **named: Any) -> Any:
    return x


def fails(*_: Any) -> None:
    raise ValueError("as asked")


FUNCTIONS = st.sampled_from([works, fails, len, int, lambda x: x, threading.Lock])
ITEMS = st.lists(JUNK, max_size=4)

# What stands for each argument of run_tasks: mostly junk, sometimes something that works.
OPTIONS = {
    "workers": JUNK.filter(lambda value: not isinstance(value, int) or value < 5),
    "resume": JUNK,
    "retries": JUNK.filter(lambda value: not isinstance(value, int) or value < 3),
    "retry_on": st.one_of(JUNK, st.just(ValueError), st.just((ValueError, KeyError))),
    "backoff": st.one_of(JUNK.filter(lambda value: not _is_long(value)), st.just(0.01)),
    "crash_limit": JUNK,
    "timeout": st.one_of(JUNK, st.sampled_from(["5x median", "0x median", "x median", "-1x median"])),
    "max_failures": JUNK,
    "on_error": st.one_of(JUNK, st.sampled_from(["raise", "record", "stop"])),
    "total": JUNK,
    "progress": JUNK,
    "capture": JUNK,
    "stop": JUNK,
    "initargs": JUNK,
    "initkwds": JUNK,
}


def _is_long(seconds: Any) -> bool:
    return isinstance(seconds, int | float) and (seconds > 0.1 or math.isnan(seconds))


class Trial:
    """Makes the calls, and keeps the score."""

    def __init__(self, folder: Path, score: Counter[str]) -> None:
        self.folder = folder / "a" / "b" / "c" / "d"
        self.folder.mkdir(parents=True)
        os.chdir(self.folder)
        self.begin()
        self._score = score
        self._told: set[str] = set()

    def begin(self) -> None:
        """Begin with a new directory; a look at one with hundreds of sessions takes its time."""
        shutil.rmtree("bad.data", ignore_errors=True)
        self.dataman = DataManager("bad")
        with self.dataman.session("s") as session:
            session["a"] = [1]

    def call(self, name: str, function: Callable[[], Any], *others: type[BaseException]) -> None:
        """Make a call that may raise our errors, and ``others`` of which its docstring speaks."""
        before = self._state()
        self._score["calls"] += 1
        faulthandler.dump_traceback_later(DEADLINE, exit=True)
        begun = time.monotonic()
        try:
            with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
                warnings.simplefilter("ignore")
                function()
        except UsageError as error:
            self._score["refused"] += 1
            if self._state() != before:
                self._tell("written_though_refused", name, error)
        except (FutureFarmError, *others):
            self._score["errors"] += 1
        except BaseException as error:
            self._tell("undocumented", name, error)
        else:
            self._score["answers"] += 1
        finally:
            faulthandler.cancel_dump_traceback_later()
        if time.monotonic() - begun > SLOW:
            self._tell("slow", name, TimeoutError())

    def _tell(self, what: str, name: str, error: BaseException) -> None:
        self._score[what] += 1
        place = traceback.extract_tb(error.__traceback__)[-1:]
        text = f"{what}: {name}: {type(error).__name__}: {str(error)[:100]!r} at {place}"
        if (key := f"{what}{name}{type(error)}{place}") not in self._told:
            self._told.add(key)
            say(text)

    def _state(self) -> list[Any]:
        """Return the files of the directory, and how many items and attempts there are."""
        files = [os.path.join(folder, n) for folder, _, names in os.walk("bad.data") for n in names]
        return [sorted(files), self.dataman.itemcount(), sum(1 for _ in self.dataman.history())]


def managers(trial: Trial, data: st.DataObject) -> None:
    name, path, seconds, trusted = (data.draw(JUNK) for _ in range(4))
    trial.call("DataManager(name)", lambda: DataManager(name))
    trial.call("DataManager(datapath)", lambda: DataManager("x", path))
    trial.call("DataManager(lock_timeout)", lambda: DataManager("x", lock_timeout=seconds))
    trial.call("DataManager(trusted)", lambda: DataManager("x", trusted=trusted))
    trial.call("DataManager.at", lambda: DataManager.at(name))


def mappings(trial: Trial, data: st.DataObject) -> None:
    dataman, key = trial.dataman, data.draw(st.one_of(JUNK, st.just("a")))
    trial.call("dataman[key]", lambda: dataman[key], KeyError)
    trial.call("key in dataman", lambda: key in dataman)
    trial.call("get", lambda: dataman.get(key))
    trial.call("get_all", lambda: dataman.get_all(key))
    trial.call("get_merged", lambda: dataman.get_merged(key), TypeError)
    if not callable(key):  # what a function of the user's raises is passed on
        trial.call("get_matching", lambda: dataman.get_matching(key))
        trial.call("get_flat_matching", lambda: dataman.get_flat_matching(key))
    trial.call("session_filename", lambda: dataman.session_filename(key))
    trial.call("merge", lambda: dataman.merge(key, lock_timeout=0))
    trial.call("merge(lock_timeout)", lambda: dataman.merge(dataman, lock_timeout=key))


def sessions(trial: Trial, data: st.DataObject) -> None:
    name, seconds, key, value = (data.draw(JUNK) for _ in range(4))

    def use(open_: Callable[..., Any], name: Any, seconds: Any, key: Any, value: Any) -> None:
        with closing(open_(name, lock_timeout=seconds)) as session:
            session[key] = value
            assert key in session
            session.get(key)
            del session[key]
            session.pop(key, None)

    for open_ in (trial.dataman.session, trial.dataman.locking_session):
        kind = open_.__name__
        trial.call(f"{kind}(name)", lambda: use(open_, name, 1, "key", 1))  # noqa: B023 - called at once
        trial.call(f"{kind}(lock_timeout)", lambda: use(open_, "s", seconds, "key", 1))  # noqa: B023
        trial.call(f"{kind}[key]", lambda: use(open_, "s", 1, key, 1))  # noqa: B023
        trial.call(f"{kind}[...] = value", lambda: use(open_, "s", 1, "key", value))  # noqa: B023


def sweeps(trial: Trial, data: st.DataObject) -> None:
    dataman, function, items = trial.dataman, data.draw(FUNCTIONS), data.draw(ITEMS)
    engine = data.draw(st.sampled_from(["serial", "thread"]))
    junk = data.draw(JUNK)
    options: dict[str, Any] = {"progress": False, "workers": 2}
    for name in data.draw(st.sets(st.sampled_from(sorted(OPTIONS)), max_size=2)):
        options[name] = data.draw(OPTIONS[name])
    names = ", ".join(options)
    trial.call(f"run_tasks({names})", lambda: run_tasks(dataman, function, items, engine, **options))
    trial.call("run_tasks(dataman)", lambda: run_tasks(junk, works, [1], engine, progress=False))
    trial.call("run_tasks(fn)", lambda: run_tasks(dataman, junk, items, engine, progress=False))
    trial.call("run_tasks(args)", lambda: run_tasks(dataman, works, junk, engine, progress=False))
    trial.call("run_tasks(executor)", lambda: run_tasks(dataman, works, items, junk, progress=False))


def points(trial: Trial, data: st.DataObject) -> None:
    axis, other, number, seed_ = (data.draw(JUNK) for _ in range(4))
    if not isinstance(number, int) or number < 100:
        trial.call("sample", lambda: list(spaces.sample(number, 1, k=(0.0, 1.0))))
    trial.call("sample(seed)", lambda: list(spaces.sample(1, seed_, k=(0.0, 1.0))))
    if not callable(axis):
        trial.call("sample(axis)", lambda: list(spaces.sample(1, 1, k=axis)))
    trial.call("grid", lambda: list(spaces.grid(a=axis, b=other)))
    trial.call("zipped", lambda: list(spaces.zipped(a=axis, b=other)))
    trial.call("cases", lambda: list(spaces.cases(axis)))


def engines(trial: Trial, data: st.DataObject) -> None:
    name, factory = data.draw(JUNK), data.draw(JUNK)

    def overridden() -> None:
        with override(name):
            pass

    trial.call("resolve", lambda: resolve(name))
    trial.call("override", overridden)
    if not callable(factory):  # what was registered would stay
        trial.call("register", lambda: register("bad", factory))
        trial.call("register(name)", lambda: register(name, factory))


def flags(trial: Trial, data: st.DataObject) -> None:
    reason, now = data.draw(JUNK), data.draw(JUNK)
    flag = StopFlag()
    trial.call("StopFlag.set", lambda: flag.set(reason, now=now))
    trial.call("StopFlag.is_set", flag.is_set)


COMMANDS = ["status", "stop", "failed", "merge", "check", "repair", "compact", "info"]
WORDS = st.sampled_from([*COMMANDS, "--json", "--help", "bad.data", "-"])


def commands(trial: Trial, data: st.DataObject) -> None:
    # What no command line can hold: an end of text, and a character that is in none of its bytes.
    text = TEXT.filter(lambda text: not {"\0", "\ud800"} & set(text))
    words = data.draw(st.lists(st.one_of(WORDS, text), max_size=4))

    def run() -> None:
        result = CliRunner().invoke(command, words)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code in (0, 1, 2), result.exit_code

    trial.call(f"futurefarm {words[:1]}", run)


def on(trial: Trial, check: Callable[..., None]) -> Callable[[st.DataObject], None]:
    def test(data: st.DataObject) -> None:
        check(trial, data)

    return test


def program(battery: Battery) -> Figures:
    score: Counter[str] = Counter(dict.fromkeys(("calls", "answers", "refused", "errors", *NEVER), 0))
    trial = Trial(battery.folder, score)
    for check in (managers, mappings, sessions, sweeps, points, engines, flags, commands):
        begun = time.monotonic()
        trial.begin()
        settle = settings(
            max_examples=battery.choose(40, 250) // (2 if check in (sessions, sweeps) else 1),
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        seed(battery.seed)(settle(given(st.data())(on(trial, check))))()
        say(f"{check.__name__}: {time.monotonic() - begun:.1f} s")
    os.chdir("/")
    left = [thread.name for thread in threading.enumerate() if thread.name.startswith("futurefarm")]
    calls = f">= {battery.choose(1000, 7000)}"
    return Figures(
        dict(score) | {"left_threads": len(left)},
        {"calls": calls} | dict.fromkeys((*NEVER, "left_threads"), "== 0"),
    )


if __name__ == "__main__":
    main(program)
