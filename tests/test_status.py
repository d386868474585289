"""A status page tells what a worker runs, also after the worker is gone."""

from __future__ import annotations

import os
import platform
import threading

import pytest

from futurefarm.status import Page, clear, process_start, read, this_process

from .companion import Companion


@pytest.fixture
def page(tmp_path):
    page = Page(tmp_path, leashed=True)
    yield page
    page.remove()


def test_a_new_page_says_who_and_that_nothing_runs(page, tmp_path):
    (worker,) = read(tmp_path)

    assert (0, None, None, "", True) == (
        worker.number,
        worker.task,
        worker.fraction,
        worker.text,
        worker.leashed,
    )
    assert this_process() == (worker.host, worker.pid, worker.started)
    assert (True, True) == (worker.local, worker.alive)


def test_a_page_follows_a_task(page, tmp_path):
    seen = []

    def look():
        (worker,) = read(tmp_path)
        seen.append((worker.task, worker.fraction, worker.text))

    page.begin(5, "f(5)", 100.0)
    look()
    page.done(0.25)
    look()
    page.say("épisode 3")
    look()
    page.end()
    look()

    assert [(5, None, "f(5)"), (5, 0.25, "f(5)"), (5, 0.25, "épisode 3")] == seen[:3]
    assert (None, None) == seen[3][:2]


def test_a_page_tells_since_when(page, tmp_path):
    page.begin(0, "", 123.5)

    assert (0, 123.5) == (read(tmp_path)[0].task, read(tmp_path)[0].since)


def test_a_long_text_is_cut_and_stays_readable(page, tmp_path):
    page.say("é" * 1000)
    (worker,) = read(tmp_path)

    assert 100 < len(worker.text) < 200
    assert {"é"} == set(worker.text.rstrip("\ufffd"))


def test_workers_are_numbered_from_zero_and_take_free_numbers(tmp_path):
    pages = [Page(tmp_path, leashed=False) for _ in range(3)]
    pages[1].remove()
    pages[1] = Page(tmp_path, leashed=False)

    assert [0, 1, 2] == [page.number for page in pages] == [worker.number for worker in read(tmp_path)]
    for page in pages:
        page.remove()
    assert [] == read(tmp_path)


def test_workers_that_start_at_once_take_different_numbers(tmp_path):
    barrier = threading.Barrier(8)
    pages = []

    def start():
        barrier.wait()
        pages.append(Page(tmp_path, leashed=False))

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert list(range(8)) == sorted(page.number for page in pages)
    for page in pages:
        page.remove()


def test_a_page_outlives_a_killed_worker_and_says_what_it_ran(tmp_path):
    program = """
        import sys
        from pathlib import Path
        from futurefarm.status import Page

        page = Page(Path(sys.argv[1]), leashed=False)
        page.begin(42, "f(42)", 1.0)
        page.done(0.5)
        print("running", flush=True)
        input()
    """
    with Companion(program, tmp_path) as worker:
        worker.hear()
        alive = [page.alive for page in read(tmp_path)]
        worker.process.kill()
        worker.process.wait()
        (after,) = read(tmp_path)

        assert ([True], False) == (alive, after.alive)
        assert (42, 0.5, "f(42)", worker.process.pid) == (after.task, after.fraction, after.text, after.pid)


def test_a_worker_of_another_host_counts_as_alive(page, tmp_path):
    (worker,) = read(tmp_path)
    far = worker._replace(host=platform.node() + "2", pid=2**22 + 1)

    assert (False, True) == (far.local, far.alive)
    assert not worker._replace(started=worker.started + 1).alive


def test_pages_half_made_are_left_out(page, tmp_path):
    (tmp_path / "1").write_bytes(b"\0" * 100)
    (tmp_path / "2").write_bytes(b"")
    (tmp_path / "notes.txt").write_bytes(b"\0" * 512)

    assert [0] == [worker.number for worker in read(tmp_path)]


def test_pages_are_cleared(tmp_path):
    page = Page(tmp_path, leashed=False)
    clear(tmp_path)

    assert [] == read(tmp_path)
    page.remove()


def test_a_folder_that_is_gone_holds_no_pages(tmp_path):
    assert [] == read(tmp_path / "gone")
    clear(tmp_path / "gone")


def test_a_process_is_known_by_its_start_until_it_ends():
    with Companion("input()") as child:
        pid = child.process.pid
        start = process_start(pid)

        assert start is not None
        assert start == process_start(pid)
        child.say()
        child.rest()
        assert process_start(pid) is None
    assert process_start(os.getpid()) is not None


@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="needs /proc")
def test_a_zombie_has_ended():
    child = os.posix_spawn("/bin/true", ["true"], {})
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)

    assert process_start(child) is None
    os.waitpid(child, 0)
