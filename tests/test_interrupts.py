"""A sweep that is stopped, interrupted or killed loses nothing and leaves nothing."""

from __future__ import annotations

import os
import select
import signal
import textwrap
import time
from pathlib import Path

import psutil
import pytest

from futurefarm import DataManager, run_tasks
from futurefarm.testing.tasks import keep

from .program import Gate, Program

SOURCE = """
    import os, sys
    from futurefarm import DataManager, StopFlag, run_tasks

    class Loud(StopFlag):
        def set(self, *args, **options):
            super().set(*args, **options)
            os.write(1, b"stopping\\n")  # print cannot be used in a handler that interrupts a handler

    def task(number, gate):
        if gate:
            with open(gate) as file:
                file.read()
        return number

    if __name__ == "__main__":
        executor, workers, *gates = sys.argv[1:]
        args = [(n, "") for n in range(4)] + [(4 + n, gate) for n, gate in enumerate(gates)]
        args += [(n, "") for n in range(len(args), 40)]
        dataman = DataManager("swept")
        try:
            summary = run_tasks(
                dataman, task, args, executor, workers=int(workers), progress=False, stop=Loud()
            )
            print(summary.done, summary.left, summary.stopped, flush=True)
        except KeyboardInterrupt:
            print("interrupted", flush=True)
        print(dataman.itemcount(), flush=True)
"""

PROCESSES = ["loky", pytest.param("process", marks=pytest.mark.slow)]
EXECUTORS = [*PROCESSES, "thread", "serial"]


def start(folder: Path, executor: str) -> tuple[Program, list[Gate]]:
    """Start the program and wait until all its workers stand at a gate."""
    number = 1 if executor == "serial" else 2
    gates = [Gate(folder / f"gate{n}") for n in range(number)]
    program = Program(folder, SOURCE, executor, str(number), *(gate.path for gate in gates), gates=gates)
    for gate in gates:
        gate.reached()
    return program, gates


def workers_of(program: Program) -> list[psutil.Process]:
    return psutil.Process(program.process.pid).children(recursive=True)


def wait_gone(processes: list[psutil.Process], seconds: float) -> list[psutil.Process]:
    _, alive = psutil.wait_procs(processes, timeout=seconds)
    return [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.parametrize("executor", EXECUTORS)
def test_ctrl_c_once_lets_running_tasks_finish(tmp_path, executor):
    program, gates = start(tmp_path, executor)
    with program:
        workers = workers_of(program)
        program.interrupt()
        assert "stopping" == program.line()
        for gate in gates:
            gate.open()
        done, left, reason = program.line().split(maxsplit=2)
        assert "Ctrl-C" == reason
        assert int(done) == int(program.line()) == 40 - int(left)
        assert 4 + len(gates) <= int(done) < 40
        program.rest()
        assert [] == wait_gone(workers, 5)

    dataman = DataManager("swept", tmp_path)
    stored = sorted(dataman.values())
    assert set(range(4 + len(gates))) <= set(stored)
    assert len(stored) == len(set(stored))
    with dataman.session(Path(dataman.session_filenames()[0]).name, lock_timeout=0):
        pass  # no lock is left


@pytest.mark.parametrize("executor", EXECUTORS)
def test_ctrl_c_twice_ends_running_tasks_and_keeps_the_finished_ones(tmp_path, executor):
    program, gates = start(tmp_path, executor)
    with program:
        workers = workers_of(program)
        begun = time.monotonic()
        program.interrupt()
        assert "stopping" == program.line()
        program.interrupt()
        assert "stopping" == program.line()
        if executor == "thread":  # waiting in C; it is interrupted when that returns
            for gate in gates:
                gate.open()
        assert "interrupted" == program.line()
        count = int(program.line())
        program.rest()
        assert time.monotonic() - begun < 5
        assert [] == wait_gone(workers, 5)

    assert count == DataManager("swept", tmp_path).itemcount()
    assert set(range(4)) <= set(DataManager("swept", tmp_path).values())


@pytest.mark.slow
@pytest.mark.parametrize("executor", EXECUTORS)
@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGHUP, marks=pytest.mark.slow)])
def test_a_signal_to_end_ends_the_program_within_a_second_and_keeps_what_is_finished(
    tmp_path, executor, number
):
    program, _ = start(tmp_path, executor)
    with program:
        workers = workers_of(program)
        begun = time.monotonic()
        program.process.send_signal(number)
        assert "stopping" == program.line()
        assert -number == program.process.wait()
        assert time.monotonic() - begun < 1.0
        assert [] == wait_gone(workers, 1.0)

    dataman = DataManager("swept", tmp_path)
    assert set(range(4)) <= set(dataman.values())
    for path in dataman.session_filenames():
        dataman.session(Path(path).name, lock_timeout=0).close()


