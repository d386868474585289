"""All that is checked: `nox` runs the usual sessions, `nox -s tests-3.12` one of them, `nox -l` lists all."""

from __future__ import annotations

import shutil
from pathlib import Path

import nox

ROOT = Path(__file__).parent
PYTHONS = ["3.11", "3.12", "3.13"]
BUILT: list[Path] = []

nox.needs_version = ">=2025.10.14"
nox.options.sessions = ["tests", "lint", "types", "layers", "docs"]
nox.options.default_venv_backend = "virtualenv"
nox.options.download_python = "never"


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """The test suite against the installed wheel."""
    run_pytest(session)


@nox.session
def slow(session: nox.Session) -> None:
    """The tests that kill processes, fill disks or take their time."""
    run_pytest(session, "-m", "slow")


@nox.session
def faults(session: nox.Session) -> None:
    """The fault battery of tests/faults: up to 20 minutes of kills, failing disks and hostile files."""
    run_faults(session)


@nox.session
def faults_short(session: nox.Session) -> None:
    """A sample of each program of the fault battery."""
    run_faults(session, "--short")


@nox.session
def bench(session: nox.Session) -> None:
    """The benchmarks of tests/benchmarks: up to 15 minutes, beside peers. A missed target fails nothing."""
    run_benchmarks(session)


@nox.session
def bench_short(session: nox.Session) -> None:
    """Each program of the benchmarks at a small size, to see that it works and its results are right."""
    run_benchmarks(session, "--short")


@nox.session
def lint(session: nox.Session) -> None:
    session.install("ruff>=0.9")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    session.install(".[test]", "mypy>=1.14", "types-tqdm")
    session.run("mypy", "--strict", "futurefarm")
    if (ROOT / "tests/typing/api.py").exists():
        session.run("mypy", "--strict", "tests/typing/api.py")


@nox.session
def layers(session: nox.Session) -> None:
    """The drawing of the house in docs/architecture.md, as a test."""
    session.install("import-linter>=2.7")
    session.run("lint-imports", "--no-cache")


@nox.session
def docs(session: nox.Session) -> None:
    """The pages, with no broken reference; their code blocks are run by the test suite."""
    session.install(".[docs]")
    session.run("sphinx-build", "-W", "-n", "--keep-going", "-E", "-b", "html", "docs", "docs/_build/html")


@nox.session
def examples(session: nox.Session) -> None:
    """The examples as a user runs them, Brian 2's shortened; each stopped halfway once and run again."""
    session.install(".[brian2,plot,test]")
    tests = str(ROOT / "tests/test_examples.py")
    session.run("python", "-m", "pytest", "-m", "slow or not slow", tests, *session.posargs)


def run_pytest(session: nox.Session, *options: str) -> None:
    """Run pytest on the wheel; options of yours go last: `nox -s tests-3.12 -- -k resume`.

    `-I` and another working directory keep the checkout out of `sys.path`, also in programs that tests start.
    """
    install_wheel(session)
    session.chdir(session.create_tmp())
    options += ("-c", str(ROOT / "pyproject.toml"), "--rootdir", str(ROOT))
    session.run("python", "-I", "-m", "pytest", *options, str(ROOT / "tests"), *session.posargs)


def run_faults(session: nox.Session, *options: str) -> None:
    """Run the fault battery on the wheel: `nox -s faults -- --only culprits,massacre`."""
    install_wheel(session)
    session.chdir(session.create_tmp())
    session.run("python", str(ROOT / "tests/faults/run.py"), *options, *session.posargs)


def run_benchmarks(session: nox.Session, *options: str) -> None:
    """Run the benchmarks on the wheel: `nox -s bench -- --only noop,grain --json figures.json`."""
    install_wheel(session)
    session.install("joblib", "mpire")
    session.chdir(session.create_tmp())
    session.run("python", str(ROOT / "tests/benchmarks/run.py"), *options, *session.posargs)


def install_wheel(session: nox.Session) -> None:
    path = wheel(session)
    session.install(f"{path}[test]")
    # A reused environment may hold an earlier wheel of the same version, which pip would keep.
    session.install("--force-reinstall", "--no-deps", str(path))


def wheel(session: nox.Session) -> Path:
    """Return the wheel of this checkout, built once in a run of nox."""
    if not BUILT:
        folder = session.cache_dir / "wheel"
        shutil.rmtree(folder, ignore_errors=True)
        session.run("python", "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(folder), str(ROOT))
        BUILT.extend(folder.glob("*.whl"))
    return BUILT[0]
