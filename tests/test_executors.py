"""Every executor passes the same suite; the registry finds them by name."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import pytest

from futurefarm import DataManager, run_tasks
from futurefarm.errors import (
    MissingEngineError,
    UnknownExecutorError,
    UsageError,
    UsageTypeError,
    WorkerDiedError,
)
from futurefarm.executors import (
    available,
    end_idle_workers,
    known,
    override,
    register,
    registry,
    resolve,
    ship,
)
from futurefarm.executors.fleet import Fleet
from futurefarm.executors.loky import LokyProcess
from futurefarm.executors.serial import SerialExecutor
from futurefarm.executors.ship import Ship
from futurefarm.testing import ExecutorSuite, ManualExecutor
from futurefarm.testing.tasks import keep


class TestLoky(ExecutorSuite):
    """On one pool for all tests, as each start of a pool costs half a second; by name: `TestLokyByName`."""

    keeps_workers = True

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def _warm(cls):
        with resolve("loky").factory(2) as cls.executor:
            yield


@pytest.mark.slow
class TestProcess(ExecutorSuite):
    keeps_workers = True

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def _warm(cls):
        with resolve("process").factory(2) as cls.executor:
            yield


@pytest.mark.slow
class TestLokyByName(ExecutorSuite):
    executor = "loky"


@pytest.mark.slow
class TestProcessByName(ExecutorSuite):
    executor = "process"


@pytest.mark.parametrize("name", ["loky", "process"])
def test_pools_by_name_leave_nothing_behind(dataman, name):
    """Made, used and shut down; `conftest` looks for what is left."""
    assert 20 == run_tasks(dataman, keep, range(20), name, workers=2, progress=False).done
    assert 20 == dataman.itemcount()


class TestThread(ExecutorSuite):
    executor = "thread"


class TestSerial(ExecutorSuite):
    executor = "serial"


@pytest.mark.slow
class TestFactory(ExecutorSuite):
    """A factory of the user's own."""

    executor = staticmethod(lambda max_workers: ThreadPoolExecutor(max_workers))


class TestInstance(ExecutorSuite):
    """An executor that the user made and goes on using."""

    @pytest.fixture(autouse=True)
    def _own_pool(self):
        with ThreadPoolExecutor(2) as self.executor:
            yield


@pytest.mark.slow
@pytest.mark.parametrize("name", ["loky", "process"])
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_task_may_start_a_pool_of_its_own(dataman, name, method):
    run_tasks(dataman, absolute_by_pool, [(-1, method)], name, workers=1, progress=False)
    assert [1] == list(dataman.values())


def absolute_by_pool(number: int, method: str) -> int:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context(method)) as pool:
        return pool.submit(abs, number).result()


def run_name(dataman: DataManager, executor: object = "loky") -> str:
    run_tasks(dataman, keep, [1], executor, progress=False)
    (record,) = dataman.records()
    return str(record.host and record.pid)


def test_an_executor_that_was_passed_is_not_shut_down(dataman):
    with ThreadPoolExecutor(1) as executor:
        run_tasks(dataman, keep, [1, 2], executor, progress=False)

        assert 3 == executor.submit(keep, 3).result()


def test_the_four_executors_are_known():
    assert {"loky", "process", "thread", "serial"} <= set(known())
    assert all(available()[name] is None for name in ("loky", "process", "thread", "serial"))


def test_an_unknown_name_lists_the_known_ones(dataman):
    with pytest.raises(UnknownExecutorError, match=r"'lokey'.*loky.*process.*serial.*thread") as caught:
        run_tasks(dataman, keep, [1], "lokey")

    assert ("lokey", known()) == (caught.value.name, caught.value.known)


def test_something_else_than_an_executor_is_refused(dataman):
    with pytest.raises(UsageTypeError, match="must be a name"):
        run_tasks(dataman, keep, [1], 42)


def test_a_registered_executor_has_a_name(dataman, monkeypatch):
    monkeypatch.setattr(registry, "_registry", dict(registry._registry))
    register("mine", lambda max_workers: SerialExecutor())
    run_tasks(dataman, keep, [1], "mine", progress=False)

    assert [1] == list(dataman.values())


def test_a_name_is_given_once():
    with pytest.raises(UsageError, match="taken"):
        register("loky", SerialExecutor)
    with pytest.raises(UsageTypeError, match="callable"):
        register("nothing", 3)


def install_plugin(folder: Path, name: str, target: str) -> None:
    """Install a distribution that offers an executor, as pip would."""
    info = folder / f"{name}_plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[futurefarm.executors]\n{name} = {target}\n")