TERMINAL = """
    import os, pty, sys

    pid, terminal = pty.fork()
    if not pid:
        os.execv(sys.executable, [sys.executable, sys.argv[1]])
    while b"standing" not in os.read(terminal, 1000):
        pass
    print(pid, flush=True)
    input()
    os.close(terminal)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""

IN_TERMINAL = """
    from futurefarm import DataManager, run_tasks

    def task(number):
        if number == 3:
            print("standing", flush=True)
            input()  # of the terminal
        return number

    if __name__ == "__main__":
        run_tasks(DataManager("swept"), task, range(9), "serial", capture=False)
"""


def test_closing_the_terminal_ends_the_program(tmp_path):
    inner = tmp_path / "inner.py"
    inner.write_text(textwrap.dedent(IN_TERMINAL))
    with Program(tmp_path, TERMINAL, str(inner), stdin=True) as program:
        pid = int(program.line())
        program.process.stdin.write("\n")
        program.process.stdin.flush()
        assert str(-signal.SIGHUP) == program.line()
        program.rest()

    assert not psutil.pid_exists(pid)
    assert [0, 1, 2] == sorted(DataManager("swept", tmp_path).values())


FAMILY = """
    import os, subprocess, sys
    from futurefarm import DataManager, run_tasks

    def task(number):
        child = subprocess.Popen(["sh", "-c", "sleep 300 & echo; wait"], stdout=subprocess.PIPE, text=True)
        child.stdout.readline()
        os.write(1, b"%d\\n" % child.pid)
        child.wait()

    if __name__ == "__main__":
        run_tasks(DataManager("swept"), task, range(4), sys.argv[1], workers=2, progress=False, capture=False)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("executor", "number"),
    [
        *(("loky", number) for number in (signal.SIGTERM, signal.SIGKILL)),
        ("process", signal.SIGKILL),
        ("thread", signal.SIGTERM),
        ("serial", signal.SIGTERM),
    ],
)
def test_what_a_task_has_started_ends_with_it(tmp_path, executor, number):
    with Program(tmp_path, FAMILY, executor) as program:
        tasks = [psutil.Process(int(program.line())) for _ in range(1 if executor == "serial" else 2)]
        family = [process for task in tasks for process in (task, *task.children(recursive=True))]
        program.process.send_signal(number)
        assert -number == program.process.wait()

        assert [] == wait_gone(family, 1.0)
    assert len(family) == 2 * len(tasks)


AT_EXIT = """
    import os, sys, threading
    from futurefarm import DataManager, run_tasks

    def task(number, gate):
        if gate:
            with open(gate) as file:
                file.read()
        return number

    if __name__ == "__main__":
        executor, gate, standing = sys.argv[1:]
        args = [(number, "") for number in range(3)] + [(3, gate)] + [(number, "") for number in range(9)]
        threading.Thread(
            target=run_tasks,
            args=(DataManager("swept"), task, args, executor),
            kwargs={"workers": 1, "progress": False},
            daemon=True,
        ).start()
        sys.stdin.readline()
"""


