"""What runs in a worker: one chunk in, one small receipt out."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from futurefarm import DataManager, run_tasks
from futurefarm.errors import StorageFullError, UnreadableValueError
from futurefarm.status import read, this_process
from futurefarm.task import RECEIPT_SIZE, Chunk, Job, Receipt, Task, dumps_function, dumps_item
from futurefarm.testing.tasks import misbehave, square
from futurefarm.worker import TaskInterrupted, batch, described, interrupt_running, leave, run_chunk
from futurefarm.worker.interrupt import interruptible
from futurefarm.worker.patience import Patience

from .program import Program


def make_job(
    dataman: DataManager, function, directory_id: str | None = None, full_wait: float = 60.0
) -> bytes:
    directory = dataman.directory
    directory.workers("sweep").mkdir(exist_ok=True)
    job = Job(
        sweep="sweep",
        record="{}",
        function=dumps_function(function, (), {}, (Exception,)),
        directory=dataman.basepath,
        directory_id=directory.id if directory_id is None else directory_id,
        stop_seen=None,
        timeout=None,
        parent=this_process(),
        capture=True,
        full_wait=full_wait,
    )
    return pickle.dumps(tuple(job))


def make_tasks(items) -> list[Task]:
    return [Task(number, bytes(16), number, 1, dumps_item(item)) for number, item in enumerate(items)]


@pytest.fixture(autouse=True)
def _leave():
    yield
    leave("sweep")


def run(dataman, function, items, **options) -> bytes:
    return run_chunk(Chunk.dumps(make_job(dataman, function, **options), make_tasks(items)))


def test_a_receipt_tells_what_ended_and_where_it_is(dataman):
    receipt = Receipt.loads(run(dataman, square, [1, 2, 3]))

    assert (3, (), ()) == (receipt.ended, receipt.failed, receipt.outcomes)
    assert Path(dataman.basepath, receipt.session).exists()
    assert 3 == dataman.itemcount()


def test_a_receipt_fits_into_one_piece_of_a_pipe_however_many_tasks_fail(dataman):
    data = run(dataman, misbehave, ["value"] * 1000)
    receipt = Receipt.loads(data)

    assert len(data) <= RECEIPT_SIZE
    assert len(receipt.failed) == receipt.ended < 1000, "the rest goes back to the scheduler"


def test_a_receipt_of_many_good_tasks_is_as_small(dataman):
    data = run(dataman, square, range(4096))

    assert len(data) <= RECEIPT_SIZE
    assert 4096 == Receipt.loads(data).ended


def test_a_worker_that_does_not_see_the_directory_sends_what_it_has(dataman):
    receipt = Receipt.loads(run(dataman, square, [1, 2], directory_id="of another machine"))

    assert [(1, 1), (2, 4)] == [pickle.loads(outcome.value) for outcome in receipt.outcomes]
    assert (None, 0) == (receipt.session, dataman.itemcount())


class Elsewhere(Executor):
    """Runs each call in a process that sees other files: a mount of nothing hides the directory."""

    def __init__(self, hidden: str) -> None:
        self.hidden = hidden

    def submit(self, fn, /, *args, **kwargs):
        future: Future = Future()
        source = (
            "import pickle, sys; fn, args = pickle.load(sys.stdin.buffer)\n"
            "sys.stdout.buffer.write(pickle.dumps(fn(*args)))"
        )
        command = 'mount -t tmpfs none "$0" && exec "$@"'
        result = subprocess.run(
            ["unshare", "-rm", "sh", "-c", command, self.hidden, sys.executable, "-c", source],
            input=pickle.dumps((fn, args)),
            capture_output=True,
            check=False,
        )
        if result.returncode:
            future.set_exception(RuntimeError(result.stderr.decode()))
        else:
            future.set_result(pickle.loads(result.stdout))
        return future


def can_hide(path: Path) -> bool:
    command = ["unshare", "-rm", "sh", "-c", 'mount -t tmpfs none "$0"', str(path)]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


@pytest.mark.slow
def test_the_parent_commits_for_workers_that_see_other_files(dataman, tmp_path):
    if not can_hide(tmp_path):
        pytest.skip("this system does not let a process have mounts of its own")
    summary = run_tasks(dataman, square, range(2), Elsewhere(dataman.basepath), workers=1, progress=False)

    assert 2 == summary.done
    assert [(0, 0), (1, 1)] == sorted(dataman.values())
    assert {os.getpid()} != {record.pid for record in dataman.records()}


def test_a_long_task_is_committed_while_the_next_one_runs(dataman, monkeypatch):
    monkeypatch.setattr(batch, "WORTH", 0.0)
    monkeypatch.setattr(batch, "LONG", 0.0)

    def waits_for_the_one_before(number):
        deadline = time.monotonic() + 30
        while DataManager.at(dataman.basepath).itemcount() < number and time.monotonic() < deadline:
            time.sleep(0.001)
        return time.monotonic() < deadline

    run(dataman, waits_for_the_one_before, range(3))
    assert [True] * 3 == list(dataman.values())


def test_a_short_task_is_committed_with_others(dataman):
    run(dataman, DataManager.itemcount, [dataman, dataman])
    assert [0, 0] == list(dataman.values())


def test_a_slow_task_does_not_hold_back_what_finished_before_it(dataman):
    """Its chunk is not over, and yet the others are on disk."""
    slow, quick = threading.Event(), threading.Event()

    def task(x):
        if x == 2:
            quick.set()
            slow.wait(30)
        return x

    job = pickle.loads(make_job(dataman, square))
    from futurefarm.worker import join

    join("sweep", (task, (), {}, (Exception,), {}))
    thread = threading.Thread(target=run_chunk, args=(Chunk.dumps(pickle.dumps(job), make_tasks(range(3))),))
    thread.start()
    quick.wait(30)
    deadline = threading.Event()
    while dataman.itemcount() < 2 and not deadline.wait(0.01):
        assert thread.is_alive()
    slow.set()
    thread.join()

    assert 3 == dataman.itemcount()


def test_a_child_that_a_task_forks_does_not_answer_for_it(dataman):
    def forks(x):
        return "child" if os.fork() == 0 else "parent"

    run_tasks(dataman, forks, [1, 2], "loky", workers=1, progress=False)

    assert ["parent", "parent"] == list(dataman.values())


def test_a_task_may_change_the_working_directory(dataman, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    run_tasks(DataManager("relative"), os.chdir, [str(elsewhere)] * 2, "serial", progress=False)

    assert 2 == DataManager("relative", tmp_path).itemcount()


def test_only_the_users_code_is_interrupted():
    waiting, caught = threading.Event(), []

    def in_task():
        try:
            with interruptible():
                waiting.set()
                while True:
                    threading.Event().wait(0.001)
        except TaskInterrupted:
            caught.append("task")

    thread = threading.Thread(target=in_task)
    thread.start()
    waiting.wait()
    interrupt_running()
    thread.join()
    interrupt_running()  # nobody is in a task any more

    assert ["task"] == caught


def test_an_interrupt_reaches_the_calling_thread_last():
    with pytest.raises(TaskInterrupted), interruptible():
        interrupt_running()


SERVANTS = """
    import os, subprocess, threading
    from multiprocessing import forkserver, get_context, resource_tracker
    from loky.backend import resource_tracker as lokys
    from futurefarm.status import process_start
    from futurefarm.worker import TaskInterrupted, interrupt_running
    from futurefarm.worker.interrupt import interruptible

    def task():
        global child
        try:
            with interruptible():
                process = get_context("forkserver").Process(target=int)
                process.start()
                process.join()
                lokys.ensure_running()
                child = subprocess.Popen(["sleep", "300"])
                begun.set()
                child.wait()
        except TaskInterrupted:
            child.wait()

    def end(servant, pid, pipe):  # lets it leave as at the end of a program
        os.close(getattr(servant, pipe))
        return os.waitpid(getattr(servant, pid), 0)[1]

    if __name__ == "__main__":
        begun = threading.Event()
        thread = threading.Thread(target=task)
        thread.start()
        begun.wait()
        interrupt_running()
        thread.join()
        print(process_start(child.pid))
        print(
            end(forkserver._forkserver, "_forkserver_pid", "_forkserver_alive_fd"),
            end(resource_tracker._resource_tracker, "_pid", "_fd"),
            end(lokys._resource_tracker, "_pid", "_fd"),
            flush=True,
        )
        os._exit(0)