def test_a_package_can_offer_an_executor(dataman, tmp_path, monkeypatch):
    install_plugin(tmp_path, "quick", "futurefarm.executors.serial:make")
    monkeypatch.syspath_prepend(str(tmp_path))
    run_tasks(dataman, keep, [1], "quick", progress=False)

    assert "quick" in known()
    assert [1] == list(dataman.values())


def test_a_missing_engine_says_what_to_install(dataman, tmp_path, monkeypatch):
    install_plugin(tmp_path, "cluster", "package_that_is_not_installed:make")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(MissingEngineError, match="pip install package_that_is_not_installed"):
        run_tasks(dataman, keep, [1], "cluster")

    assert "pip install package_that_is_not_installed" == available()["cluster"]
    assert 0 == dataman.itemcount()


def test_override_wins_over_what_the_code_asks_for():
    with override("serial"):
        assert "serial" == resolve("loky").name
        with override("thread"):
            assert "thread" == resolve(SerialExecutor()).name
        assert "serial" == resolve("loky").name

    assert "loky" == resolve("loky").name


def test_override_checks_the_name_at_once():
    with pytest.raises(UnknownExecutorError), override("lokey"):
        pytest.fail("the block was entered")


def test_the_environment_chooses_the_executor(monkeypatch):
    monkeypatch.setenv("FUTUREFARM_EXECUTOR", "thread")

    assert "thread" == resolve("loky").name