@pytest.mark.slow
@pytest.mark.parametrize("executor", EXECUTORS)
def test_a_program_does_not_wait_for_a_sweep_in_a_daemon_thread(tmp_path, executor):
    gate = Gate(tmp_path / "gate")
    with Program(tmp_path, AT_EXIT, executor, gate.path, "", gates=[gate], stdin=True) as program:
        gate.reached()
        workers = workers_of(program)
        begun = time.monotonic()
        program.process.communicate("\n", timeout=10)
        assert time.monotonic() - begun < 2.0
        assert [] == wait_gone(workers, 1.0)

    assert [0, 1, 2] == sorted(DataManager("swept", tmp_path).values())[:3]


def test_a_touched_file_stops_from_any_other_process(tmp_path):
    program, gates = start(tmp_path, "thread")
    with program:
        (tmp_path / "swept.data" / ".farm" / "stop").touch()
        assert "stopping" == program.line()
        for gate in gates:
            gate.open()
        assert "the file .farm/stop" == program.line().split(maxsplit=2)[2]
        program.rest()


@pytest.mark.parametrize("executor", PROCESSES)
def test_a_killed_sweep_leaves_its_results_and_within_a_second_no_worker_and_no_lock(tmp_path, executor):
    program, _ = start(tmp_path, executor)
    with program:
        workers = [p for p in workers_of(program) if "resource_tracker" not in " ".join(p.cmdline())]
        program.process.kill()
        program.process.wait()
        assert [] == wait_gone(workers, 1.0)

    dataman = DataManager("swept", tmp_path)
    assert [0, 1, 2, 3] == sorted(dataman.values())
    for name in dataman.session_filenames():
        with dataman.session(Path(name).name, lock_timeout=1):
            pass
    assert [0, 1, 2, 3] == sorted(dataman.values())


RESUMED = """
    import os, signal, sys
    from futurefarm import DataManager, run_tasks

    def task(number):
        if number == 20 and not os.path.exists("killed"):
            open("killed", "x").close()
            os.kill(int(os.environ["PARENT"]), signal.SIGKILL)
        return number

    if __name__ == "__main__":
        os.environ["PARENT"] = str(os.getpid())
        dataman = DataManager("resumed")
        before = dataman.itemcount()
        summary = run_tasks(
            dataman, task, range(40), sys.argv[1], workers=2, progress=False, resume=True
        )
        print(before == summary.skipped, summary.done + summary.skipped, dataman.itemcount(), flush=True)
"""


@pytest.mark.parametrize("executor", PROCESSES)
def test_a_sweep_whose_parent_was_killed_is_resumed_exactly(tmp_path, executor):
    with Program(tmp_path, RESUMED, executor) as program:
        assert -signal.SIGKILL == program.process.wait()
    with Program(tmp_path, RESUMED, executor) as program:
        assert "True 40 40" == program.line()
        program.rest()

    assert list(range(40)) == sorted(DataManager("resumed", tmp_path).values())


KILLED = """
    import os, sys
    from futurefarm import DataManager, run_tasks

    def task(number, folder, megabytes):
        if number == 2:
            data = b"x" * (megabytes << 20)
            with open(f"{folder}/{os.getpid()}.tried", "x") as file:
                pass
            if len([name for name in os.listdir(folder) if name.endswith(".tried")]) == 1:
                with open(f"{folder}/gate", "w") as gate:
                    gate.write(str(os.getpid()))
            return data if len(os.listdir(folder)) == 2 else b"again"
        return number

    if __name__ == "__main__":
        executor, folder, megabytes = sys.argv[1:]
        dataman = DataManager("killed")
        args = [(n, folder, int(megabytes)) for n in range(12)]
        summary = run_tasks(dataman, task, args, executor, workers=2, progress=False, on_error="record")
        print(summary.done, summary.failed, flush=True)
"""


@pytest.mark.parametrize("executor", PROCESSES)
@pytest.mark.parametrize("delay", [0.0, pytest.param(0.4, marks=pytest.mark.slow)])
def test_a_worker_killed_while_it_returns_a_large_result_costs_nothing_else(tmp_path, executor, delay):
    """The delay does not synchronise: it chooses the point at which the kill strikes."""
    folder = tmp_path / "tries"
    folder.mkdir()
    os.mkfifo(folder / "gate")
    with Program(tmp_path, KILLED, executor, str(folder), "300") as program:
        with open(folder / "gate") as gate:
            worker = int(gate.read())
        select.select([], [], [], delay)
        os.kill(worker, signal.SIGKILL)
        assert "12 0" == program.line()
        program.rest()

    dataman = DataManager("killed", tmp_path)
    assert list(range(12)) == sorted(record.number for record in dataman.records() if record.status == "ok")


