"""Uses every public name; never run, only checked by mypy."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from futurefarm import (
    DataManager,
    FutureFarmError,
    Params,
    Record,
    StopFlag,
    Summary,
    TasksFailedError,
    run_tasks,
)
from futurefarm.executors import available, known, override, register
from futurefarm.report import Reporter
from futurefarm.spaces import cases, grid, zipped
from futurefarm.testing import ManualExecutor


def simulate(k: float, report: Reporter) -> tuple[float, float]:
    report(0.5, "half")
    report.subtask(0, 2)(0.1)
    return k, 0.0 if report.should_stop else 1.0


def items() -> Iterator[float]:
    yield 1.0


def sweep(dataman: DataManager) -> Summary:
    flag = StopFlag()
    flag.set("lunch", now=False)
    summary: Summary = run_tasks(
        dataman,
        simulate,
        items(),
        executor=lambda max_workers: ThreadPoolExecutor(max_workers),
        workers=2,
        resume=True,
        retries=1,
        on_error="record",
        total=1,
        progress={"desc": "simulating"},
        stop=flag,
        initargs=(),
        initkwds=None,
    )
    run_tasks(dataman, simulate, grid(k=[1.0]), "thread")
    run_tasks(dataman, simulate, zipped(k=[1.0]), ManualExecutor())
    run_tasks(dataman, simulate, cases([Params(k=1.0)]))
    return summary


def read(dataman: DataManager) -> float:
    records: list[Record] = [*dataman.records(), *dataman.failures()]
    with dataman.session() as session:
        session["answer"] = 42
    with dataman.locking_computer_session() as shared:
        shared["runs"] = shared.get("runs", 0) + 1
    keys: list[str] = list(dataman.keys())
    dataman.merge("other.data")
    return sum(record.seconds for record in records) + len(keys) + dataman.itemcount()


def choose() -> dict[str, str | None]:
    register("mine", ThreadPoolExecutor)
    with override(known()[0]):
        return available()


def failed(error: FutureFarmError) -> str:
    return str(error.summary) if isinstance(error, TasksFailedError) else error.message
