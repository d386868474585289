"""The tools for tests do what they say."""

from __future__ import annotations

import pytest

from futurefarm.testing import ManualExecutor


def test_nothing_runs_until_it_is_stepped():
    executor = ManualExecutor()
    futures = [executor.submit(pow, 2, n) for n in range(3)]
    executor.step(2)

    assert [True, True, False] == [future.done() for future in futures]
    assert (1, [1, 2]) == (executor.pending, [future.result() for future in futures[:2]])


def test_a_lost_call_raises_and_the_others_run():
    executor = ManualExecutor()
    lost, kept = executor.submit(pow, 2, 1), executor.submit(pow, 2, 2)
    executor.fail(RuntimeError("lost"))
    executor.step()

    assert ("lost", 4) == (str(lost.exception()), kept.result())


def test_a_broken_executor_takes_nothing_more():
    executor = ManualExecutor()
    waiting = executor.submit(pow, 2, 1)
    executor.break_down(RuntimeError("gone"))

    assert "gone" == str(waiting.exception())
    with pytest.raises(RuntimeError, match="broken"):
        executor.submit(pow, 2, 1)


def test_a_step_without_work_gives_up():
    with pytest.raises(TimeoutError, match="nothing was submitted"):
        ManualExecutor(timeout=0.01).step()