CULPRIT = """
    import os, signal, sys
    from futurefarm import DataManager, run_tasks

    def task(number, how):
        if number % 20 == 7:
            if how == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            os._exit(3)
        return number

    if __name__ == "__main__":
        executor, how = sys.argv[1:]
        dataman = DataManager("culprits")
        args = [(n, how) for n in range(40)]
        summary = run_tasks(dataman, task, args, executor, workers=2, progress=False, on_error="record")
        print(summary.done, summary.failed, flush=True)
"""


@pytest.mark.parametrize("executor", PROCESSES)
def test_tasks_that_kill_their_worker_are_booked_and_the_others_done(tmp_path, executor):
    with Program(tmp_path, CULPRIT, executor, "kill") as program:
        assert "38 2" == program.line()
        program.rest()

    dataman = DataManager("culprits", tmp_path)
    assert [n for n in range(40) if n % 20 != 7] == sorted(dataman.values())
    assert {7: "crashed", 27: "crashed"} == {f.args[0]: f.status for f in dataman.failures()}
    crashes = [record for record in dataman.records() if record.status == "crashed"]
    assert [(7, 1), (7, 2), (27, 1), (27, 2)] == sorted((r.args[0], r.attempt) for r in crashes)
    assert all("killed by SIGKILL" in r.error and "MB of memory" in r.error for r in crashes)


LATE = """
    import os, sys
    from futurefarm import DataManager, run_tasks

    def task(number):
        if number == 3:
            os.read(os.pipe()[0], 1)  # waits in C, for ever
        return number, os.getpid()

    if __name__ == "__main__":
        timeout = sys.argv[2] if "median" in sys.argv[2] else float(sys.argv[2])
        dataman = DataManager("late")
        summary = run_tasks(
            dataman, task, range(40), sys.argv[1], workers=2, progress=False, on_error="record",
            timeout=timeout,
        )
        print(summary.done, summary.failed, flush=True)
"""


@pytest.mark.parametrize("executor", PROCESSES)
@pytest.mark.parametrize("timeout", ["0.5", pytest.param("3x median", marks=pytest.mark.slow)])
def test_a_task_past_its_time_limit_is_ended_and_the_others_lose_nothing(tmp_path, executor, timeout):
    with Program(tmp_path, LATE, executor, timeout) as program:
        assert "39 1" == program.line()
        program.rest()

    dataman = DataManager("late", tmp_path)
    assert [n for n in range(40) if n != 3] == sorted(number for number, _ in dataman.values())
    (late,) = dataman.failures()
    assert (3, "timeout", 1) == (late.args, late.status, late.attempt)
    assert late.seconds >= 0.5
    assert 40 == len(list(dataman.records())), "nobody else was ended with it"


