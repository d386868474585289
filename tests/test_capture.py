"""What tasks print is kept from the terminal, and its tail is in the ledger."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import subprocess
import sys
import threading
import warnings

import pytest

from futurefarm import DataManager, TasksFailedError, run_tasks
from futurefarm.status import Page
from futurefarm.worker.capture import TAIL, cut
from futurefarm.worker.outfile import LIMIT, OutputFile, output_of
from futurefarm.worker.streams import Streams

from .program import Program

EXECUTORS = ["loky", "process", "thread", "serial"]
PROCESSES = ["loky", "process"]


def prints(kind):
    if kind == "python":
        print("to stdout")
        print("to stderr", file=sys.stderr)
        print("unfinished", end="")
    elif kind == "bytes":
        sys.stdout.buffer.write(b"as bytes")
        sys.stdout.buffer.flush()
    elif kind == "warning":
        warnings.warn("watch out", stacklevel=1)
    elif kind == "logging":
        logging.getLogger("of a task").warning("logged")
    elif kind == "surrogate":
        print("caf\udce9")
    elif kind == "child":
        subprocess.run(["sh", "-c", "echo from a child; echo its errors >&2"], check=True)
    elif kind == "c":
        import ctypes

        ctypes.CDLL(None).printf(b"from C")
    elif kind == "descriptor":
        os.write(2, b"to a descriptor")
    elif kind == "much":
        for number in range(10_000):
            print(f"line {number}")
    elif kind == "fails":
        print("before it failed")
        raise ValueError("no good")
    return kind


def outputs(dataman):
    return {record.args: record.output for record in dataman.records()}


KINDS = ["python", "nothing", "bytes", "surrogate", "much", "nothing more"]
# pytest has warnings and logging of this process in its own hands.
OF_PROCESSES = ["warning", "logging", "child", "c", "descriptor"]


@pytest.mark.parametrize("executor", EXECUTORS)
def test_what_tasks_print_is_in_the_ledger_and_not_in_the_terminal(dataman, capfd, executor):
    kinds = KINDS + (OF_PROCESSES if executor in PROCESSES else [])
    run_tasks(dataman, prints, kinds, executor, workers=1, progress=False)
    found = outputs(dataman)

    assert ("", "") == capfd.readouterr()
    assert "to stdout\nto stderr\nunfinished" == found["python"]
    assert "as bytes" == found["bytes"]
    assert "caf\\udce9\n" == found["surrogate"]
    assert [None, None] == [found["nothing"], found["nothing more"]]
    assert found["much"].startswith("[... ")
    assert found["much"].endswith("\nline 9998\nline 9999\n")
    assert TAIL - 100 < len(found["much"]) < TAIL + 100
    if executor in PROCESSES:
        assert "UserWarning: watch out" in found["warning"]
        assert "logged\n" == found["logging"]
        assert "from a child\nits errors\n" == found["child"]
        assert "from C" == found["c"]
        assert "to a descriptor" == found["descriptor"]


IN_THREADS = """
    import logging, warnings
    from futurefarm import DataManager, run_tasks

    def task(kind):
        if kind == "warning":
            warnings.warn("watch out")
        else:
            logging.getLogger("of a task").warning("logged")

    dataman = DataManager("farm")
    warnings.simplefilter("default")
    run_tasks(dataman, task, ["warning", "logging"], "thread", progress=False)
    for record in dataman.records():
        print(record.args, record.output.count("watch out"), record.output.count("logged"), flush=True)
