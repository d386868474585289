"""For tests: a suite that every executor has to pass, and an executor that runs only when the test says so.

`ExecutorSuite` is a class of pytest tests: inherit it, name your executor, and run pytest. `ManualExecutor`
makes concurrency deterministic: nothing runs until the test steps it. The pytest option
``--futurefarm-executor NAME`` lets every ``run_tasks`` of the tested code use another executor.
"""

from .manual import ManualExecutor
from .suite import ExecutorSuite

__all__ = ["ExecutorSuite", "ManualExecutor"]