"""


def test_an_interrupt_spares_what_other_tasks_need_to_start_processes(tmp_path):
    with Program(tmp_path, SERVANTS) as program:
        assert "None\n0 0 0\n" == program.rest()


POINTS = """
    from dataclasses import dataclass
    import numpy as np
    from futurefarm import DataManager, run_tasks

    @dataclass
    class Point:
        x: float

        def norm(self):
            return float(np.abs(self.x))

    def make(x):
        return Point(x)

    if __name__ == "__main__":
        dataman = DataManager("points")
        run_tasks(dataman, make, [-1.0, 2.0], "loky", workers=2, progress=False)
        print(sorted(point.norm() for point in dataman.values()), flush=True)
        print(all(isinstance(point, Point) for point in dataman.values()), flush=True)
"""


@pytest.mark.slow
def test_results_of_a_class_of_the_script_come_back_as_that_class(tmp_path):
    with Program(tmp_path, POINTS) as program:
        assert "[1.0, 2.0]" == program.line()
        assert "True" == program.line()
        program.rest()

    assert [1.0, 2.0] == sorted(point.norm() for point in DataManager("points", tmp_path).values())


together = threading.Barrier(6)


def meet(x):
    together.wait(30)
    return x


def test_many_sweeps_run_at_once_in_one_process(tmp_path):
    """None takes the crew of another one for one that is over."""
    managers = [DataManager(f"farm{n}", tmp_path) for n in range(6)]
    options = {"workers": 1, "progress": False}
    threads = [
        threading.Thread(target=run_tasks, args=(dataman, meet, range(3), "thread"), kwargs=options)
        for dataman in managers
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [[0, 1, 2]] * 6 == [sorted(dataman.values()) for dataman in managers]


# -- a full disk


class Clock:
    """Time that passes only while somebody waits."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class Full:
    """A disk that takes something after so many tries."""

    def __init__(self, tries: float) -> None:
        self.tries = tries

    def __call__(self) -> str:
        self.tries -= 1
        if self.tries > 0:
            raise StorageFullError("full")
        return "stored"