@pytest.mark.slow
def test_pytest_chooses_the_executor_of_the_tested_code(tmp_path):
    test = """
        import os
        from futurefarm import DataManager, run_tasks

        def test_runs_here(tmp_path):
            dataman = DataManager("x", tmp_path)
            run_tasks(dataman, lambda x: os.getpid(), [1, 2], "loky")
            assert [os.getpid()] * 2 == list(dataman.values())
    """
    (tmp_path / "test_user.py").write_text(textwrap.dedent(test))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_user.py"]
    with_option = subprocess.run(
        [*command, "--futurefarm-executor", "serial"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert "1 passed" in with_option.stdout, with_option.stdout + with_option.stderr


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork here")
def test_forked_workers_do_not_use_what_they_inherit(dataman):
    """The parent has committed before the pool forks, so the children inherit an open session."""

    def items():
        yield threading.Lock()  # refused: the parent commits its failure
        yield from range(20)

    made = []

    def fork_pool(max_workers):
        made.append(ProcessPoolExecutor(max_workers, mp_context=multiprocessing.get_context("fork")))
        return made[-1]

    summary = run_tasks(dataman, keep, items(), fork_pool, workers=2, on_error="record", progress=False)

    assert (20, 1) == (summary.done, summary.failed)
    assert list(range(20)) == sorted(dataman.values())


@pytest.fixture(params=["loky", pytest.param("process", marks=pytest.mark.slow)])
def fleet(request):
    with resolve(request.param).factory(2) as fleet:
        yield fleet


@pytest.mark.parametrize(
    ("die", "told"),
    [
        ((os._exit, 3), (3, "ended by itself with exit code 3")),
        ((signal.raise_signal, signal.SIGKILL), (-9, "killed by SIGKILL (out of memory?)")),
        ((signal.raise_signal, signal.SIGSEGV), (-11, "killed by SIGSEGV")),
    ],
)
def test_a_worker_that_dies_ends_one_call_and_says_how(fleet, die, told):
    other = fleet.submit(os.getpid)
    lost = fleet.submit(*die)
    error = lost.exception(30)

    assert isinstance(error, WorkerDiedError)
    assert told[0] == error.exitcode
    assert told[1] in str(error)
    assert str(error.pid) in str(error)
    assert error.pid not in (os.getpid(), other.result(30))
    assert [0, 1, 2, 3] == [fleet.submit(abs, -x).result(30) for x in range(4)], "it was replaced"


def test_a_worker_that_dies_while_it_is_idle_costs_no_call(fleet):
    pid = fleet.submit(os.getpid).result(30)
    os.kill(pid, signal.SIGKILL)
    while pid in {child.pid for child in multiprocessing.active_children()}:
        threading.Event().wait(0.001)

    assert [pid] != [fleet.submit(os.getpid).result(30) for _ in range(4)]


def test_no_call_stands_behind_a_slow_one(fleet, tmp_path):
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    slow = fleet.submit(gate.read_text)
    quick = [fleet.submit(abs, -x).result(30) for x in range(20)]

    assert list(range(20)) == quick
    gate.write_text("open")
    assert "open" == slow.result(30)


def test_a_call_that_was_queued_where_no_worker_could_be_started_is_run_once(dataman, monkeypatch):
    """The executor has taken it, and raises all the same: nobody may run it there later."""
    start, failures = LokyProcess._ensure_executor_running, [OSError("no more processes")]

    def start_and_fail(self):
        start(self)
        if failures:
            raise failures.pop()

    monkeypatch.setattr(LokyProcess, "_ensure_executor_running", start_and_fail)
    summary = run_tasks(dataman, keep, range(4), "loky", workers=1, progress=False)

    assert (4, 0) == (summary.done, summary.failed)
    assert list(range(4)) == sorted(dataman.values())
    assert [(number, 1, "ok") for number in range(4)] == sorted(
        (record.number, record.attempt, record.status) for record in dataman.records()
    )


def test_a_death_that_the_executor_does_not_notice_is_noticed(monkeypatch):
    """As of a pool that waits for the rest of a message from a worker that is dead."""
    monkeypatch.setattr("futurefarm.executors.ship.UNNOTICED", 0.0)

    class Process:
        pid, exitcode, alive = 42, -9, True

        def is_alive(self):
            return self.alive

        def join(self, timeout):
            pass

    class Deaf(ManualExecutor):
        def __init__(self):
            super().__init__()
            self._processes = {42: Process()}

    made = []
    fleet = Fleet([Ship(lambda: made.append(Deaf()) or made[-1])])
    lost, next_one = fleet.submit(abs, -1), fleet.submit(abs, -2)
    fleet.check()
    assert not lost.done()

    made[0]._processes[42].alive = False
    while not lost.done():
        fleet.check()

    assert (42, -9) == (lost.exception().pid, lost.exception().exitcode)
    made[1].step()
    assert 2 == next_one.result(0)
    made[0].step()  # an answer that comes after all is not heard
    assert lost.exception() is not None


def a_quick_fleet(made):
    """A fleet with one worker, whose calls have all been quick."""
    fleet = Fleet([Ship(lambda: made.append(ManualExecutor()) or made[-1])])
    for _ in range(ship.SEEN):
        fleet.submit(abs, -1)
        made[0].step()
    return fleet


def test_a_quick_worker_has_its_next_call_before_it_needs_it():
    made = []
    fleet = a_quick_fleet(made)
    futures = [fleet.submit(abs, -number) for number in (1, 2, 3)]
    assert 2 == made[0].pending
    made[0].step()
    assert 2 == made[0].pending
    made[0].step(2)

    assert [1, 2, 3] == [future.result(0) for future in futures]


def test_no_call_waits_behind_one_that_may_be_slow(monkeypatch):
    monkeypatch.setattr(ship, "QUICK", 0.0)
    made = []
    fleet = a_quick_fleet(made)
    futures = [fleet.submit(abs, -number) for number in (1, 2)]
    assert 1 == made[0].pending
    made[0].step(2)

    assert [1, 2] == [future.result(0) for future in futures]


def test_the_death_of_a_quick_worker_ends_its_next_call_too():
    made = []
    fleet = a_quick_fleet(made)
    lost = [fleet.submit(abs, -number) for number in (1, 2)]
    waiting = [fleet.submit(abs, -number) for number in (3, 4)]
    made[0].break_down(BrokenExecutor())

    assert [WorkerDiedError] * 2 == [type(future.exception(0)) for future in lost]
    assert 1 == made[1].pending, "the new one has yet to show that it is quick"
    made[1].step(2)
    assert [3, 4] == [future.result(0) for future in waiting]


def leaves_a_thread(x):
    threading.Thread(target=threading.Event().wait).start()  # not a daemon: its process waits for it
    return x


@pytest.mark.parametrize("name", ["loky", "process"])
def test_a_process_that_does_not_leave_is_ended(dataman, monkeypatch, name):
    monkeypatch.setattr("futurefarm.executors.ship.LEAVE", 0.2)
    run_tasks(dataman, leaves_a_thread, [1, 2], name, workers=1, progress=False)
    end_idle_workers()

    assert [1, 2] == list(dataman.values())


@pytest.mark.parametrize("cancel", [False, True])
def test_a_fleet_that_is_shut_down_finishes_or_cancels_what_waits(cancel):
    made = []
    fleet = Fleet([Ship(lambda: made.append(ManualExecutor()) or made[-1])])
    running, waiting = fleet.submit(abs, -1), fleet.submit(abs, -2)
    closing = threading.Thread(target=fleet.shutdown, kwargs={"cancel_futures": cancel})
    closing.start()
    made[0].step()
    if not cancel:
        made[0].step()
    closing.join(30)

    assert not closing.is_alive()
    assert 1 == running.result(0)
    assert waiting.cancelled() if cancel else 2 == waiting.result(0)
    with pytest.raises(RuntimeError, match="after shutdown"):
        fleet.submit(abs, -3)
