"""What runs in a worker: run a chunk, catch, pickle, commit, answer with a receipt.

Whoever computes, commits: the process that ran a task writes its result through a session of its own and
answers with a few bytes. Threads share the session of their process. A worker that does not see the directory
sends what it has, and the process that called ``run_tasks`` commits it.
"""

from .crew import commit, join, leave, run_chunk
from .failure import described
from .interrupt import TaskInterrupted, interrupt_running
from .leash import kill, prepare_process, prepare_process_of_loky, signals_held
from .outfile import output_of
from .patience import Patience
from .seat import takes_report

__all__ = [
    "Patience",
    "TaskInterrupted",
    "commit",
    "described",
    "interrupt_running",
    "join",
    "kill",
    "leave",
    "output_of",
    "prepare_process",
    "prepare_process_of_loky",
    "run_chunk",
    "signals_held",
    "takes_report",
]