def make_patience(seconds: float, over=lambda: False) -> tuple[Patience, Clock]:
    clock = Clock()
    return Patience(seconds, over, clock=clock, sleep=clock.sleep), clock


def test_a_full_disk_is_waited_for_and_both_ends_of_the_wait_are_told():
    patience, clock = make_patience(60.0)
    told: list[bool] = []

    assert "stored" == patience.store(Full(1), told.append)
    assert ([], 0.0) == (told, clock.now), "nothing is told where nothing waits"
    assert "stored" == patience.store(Full(5), told.append)
    assert [True, False] == told
    assert 0 < clock.now < 2


def test_a_full_disk_is_waited_for_only_so_long():
    patience, clock = make_patience(60.0)
    full = Full(float("inf"))
    with pytest.raises(StorageFullError):
        patience.store(full, lambda waiting: None)

    assert 60.0 == pytest.approx(clock.now)


def test_the_wait_for_a_full_disk_ends_when_the_sweep_is_stopped():
    patience, clock = make_patience(60.0, over=lambda: clock.now > 3)
    with pytest.raises(StorageFullError):
        patience.store(Full(float("inf")), lambda waiting: None)

    assert 3 < clock.now < 3.1


def zeros(size: int) -> bytes:
    return bytes(size)


def start(dataman: DataManager, job: bytes, items) -> tuple[threading.Thread, list[Receipt]]:
    receipts: list[Receipt] = []

    def work() -> None:
        receipts.append(Receipt.loads(run_chunk(Chunk.dumps(job, make_tasks(items)))))

    thread = threading.Thread(target=work)
    thread.start()
    return thread, receipts


