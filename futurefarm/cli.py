"""The command ``futurefarm``: a directory seen and steered from a terminal."""

from __future__ import annotations

import json
import platform
import re
import sys
from collections import Counter
from dataclasses import asdict
from typing import Any

import click

from . import DataManager, FutureFarmError, __version__
from .executors import available

__all__ = ["main"]

DIRECTORY = click.Path(exists=True, file_okay=False)


# Control characters, halves of characters, and what makes text run backwards or vanish.
_UNPRINTABLE = re.compile(
    r"[^\n\t -~\xa0-\U0010ffff]|[\ud800-\udfff\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]"
)


def _printable(text: str) -> str:
    """Return a text that others may have written as one that does not steer the terminal."""
    return _UNPRINTABLE.sub(lambda found: ascii(found[0])[1:-1], text)


def _tell(text: str) -> None:
    click.echo(_printable(text))


class _Group(click.Group):
    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except FutureFarmError as error:
            raise click.ClickException(_printable(str(error))) from error


@click.group(cls=_Group)
@click.version_option(__version__)
def main() -> None:
    """Look at the directories that sweeps fill, and stop sweeps that run."""


@main.command()
@click.argument("directory", type=DIRECTORY)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def status(directory: str, as_json: bool) -> None:
    """Count results and attempts: futurefarm status taskfarmexample.data"""
    dataman = DataManager.at(directory)
    attempts = Counter(status for _, _, status in dataman.history())
    found = {
        "items": dataman.itemcount(),
        "sessions": len(dataman.session_filenames()),
        "attempts": dict(attempts),
        "failed": sum(1 for _ in dataman.failures()),
    }
    if as_json:
        click.echo(json.dumps(found))
        return
    _tell(f"{found['items']} items in {found['sessions']} sessions, {found['failed']} failed tasks")


@main.command()
@click.argument("directory", type=DIRECTORY)
def stop(directory: str) -> None:
    """Stop the sweeps in a directory after their running tasks: futurefarm stop taskfarmexample.data"""
    DataManager.at(directory).directory.ask_to_stop()
    _tell("asked all sweeps in this directory to stop after their running tasks")


@main.command()
@click.argument("directory", type=DIRECTORY)
def failed(directory: str) -> None:
    """Show failed tasks, their tracebacks and output: futurefarm failed taskfarmexample.data"""
    records = list(DataManager.at(directory).failures())
    for record in records:
        _tell(f"{record.function} task {record.number}, attempt {record.attempt}: {record.status}")
        _tell(record.traceback or record.error or "")
        if record.output:
            _tell(f"It printed:\n{record.output}")
    if records:
        sys.exit(1)
    _tell("no failed tasks")


@main.command()
@click.argument("source", type=DIRECTORY)
@click.argument("target", type=DIRECTORY)
def merge(source: str, target: str) -> None:
    """Take over what SOURCE holds into TARGET: futurefarm merge laptop.data cluster.data"""
    taken = DataManager.at(target).merge(source)
    for session, number in taken.items():
        _tell(f"{session}: {number} items and attempts")
    _tell(f"{len(taken)} sessions taken over")


@main.command()
@click.argument("directory", type=DIRECTORY)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def check(directory: str, as_json: bool) -> None:
    """Verify all sessions, and change nothing: futurefarm check taskfarmexample.data"""
    found = DataManager.at(directory).check()
    if as_json:
        click.echo(json.dumps({**asdict(found), "fine": found.fine}))
    else:
        for problem in found.problems:
            _tell(str(problem))
        verdict = "fine" if found.fine else f"{sum(not p.harmless for p in found.problems)} problems"
        _tell(f"{found.items} items in {found.sessions} sessions: {verdict}")
    if not found.fine:
        sys.exit(1)


@main.command()
@click.argument("directory", type=DIRECTORY)
def repair(directory: str) -> None:
    """Recover what damaged sessions still hold: futurefarm repair taskfarmexample.data"""
    done = DataManager.at(directory).repair()
    for one in done:
        if one.kept is None:
            _tell(f"{one.session}: damaged, but a writer holds it; end that first")
            continue
        _tell(f"{one.session}: {one.items} items and {one.attempts} attempts recovered")
        for key in one.lost:
            _tell(f"  lost: {key}")
        if one.damaged_attempts:
            _tell(f"  lost: {one.damaged_attempts} rows of the ledger")
        _tell(f"  the damaged file is kept as {one.kept}")
    _tell(f"{sum(one.kept is not None for one in done)} sessions repaired")
    if any(one.kept is None for one in done):
        sys.exit(1)


@main.command()
@click.argument("directory", type=DIRECTORY)
def compact(directory: str) -> None:
    """Join many small sessions into one: futurefarm compact taskfarmexample.data"""
    joined = DataManager.at(directory).compact()
    _tell(f"{len(joined)} sessions joined, {sum(joined.values())} items and attempts")


@main.command()
def info() -> None:
    """Show versions, and which executors can be used here: futurefarm info"""
    _tell(f"futurefarm {__version__}, Python {platform.python_version()}, {platform.platform()}")
    for name, missing in available().items():
        _tell(f"  {name}: {'ready' if missing is None else missing}")