"""


def test_warnings_and_logging_in_threads_are_in_the_ledger(tmp_path):
    with Program(tmp_path, IN_THREADS) as program:
        assert {"warning 2 0", "logging 0 1"} == {program.line(), program.line()}
        program.rest()


@pytest.mark.parametrize("executor", ["loky", "thread"])
def test_output_can_be_let_through(dataman, capfd, executor):
    run_tasks(dataman, prints, ["python"], executor, workers=1, progress=False, capture=False)

    assert {"python": None} == outputs(dataman)
    assert ("to stdout\nunfinished", "to stderr\n") == capfd.readouterr()


def test_a_failure_shows_what_was_printed(dataman):
    with pytest.raises(TasksFailedError) as caught:
        run_tasks(dataman, prints, ["fails"], "serial", progress=False)

    assert "What it printed:\nbefore it failed\n" in caught.value.__notes__


def test_the_streams_are_given_back(dataman, capfd):
    before = sys.stdout, sys.stderr, sys.breakpointhook
    run_tasks(dataman, prints, ["python"], "thread", progress=False)

    assert before == (sys.stdout, sys.stderr, sys.breakpointhook)


inside, outside = threading.Event(), threading.Event()


def prints_inside(_):
    print("inside")
    inside.set()
    outside.wait(30)


def test_only_threads_in_a_task_are_captured(dataman, capfd):
    """The user's other threads, the bar among them, are heard while a task runs."""

    def other():
        inside.wait(30)
        print("outside")
        outside.set()

    thread = threading.Thread(target=other)
    thread.start()
    run_tasks(dataman, prints_inside, [1], "thread", progress=False)
    thread.join()

    assert {1: "inside\n"} == outputs(dataman)
    assert "outside\n" == capfd.readouterr().out


both = threading.Barrier(2)


def prints_beside(name):
    both.wait(30)
    print(name)
    both.wait(30)


