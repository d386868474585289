"""pytest's option ``--futurefarm-executor``."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--futurefarm-executor",
        metavar="NAME",
        help="let every futurefarm.run_tasks use this executor, for example serial",
    )


@pytest.fixture(autouse=True, scope="session")
def _futurefarm_executor(request: pytest.FixtureRequest) -> Iterator[None]:
    name = request.config.getoption("--futurefarm-executor")
    if name is None:
        yield
        return
    from futurefarm.executors import override

    with override(name):
        yield
