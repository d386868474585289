"""Engines: what runs the tasks.

Any `concurrent.futures.Executor` is one. ``run_tasks(..., executor=...)`` takes

* a name: ``"loky"`` (the default), ``"process"``, ``"thread"``, ``"serial"``, one that was registered here,
  or one that an installed package offers in the entry-point group ``futurefarm.executors``;
* a factory ``factory(max_workers) -> Executor``, made again when the engine breaks and shut down at the end;
* an executor, which is used and never shut down.

An executor may have a method ``kill_workers()``, as those of Python 3.14 do; it is called to end running
tasks at once. `futurefarm.testing.ExecutorSuite` tests whether an executor is fit.
"""

from .harbour import end_idle_workers
from .pool import Pool
from .registry import Engine, available, known, override, register, resolve

__all__ = ["Engine", "Pool", "available", "end_idle_workers", "known", "override", "register", "resolve"]