WAITING = """
    import os, sys
    from futurefarm import DataManager, run_tasks

    def task(number, gate):
        if gate:
            os.read(os.pipe()[0], 1)  # waits in C, for ever
        return number

    def items(pid):
        yield 0, ""
        yield 1, pid
        while not ended(dataman):  # the loop waits for this
            pass
        yield 2, ""

    def ended(dataman):
        folder = dataman.directory.farm / "workers"
        pages = [worker for sweep in folder.iterdir() for worker in read(sweep)]
        return any(worker.task == 1 and not worker.alive for worker in pages)

    if __name__ == "__main__":
        from futurefarm.status import read
        dataman = DataManager("waiting")
        summary = run_tasks(
            dataman, task, items("for ever"), sys.argv[1], workers=2, progress=False, on_error="record",
            timeout=0.5,
        )
        print(summary.done, summary.failed, flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("executor", PROCESSES)
def test_the_time_limit_holds_while_the_next_item_is_waited_for(tmp_path, executor):
    with Program(tmp_path, WAITING, executor) as program:
        assert "2 1" == program.line()
        program.rest()


UNBORN = """
    import sys
    from futurefarm import DataManager, run_tasks
    from deadly import task

    if __name__ == "__main__":
        try:
            run_tasks(DataManager("unborn"), task, range(1000), sys.argv[1], workers=2, progress=False)
        except RuntimeError as error:
            print(type(error).__name__, error, flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("executor", PROCESSES)
def test_workers_that_die_on_import_end_the_sweep_soon(tmp_path, executor):
    (tmp_path / "deadly.py").write_text(
        "import os\n"
        "if 'DEADLY' in os.environ:\n"
        "    os._exit(7)\n"
        "os.environ['DEADLY'] = 'to those who come later'\n"
        "def task(number): return number\n"
    )
    with Program(tmp_path, UNBORN, executor) as program:
        line = program.line()
        program.rest()

    assert "BrokenExecutorError" in line
    assert "exit code 7" in line
    assert "4 times in a row" in line


def test_resume_after_another_executor(dataman):
    for executor in ("loky", "process", "thread", "serial"):
        summary = run_tasks(dataman, keep, [1, 2, 3], executor, workers=2, resume=True, progress=False)

    assert (3, 0) == (summary.skipped, summary.done)
    assert [1, 2, 3] == sorted(dataman.values())


HANDLER = """
    import os, signal, sys
    from futurefarm import DataManager, StopFlag, run_tasks

    class Loud(StopFlag):
        def set(self, *args, **options):
            super().set(*args, **options)
            os.write(1, b"stopping\\n")  # print cannot be used in a handler that interrupts a handler

    def task(number, gate):
        heard = []
        signal.signal(signal.SIGINT, lambda *_: heard.append("Ctrl-C"))  # as Brian 2 does on import
        if gate:
            with open(gate) as file:
                file.read()
        return len(heard)

    if __name__ == "__main__":
        executor, gate = sys.argv[1:]
        dataman = DataManager("heard")
        run_tasks(dataman, task, [(0, gate)], executor, workers=1, progress=False, stop=Loud())
        print(sum(dataman.values()), flush=True)
"""


@pytest.mark.parametrize("executor", PROCESSES)
def test_a_task_does_not_hear_the_ctrl_c_that_stops_the_sweep(tmp_path, executor):
    gate = Gate(tmp_path / "gate")
    with Program(tmp_path, HANDLER, executor, gate.path, gates=[gate]) as program:
        gate.reached()
        program.interrupt()
        assert "stopping" == program.line()
        gate.open()
        assert "0" == program.line()
        program.rest()


YOUNG = """
    import sys
    from futurefarm.executors import resolve

    if __name__ == "__main__":
        pool = resolve(sys.argv[1]).factory(2)
        print(pool.submit(abs, -1).result(), flush=True)
        sys.stdin.read()
"""


@pytest.mark.slow
@pytest.mark.parametrize("executor", PROCESSES)
def test_workers_that_have_had_no_task_yet_are_gone_with_their_parent_too(tmp_path, executor):
    with Program(tmp_path, YOUNG, executor, stdin=True) as program:
        assert "1" == program.line()
        workers = [p for p in workers_of(program) if "resource_tracker" not in " ".join(p.cmdline())]
        program.process.kill()
        program.process.wait()

        assert [] == wait_gone(workers, 1.0)


UNGUARDED = """
    from futurefarm import DataManager, run_tasks

    def task(number):
        return number

    run_tasks(DataManager("unguarded"), task, range(4), "process", workers=1, progress=False)
"""


@pytest.mark.slow
def test_a_script_without_a_guard_is_told_so_and_is_no_bomb(tmp_path):
    with Program(tmp_path, UNGUARDED) as program:
        _, text = program.process.communicate(timeout=25)

    told = text.rpartition("BrokenExecutorError: ")[2]  # by the parent, in the end
    assert "put what it does under: if __name__ == '__main__':" in told
    assert 0 == DataManager("unguarded", tmp_path).itemcount()