def until(condition) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_worker_holds_what_it_has_and_begins_nothing_new_until_there_is_space(disk):
    dataman = DataManager("farm", disk.path)
    job = make_job(dataman, zeros)
    assert 1 == Receipt.loads(run_chunk(Chunk.dumps(job, make_tasks([1])))).ended
    disk.fill(free=100_000)
    thread, receipts = start(dataman, job, [300_000, 2])
    until(lambda: any(worker.waiting for worker in read(dataman.directory.workers("sweep"))))
    assert [1] == [len(value) for value in dataman.values()]
    disk.empty()
    thread.join()

    assert (2, 0, ()) == (receipts[0].ended, receipts[0].unstored, receipts[0].outcomes)
    assert [1, 2, 300_000] == sorted(len(value) for value in dataman.values())
    assert [0, 0] == [worker.waiting for worker in read(dataman.directory.workers("sweep"))]


def test_a_worker_waits_for_space_once(dataman, monkeypatch):
    waits = []

    class Full:
        def __init__(self, *_):
            waits.append(self)

        def store(self, *_):
            raise StorageFullError("full")

    monkeypatch.setattr(batch, "COMMIT_AFTER", 0.0)
    monkeypatch.setattr(batch, "Patience", Full)
    receipt = Receipt.loads(run(dataman, square, [1, 2]))

    assert (0, 1, 1) == (receipt.ended, receipt.unstored, len(waits))


def test_a_worker_that_waited_in_vain_says_what_is_not_stored(disk):
    dataman = DataManager("farm", disk.path)
    job = make_job(dataman, zeros, full_wait=0.2)
    disk.fill(free=300_000)
    data = run_chunk(Chunk.dumps(job, make_tasks([1, 600_000])))
    receipt = Receipt.loads(data)

    assert (0, 2, ()) == (receipt.ended, receipt.unstored, receipt.outcomes)
    assert len(data) <= RECEIPT_SIZE
    assert 0 == dataman.itemcount()


PROCESSES = ["loky", "process"]


def unsettles(kind, folder):
    """Leave the process in a state in which the next task should not find it."""
    match kind:
        case "directory":
            os.chdir(folder)
        case "directory that is gone":
            gone = os.path.join(folder, f"gone-{os.getpid()}")
            os.mkdir(gone)
            os.chdir(gone)
            os.rmdir(gone)
        case "mode of new files":
            os.umask(0o777)
        case "depth":
            sys.setrecursionlimit(60)
        case "tracing":
            sys.settrace(no_tracing)
            threading.settrace(no_tracing)
            sys.setprofile(no_tracing)
        case "streams":
            sys.stdout = sys.stderr = sys.stdin = None
    return kind


def no_tracing(*_):
    raise RuntimeError("our own code is not to be traced")


def surroundings():
    umask = os.umask(0o022)
    os.umask(umask)
    tracing = sys.gettrace(), sys.getprofile(), threading.gettrace()
    return os.getcwd(), umask, sys.getrecursionlimit(), tracing, sys.stdout is not None


def looks_around(kind, folder):
    before = surroundings()
    unsettles(kind, folder)
    return before


KINDS = ["directory", "directory that is gone", "mode of new files", "depth", "tracing", "streams", "none"]


@pytest.mark.parametrize("executor", PROCESSES)
def test_each_task_finds_its_process_as_the_first_one_did(dataman, tmp_path, executor):
    # The one that sets a tracing function that raises fails by it; what counts is what comes after.
    items = [(kind, str(tmp_path)) for kind in KINDS]
    run_tasks(dataman, looks_around, items, executor, workers=1, on_error="record", progress=False)
    found = list(dataman.values())

    assert len(KINDS) - 1 <= len(found)
    assert 1 == len({repr(each) for each in found}), found
    assert os.getcwd() == found[0][0]


def misuses_processes(kind):
    match kind:
        case "fork, and the child returns":
            return "child" if os.fork() == 0 else kind
        case "fork, and the child raises":
            if os.fork() == 0:
                raise LookupError("child")
        case "fork, and the child ends":
            if os.fork() == 0:
                os._exit(3)
            os.wait()
        case "pool":
            with multiprocessing.get_context("fork").Pool(1) as pool:
                assert [3] == pool.map(abs, [-3])
        case "executor":
            with ProcessPoolExecutor(1) as inner:
                assert 3 == inner.submit(abs, -3).result()
        case "loky":
            from loky import ProcessPoolExecutor as Loky

            inner = Loky(1)
            assert 3 == inner.submit(abs, -3).result()
            inner.shutdown()
        case "session":
            with suppress(PermissionError):
                os.setsid()
    return kind