def test_two_sweeps_at_once_keep_their_output_apart(tmp_path, capfd):
    before = sys.stdout
    managers = {name: DataManager(name, tmp_path) for name in ("one", "two")}
    options = {"progress": False}
    threads = [
        threading.Thread(target=run_tasks, args=(dataman, prints_beside, [name], "thread"), kwargs=options)
        for name, dataman in managers.items()
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [{name: f"{name}\n"} for name in managers] == [outputs(d) for d in managers.values()]
    assert (before, "") == (sys.stdout, capfd.readouterr().out)


def test_a_sweep_inside_a_task_has_its_output_and_the_task_its_own(dataman, tmp_path):
    inner = DataManager("inner", tmp_path)

    def outer_task(x):
        print("outer")
        run_tasks(inner, print, ["inner"], "serial", progress=False)
        print("again")

    run_tasks(dataman, outer_task, [1], "serial", progress=False)

    assert ({1: "outer\nagain\n"}, {"inner": "inner\n"}) == (outputs(dataman), outputs(inner))


def test_a_redirection_by_the_user_outlasts_the_sweep(dataman):
    """Also one that begins before the streams are given back."""
    mine = io.StringIO()
    streams = Streams()
    before = sys.stdout
    streams.take_over()
    with contextlib.redirect_stdout(mine):
        streams.give_back()
        print("mine")
    print("after")

    assert "mine\n" == mine.getvalue()
    streams.take_over()
    streams.give_back()
    assert before is sys.stdout, "what the redirection put back is recognised"


def test_a_task_that_redirects_or_closes_a_stream_harms_no_other_one(dataman, capfd):
    def task(kind):
        print(kind)
        if kind == "replaces":
            sys.stdout = io.StringIO()
        elif kind == "closes":
            sys.stdout.close()
            sys.stderr.close()
        print("more")

    for executor in EXECUTORS:
        run_tasks(
            dataman,
            task,
            ["replaces", "good", "closes", "as good"],
            executor,
            workers=1,
            progress=False,
            on_error="record",
        )
    records = list(dataman.records())

    assert {"replaces\n", "good\nmore\n", "closes\n", "closes\nmore\n", "as good\nmore\n"} == {
        r.output for r in records
    }
    assert {"ok"} == {r.status for r in records if "good" in r.args}
    print("heard")
    assert "heard\n" == capfd.readouterr().out


def test_a_breakpoint_is_seen(dataman, monkeypatch, capfd):
    """The debugger of a task in this process speaks to the terminal, and so does the rest of the task."""
    monkeypatch.setattr(sys, "breakpointhook", lambda: print("debugger"))

    def task(_):
        print("before")
        breakpoint()
        print("after")

    run_tasks(dataman, task, [1], "serial", progress=False)

    assert "debugger\nafter\n" == capfd.readouterr().out


def closes(fd):
    os.close(fd)
    os.open(os.devnull, os.O_RDONLY)  # takes the number
    return fd


@pytest.mark.parametrize("executor", PROCESSES)
def test_a_closed_descriptor_is_put_back(dataman, executor):
    run_tasks(dataman, closes, [0, 1, 2], executor, workers=1, progress=False)
    run_tasks(dataman, prints, ["child"], executor, workers=1, progress=False)

    assert [0, 1, 2, "child"] == sorted(dataman.values(), key=str)


@pytest.mark.parametrize("executor", PROCESSES)
def test_workers_read_nothing(dataman, executor):
    def task(_):
        return sys.stdin.read(), os.read(0, 10)

    run_tasks(dataman, task, [1], executor, workers=1, progress=False)

    assert [("", b"")] == list(dataman.values())


def test_what_a_dead_worker_was_running_has_left_its_output(tmp_path):
    page = Page(tmp_path, leashed=True)
    page.path.with_suffix(".out").write_bytes(b"of another task\nof this one\n")
    page.begin(3, "", 0.0, len("of another task\n"))

    assert "of this one\n" == output_of(tmp_path, page.number)
    page.end()
    assert output_of(tmp_path, page.number) is None, "nothing runs"
    assert output_of(tmp_path, 7) is None
    page.remove()


@contextlib.contextmanager
def taken(folder):
    """Take over the output of this very process, which has a page for that."""
    page = Page(folder, leashed=True)
    output = OutputFile(page.path)
    output.take_over()
    try:
        yield output, page
    finally:
        output.give_back()
        output.close()
        page.remove()


def test_output_takes_little_room_however_much_is_printed(tmp_path):
    with taken(tmp_path) as (output, page):
        page.begin(0, "", 0.0, output.begin())
        for _ in range(40):
            os.write(1, b"x" * 99_999 + b"\n")
            output.tidy()
        os.write(1, b"the end\n")
        room = os.stat(page.path.with_suffix(".out")).st_blocks * 512
        left, kept, next_begins = output_of(tmp_path, page.number), output.end(0), output.begin()

    assert room < 2 * LIMIT
    assert left == kept == "[... 4000000 bytes before this are left out]\nthe end\n"
    assert 0 == next_begins, "the file is begun anew"


def test_output_that_was_begun_anew_says_so(tmp_path):
    """Where a file system cannot give back the beginning of a file."""
    with taken(tmp_path) as (output, page):
        os.write(1, b"lost\n" * 10)
        os.truncate(page.path.with_suffix(".out"), 0)
        os.write(1, b"half a line\nkept\n")
        kept = output.end(30)

    assert kept.endswith("left out]\nkept\n")


def test_a_full_disk_fails_no_task_that_prints(tmp_path):
    with taken(tmp_path) as (output, _), open("/dev/full", "wb") as full:
        os.dup2(full.fileno(), 1)
        print("lost")
        kept = output.end(0)

    assert kept is None


def test_a_tail_begins_with_a_whole_line():
    assert "all\nof it" == cut(b"all\nof it", 0)
    assert "[... 103 bytes before this are left out]\nwhole\nlines" == cut(b"lf\nwhole\nlines", 100)
    assert "[... 100 bytes before this are left out]\none line\n" == cut(b"one line\n", 100)


WITHOUT_STREAMS = """
    import os
    from pathlib import Path
    from futurefarm.worker.outfile import OutputFile

    for fd in range(3):
        os.close(fd)
    output = OutputFile(Path("0"))
    output.take_over()
    print("kept")
    kept = output.end(output.begin())
    output.give_back()
    Path("found").write_text(kept)
"""


def test_a_process_without_streams_has_some_while_tasks_run(tmp_path):
    with Program(tmp_path, WITHOUT_STREAMS) as program:
        program.rest()

    assert "kept\n" == (tmp_path / "found").read_text()


PRINTS_MEANWHILE = """
    import sys
    from futurefarm.worker.streams import Streams

    class Out:
        def write(self, text):
            streams.give_back()  # as a thread does after the last chunk
            self.others = [bytes(size) for size in range(200)]  # which take the room of what was let go of
            streams.take_over()
            return original.write(text)

        def flush(self):
            original.flush()

    original, sys.stdout = sys.stdout, Out()
    streams = Streams()
    streams.take_over()
    for number in range(100):
        print(number, "is", "said", flush=True)
    streams.give_back()
"""


def test_streams_may_be_given_back_while_somebody_prints(tmp_path):
    """Python's `print` does not hold on to the stream that it writes to."""
    with Program(tmp_path, PRINTS_MEANWHILE) as program:
        said = program.rest()

    assert [f"{number} is said" for number in range(100)] == said.splitlines()
