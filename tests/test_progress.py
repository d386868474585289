"""The bars count what is on disk."""

from __future__ import annotations

import io
from typing import ClassVar

import pytest
import tqdm

from futurefarm import run_tasks
from futurefarm.errors import UsageTypeError
from futurefarm.progress import LINE_EVERY, Progress
from futurefarm.status import Worker
from futurefarm.testing.tasks import keep, misbehave


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Recorder(tqdm.tqdm):
    """A bar that remembers itself."""

    made: ClassVar[list[Recorder]] = []

    def __init__(self, *args, **options):
        options["file"] = io.StringIO()
        super().__init__(*args, **options)
        Recorder.made.append(self)


@pytest.fixture
def bars():
    Recorder.made = []
    return Recorder.made


def worker(number: int, **page) -> Worker:
    told = {
        "task": 3,
        "since": 0.0,
        "fraction": 0.25,
        "text": "epoch 2",
        "host": "h",
        "pid": 1,
        "started": 1,
        "output": 0,
        "memory": None,
    }
    return Worker(number=number, leashed=True, **{**told, **page})


def progress(option, stream=None, workers=(), **options) -> Progress:
    options = {"name": "find_rate", "total": 10, **options}
    return Progress(option, workers=lambda: list(workers), stream=stream or io.StringIO(), **options)


def test_the_main_bar_counts_done_and_failed(bars):
    with progress(Recorder) as shown:
        shown.count(3, 0)
        shown.count(0, 2)

    assert (5, 10, "find_rate") == (bars[0].n, bars[0].total, bars[0].desc.rstrip(": "))
    assert "failed=2" in bars[0].postfix


def test_what_was_done_before_is_in_the_bar_but_not_in_its_speed(bars):
    with progress(Recorder) as shown:
        shown.skip(4)
        shown.count(1, 0)

    assert (5, 4) == (bars[0].n, bars[0].initial)


def test_a_worker_that_reports_has_a_bar(bars):
    with progress(Recorder) as shown:
        shown._draw_workers([worker(0), worker(1, fraction=None)])

    assert 2 == len(bars), "the main bar, and that of worker 0"
    assert (25, "worker 0: task 3 epoch 2") == (bars[1].n, bars[1].desc)


def test_nothing_is_shown_when_nothing_is_asked_for():
    stream = Terminal()
    with progress(False, stream) as shown:
        shown.count(1, 1)
        shown.say("stopped")

    assert "" == stream.getvalue()


def test_no_bar_is_drawn_where_there_is_no_terminal():
    stream = io.StringIO()
    with progress(None, stream) as shown:
        shown.count(1, 0)

    assert "" == stream.getvalue()


def test_without_a_terminal_there_is_a_line_a_minute():
    now = [0.0]
    stream = io.StringIO()
    with progress(None, stream, clock=lambda: now[0], total=100) as shown:
        shown.count(20, 1)
        shown._line_if_due()
        assert "" == stream.getvalue()
        now[0] = LINE_EVERY
        shown._line_if_due()
        shown._line_if_due()

    assert (
        "find_rate: 21 of 100 tasks done, 1 of them failed, 0.35 a second, about 3:46 left\n"
        == stream.getvalue()
    )


def test_a_line_without_a_total_promises_no_end():
    assert "find_rate: 0 tasks done" == progress(None, total=None).line(10.0)


def test_a_message_stands_above_the_bars():
    stream = Terminal()
    with progress({"file": io.StringIO()}, stream) as shown:
        shown.say("stopped by lunch")

    assert "stopped by lunch" in stream.getvalue()


def test_a_terminal_that_is_gone_does_not_end_the_sweep(dataman):
    class Gone(Terminal):
        def write(self, text):
            raise BrokenPipeError

    summary = run_tasks(dataman, keep, range(10), "serial", progress={"file": Gone()})

    assert 10 == summary.done


@pytest.mark.parametrize("part", ["__init__", "update", "set_postfix", "write", "refresh", "close"])
def test_a_bar_that_fails_is_given_up_with_one_line_and_the_rest_is_told_in_lines(part):
    def fail(*_, **__):
        raise AttributeError("no such part")

    class Broken:
        initial = n = last_print_n = 0
        __init__ = update = set_postfix = write = refresh = close = lambda *_, **__: None

    setattr(Broken, part, fail)
    stream = io.StringIO()
    with progress(Broken, stream, workers=[worker(0, fraction=None)]) as shown:
        shown.skip(1)
        shown.count(1, 1)
        if part == "refresh":
            shown._draw(lambda: shown._draw_workers([]))
        shown.say("stopped")
        shown.count(1, 1)

    told = ["the progress bar failed, and is given up (AttributeError: no such part)"]
    assert told + ["stopped"] * (part != "close") == stream.getvalue().splitlines()


def test_a_sweep_outlives_its_bar(dataman, capsys):
    class Broken(Recorder):
        def update(self, number=1):
            raise AttributeError("no such part")

    summary = run_tasks(dataman, keep, range(10), "serial", progress=Broken)

    assert 10 == summary.done
    assert "the progress bar failed" in capsys.readouterr().err


def test_options_go_to_tqdm(dataman):
    stream = io.StringIO()
    run_tasks(dataman, keep, range(3), "serial", progress={"file": stream, "desc": "my sweep", "unit": "run"})

    assert "my sweep: 100%" in stream.getvalue()
    assert "3/3" in stream.getvalue()
    assert "run/s" in stream.getvalue()


def test_the_bar_of_a_sweep_counts_what_is_stored(dataman, bars):
    run_tasks(dataman, misbehave, ["fine", "value", "fine"], "thread", progress=Recorder, on_error="record")

    assert (3, 3) == (bars[0].n, bars[0].total)
    assert "failed=1" in bars[0].postfix


def test_the_bar_of_a_sweep_hears_of_nothing_but_tasks_that_have_ended(dataman):
    heard = []

    class Listener(Recorder):
        def update(self, number=1):
            heard.append(number)
            return super().update(number)

    run_tasks(dataman, misbehave, ["fine", "value", "fine"], "thread", progress=Listener, on_error="record")

    assert 3 == sum(heard)
    assert 0 not in heard


def test_something_else_is_refused(dataman):
    with pytest.raises(UsageTypeError, match="progress must be"):
        run_tasks(dataman, keep, [1], "serial", progress="yes")