MISUSES = [
    "fork, and the child returns",
    "fork, and the child raises",
    "fork, and the child ends",
    "pool",
    "executor",
    "loky",
    "session",
]


@pytest.mark.slow
@pytest.mark.parametrize("executor", PROCESSES)
def test_a_task_may_use_processes_of_its_own(dataman, executor):
    run_tasks(dataman, misuses_processes, MISUSES, executor, workers=1, progress=False)

    assert MISUSES == list(dataman.values())


def dies(kind):
    print(f"it will be: {kind}", flush=True)
    match kind:
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "segmentation fault":
            ctypes.string_at(0)
        case "exit":
            os._exit(7)
        case "closed descriptors":
            os.closerange(0, 1000)
    return kind


DEATHS = {
    "kill": "SIGKILL",
    "segmentation fault": "SIGSEGV",
    "exit": "exit code 7",
    "closed descriptors": "exit code 1",
}


@pytest.mark.slow
@pytest.mark.parametrize("executor", PROCESSES)
def test_a_task_that_ends_its_worker_leaves_its_output(dataman, executor):
    items = [x for pair in zip(DEATHS, range(len(DEATHS))) for x in pair]
    run_tasks(dataman, dies, items, executor, workers=2, on_error="record", progress=False)
    records = {record.args: record for record in dataman.failures()}

    assert list(range(len(DEATHS))) == sorted(dataman.values())
    for kind, text in DEATHS.items():
        assert ("crashed", True) == (records[kind].status, text in records[kind].error)
        assert records[kind].output.startswith(f"it will be: {kind}\n")
    assert "in dies" in records["segmentation fault"].output, "the stack of the segmentation fault"
    assert "closed the descriptors" in records["closed descriptors"].output


class LoadedBadly:
    def __reduce__(self):
        return misuse_on_loading, ()


def misuse_on_loading():
    raise SystemExit("when it is loaded")


@pytest.mark.usefixtures("by_value")
def test_a_result_that_cannot_be_loaded_is_stored_and_harms_no_other_one(dataman):
    """Nobody loads a result but who asks for it."""
    run_tasks(dataman, returns, [1, LoadedBadly, 2], "loky", workers=1, progress=False)
    keys = {record.number: str(record.key) for record in dataman.records()}

    assert [1, 2] == [dataman[keys[0]], dataman[keys[2]]]
    with pytest.raises(UnreadableValueError, match="when it is loaded"):
        dataman[keys[1]]


def returns(item):
    return item() if isinstance(item, type) else item


class TaskName:
    """A task class whose name for the bar raises."""

    @property
    def taskname(self):
        raise LookupError("no name")

    def __call__(self, x):
        return x


def test_a_task_class_whose_name_raises_fails_its_tasks(dataman):
    run_tasks(dataman, TaskName, [1, 2], "serial", on_error="record", progress=False)

    assert {"LookupError: no name"} == {failure.error for failure in dataman.failures()}


def fails_with(error):
    raise error


def test_the_ends_of_a_long_text_are_kept(dataman):
    text = f"begin{'x' * 3_000_000}end"
    run_tasks(dataman, fails_with, [ValueError(text)], "serial", on_error="record", progress=False)
    (failure,) = dataman.failures()

    assert failure.error.startswith("ValueError: begin")
    assert failure.error.endswith("end")
    assert failure.traceback.startswith("Traceback (most recent call last):\n")
    assert "characters are left out" in failure.traceback
    assert len(failure.error) < 20_000
    assert len(failure.traceback) < 200_000


def test_a_group_of_groups_without_end_is_described():
    error: Exception = ValueError("inmost")
    for _ in range(5000):
        error = ExceptionGroup("outer", [error])

    text, trace = described(error)

    assert "ExceptionGroup: outer (1 sub-exception)" == text
    assert trace
