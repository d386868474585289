"""``run_tasks`` itself: what it promises."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Executor
from typing import Any, Literal

from ..dataman import DataManager
from ..stop import StopFlag
from .options import Options
from .plan import make_plan
from .summary import Summary
from .sweep import Sweep

__all__ = ["run_tasks"]


def run_tasks(
    dataman: DataManager,
    fn: Callable[..., Any],
    args: Iterable[Any],
    executor: str | Executor | Callable[[int], Executor] = "loky",
    *,
    workers: int | None = None,
    inner_threads: int | None = None,
    resume: bool = False,
    retries: int = 0,
    retry_on: type[BaseException] | tuple[type[BaseException], ...] = Exception,
    backoff: float = 0.1,
    crash_limit: int = 2,
    timeout: float | str | None = None,
    max_failures: int | None = None,
    on_error: Literal["raise", "record", "stop"] = "raise",
    total: int | None = None,
    progress: Any = None,
    capture: bool = True,
    stop: StopFlag | None = None,
    initargs: tuple[Any, ...] = (),
    initkwds: Mapping[str, Any] | None = None,
    shared: Mapping[str, Any] | None = None,
) -> Summary:
    """Call ``fn`` with each element of ``args`` and store each result the moment it is done.

    A result is on disk, under a key of its own in ``dataman``, before the progress bar counts it; how every
    attempt ended is in the ledger (``dataman.records()``). A task that fails does not cost another one.

    Args:
        dataman: the directory that takes the results.
        fn: a function, lambda, partial or callable object; or a class, which is instantiated once per worker
            as ``fn(*initargs, **initkwds)`` and then called per task. If ``__init__`` has a parameter
            ``process_number`` it gets the number of the worker, from 0; an attribute ``taskname`` of the
            instance is shown in the worker's bar. If the function has a parameter ``report`` it gets a
            `futurefarm.report.Reporter`.
        args: any iterable, an endless one too; items are pulled only as they are needed. A ``tuple`` is
            unpacked to positional arguments, a `futurefarm.spaces.Params` to keyword arguments, anything
            else is the single argument. An array of 1 MB or more that is in several items travels only once:
            other processes map it, as with ``shared``, and ``record.args`` tells its shape and type.
        executor: the name of an executor, a `concurrent.futures.Executor`, or a factory of such;
            see `futurefarm.executors`.
        workers: tasks that run at the same time; by default as many as this process may use cores, counting
            what it is bound to and the quota of its control group (containers).
        inner_threads: threads that BLAS, OpenMP, numba and numexpr use in each worker process; by default the
            cores, divided by ``workers``, unless an environment variable of yours says otherwise
            (``OMP_NUM_THREADS`` and its like). With ``"thread"`` and ``"serial"`` nothing is changed, unless
            you give a number and have threadpoolctl: it then holds for all of the program until the sweep
            ends. Executors of your own are left alone.
        resume: skip the tasks, replicates included, whose results are stored here, and share the others with
            sweeps that run here at the same time, also with ``resume=True``: each is done by one of them. By
            default tasks are added, whatever was run before.
        retries: times that a failed task is tried again; every attempt is in the ledger.
        retry_on: the exceptions, a class or a tuple of classes, after which it is; TimeoutError stands for
            ``timeout``.
        backoff: seconds before the first retry of a task; they double with each further one, up to a minute.
        crash_limit: tries for a task whose worker dies while it runs (killed, out of memory, a crash in C):
            the worker is replaced, and the task that kills so many ends as ``crashed``.
        timeout: how long a task may take: seconds, or a text like ``"5x median"`` (at least a second, once
            ten tasks have ended). A task past it ends as ``timeout``: worker processes are ended and
            replaced, which costs other tasks nothing on ``loky`` and ``process``. Threads and ``serial``
            cannot be ended: there ``report.should_stop`` becomes true, and the result is refused.
        max_failures: begin no more tasks once so many have failed; then as ``on_error`` says.
        on_error: ``"raise"`` runs all other tasks and then raises TasksFailedError, ``"stop"`` begins no
            task after the first failure and then raises, ``"record"`` only records failures.
        total: the number of tasks, for the bar, where ``len(args)`` does not tell.
        progress: True, False, None (bars in a terminal or notebook, a line a minute elsewhere), a tqdm
            class, or a dict of tqdm's options.
        capture: keep what tasks print (stdout, stderr, warnings, logging) from the terminal; the last 8 KiB
            of each attempt are in the ledger and are shown when it fails. In worker processes that is all
            that is written, also by C and by child processes; with threads and ``"serial"``, what the task
            itself writes to ``sys.stdout`` and ``sys.stderr``. False lets all through.
        stop: a flag that, once set, lets no task begin any more. Ctrl-C, and touching the file
            ``.farm/stop`` in the directory, do the same; Ctrl-C twice also ends the running tasks, and the
            processes that they have started. So do SIGTERM and SIGHUP; when everything is in order they are
            sent again for whoever handled them before, so by default the program dies by them. The end of
            the program stops a sweep that runs in a thread.
        initargs, initkwds: what a task class is instantiated with.
        shared: keyword arguments that all tasks have in common, by name. Other processes do not get them with
            each task: they are written once to a file in the directory, which is removed at the end, and
            arrays of 256 kB and more are mapped from it, so that they cannot be written to and take memory
            only once. Threads and ``"serial"`` get the very objects. Their values are part of what
            ``resume`` compares.

    Returns:
        What was done, skipped, failed and left.

    Raises:
        UsageError: an argument cannot work; nothing was run and nothing written.
        DirectoryError, SessionError: the directory cannot be used; nothing was run.
        TasksFailedError: tasks failed; all other results are stored.
        BrokenExecutorError: the engine died and cannot be replaced; what had finished is stored.
        StorageFullError: the disk stayed full for a minute, or the sweep was stopped while it was. The tasks
            in its ``tasks`` ended and are not stored; ``resume=True`` runs them again. All else is stored.
        UnstoredError: the same, because the directory was moved or cannot be written any more.
        KeyboardInterrupt: Ctrl-C was pressed twice; what had finished is stored.

    Example:
        >>> from futurefarm import DataManager, run_tasks
        >>> dataman = DataManager("powers")
        >>> print(run_tasks(dataman, pow, [(2, 3), (2, 10)], executor="thread").done)
        2
        >>> sorted(dataman.values())
        [8, 1024]
    """
    options = Options(
        workers=workers,
        inner_threads=inner_threads,
        resume=resume,
        retries=retries,
        retry_on=retry_on,
        backoff=backoff,
        crash_limit=crash_limit,
        timeout=timeout,
        max_failures=max_failures,
        on_error=on_error,
        total=total,
        progress=progress,
        capture=capture,
        stop=stop,
    )
    return Sweep(make_plan(dataman, fn, args, executor, (initargs, initkwds), shared, options)).run()
