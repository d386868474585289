"""The code in the documentation runs, in the order in which it is read."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [
    page
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    if "```python" in page.read_text()
]


def blocks_of(page: Path) -> list[tuple[int, str]]:
    """Return the line at which each block of Python begins, and its code."""
    text = page.read_text()
    return [
        (text.count("\n", 0, found.start(1)), found[1])
        for found in re.finditer(r"^```python\n(.*?)^```$", text, re.M | re.S)
    ]


def is_script(code: str) -> bool:
    return '__name__ == "__main__"' in code


def test_there_are_pages_with_code():
    assert {"README.md", "quickstart.md"} <= {page.name for page in PAGES}


def test_the_figures_of_the_performance_page_are_those_that_were_measured():
    subprocess.run([sys.executable, ROOT / "tests/benchmarks/page.py", "--check"], check=True, timeout=60)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_code_of_the_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": f"page_{page.stem}"}
    for line, code in blocks_of(page):
        if not is_script(code):
            # As many empty lines before it: a traceback shows the line of the page.
            exec(compile("\n" * line + code, str(page), "exec"), namespace)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_scripts_of_the_page_run_and_go_on_where_they_were(page, tmp_path):
    for number, (_, code) in enumerate(blocks_of(page)):
        if is_script(code):
            script = tmp_path / f"script{number}.py"
            # The same work on fewer and smaller arguments.
            script.write_text(code.replace("1_000_000", "1_000").replace("range(100)", "range(10)"))
            outputs = {
                subprocess.run(
                    [sys.executable, "-W", "error", script.name],
                    cwd=tmp_path,
                    stdout=subprocess.PIPE,
                    check=True,
                    timeout=60,
                ).stdout
                for _ in range(2)
            }
            assert 1 == len(outputs)
            assert list(tmp_path.glob("*.data"))
