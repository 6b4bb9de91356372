"""``anyfold journal FILE``: what a journal of finished work holds."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import sqlite3

    from rich.console import Console

__all__ = ["register", "run", "summarize"]

SUMMARY = "show what a journal of finished work holds"
DESCRIPTION = f"""\
{SUMMARY.capitalize()}.

Shown are the outcomes by kind of model, how many of them are failures, and the runs that wrote them
with their versions. The file is only read, and nothing in it is ever run.

The exit status is 1 if the file is no journal that can be read, otherwise 0.
"""


@dataclass(frozen=True, slots=True)
class ModelRow:
    """The outcomes of one kind of model."""

    model: str
    outcomes: int
    failures: int
    fit_seconds: float
    """Of all of them together."""
    last_recorded: float
    """Seconds since the epoch, as all times here."""


@dataclass(frozen=True, slots=True)
class RunRow:
    """One run that had the journal open."""

    run: int
    started: float
    recorded: int
    """Outcomes that it wrote and that no later run has replaced."""
    anyfold: str
    versions: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Contents:
    """What a journal holds."""

    path: str
    size: int
    """Bytes, what is still in its log included."""
    outcomes: int
    failures: int
    models: Sequence[ModelRow]
    runs: Sequence[RunRow]


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser of ``anyfold``."""
    parser = commands.add_parser(
        "journal",
        help=SUMMARY,
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", metavar="FILE", type=Path, help="the journal")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print what the journal holds and return the exit status."""
    from anyfold.errors import JournalError

    try:
        contents = summarize(arguments.file)
    except JournalError as error:
        sys.stderr.write(f"anyfold journal: {error}\n")
        return 1
    if arguments.json:
        sys.stdout.write(json.dumps(asdict(contents), indent=2) + "\n")
    else:
        _print(contents)
    return 0


def summarize(path: Path) -> Contents:
    """Read what a journal holds.

    Raises
    ------
    JournalError
        If it cannot be read, or is no journal.
    """
    from anyfold._engine.journal_file import reading

    with reading(path) as database:
        models = [
            ModelRow(str(model), int(n), int(failed), float(seconds), float(last))
            for model, n, failed, seconds, last in database.execute(
                # Whatever stands in a column, these are numbers.
                "SELECT model, count(*), sum(failed IS NOT 0), ifnull(total(abs(fit_time)), 0), "
                "ifnull(max(abs(recorded)), 0) "
                "FROM outcomes GROUP BY model ORDER BY model"
            )
        ]
        return Contents(
            path=str(path),
            size=sum(part.stat().st_size for part in _files(path) if part.exists()),
            outcomes=sum(row.outcomes for row in models),
            failures=sum(row.failures for row in models),
            models=models,
            runs=list(_runs(database)),
        )


def _files(path: Path) -> tuple[Path, Path]:
    return path, path.with_name(f"{path.name}-wal")


def _runs(database: sqlite3.Connection) -> Iterable[RunRow]:
    query = (
        "SELECT run, ifnull(abs(started), 0), ifnull(n, 0), anyfold, versions FROM runs LEFT JOIN "
        "(SELECT run, count(*) AS n FROM outcomes GROUP BY run) USING (run) ORDER BY run"
    )
    for number, started, recorded, version, versions in database.execute(query):
        yield RunRow(int(number), float(started), int(recorded), str(version), _versions(versions))


def _versions(text: Any) -> dict[str, str]:
    try:
        told = json.loads(text)
    except (TypeError, ValueError, RecursionError):
        return {}
    return {str(name): str(version) for name, version in told.items()} if isinstance(told, dict) else {}


def _print(contents: Contents) -> None:
    from rich.console import Console

    from anyfold._data.memory import format_bytes

    # In a pipe lines stay whole, for grep and for bug reports.
    width = None if sys.stdout.isatty() else 240
    console = Console(markup=False, emoji=False, highlight=False, width=width)
    console.print(f"{_plain(contents.path)}, {format_bytes(contents.size)}", style="bold")
    noun = "outcome" if contents.outcomes == 1 else "outcomes"
    console.print(f"{contents.outcomes} {noun}, {contents.failures} of them failures")
    console.print()
    header = ("model", "outcomes", "failures", "fit time [s]", "last recorded")
    rows = [
        (row.model, row.outcomes, row.failures, f"{row.fit_seconds:.3g}", _when(row.last_recorded))
        for row in contents.models
    ]
    _print_table(console, "Models", header, rows)
    shown = [
        (row.run, _when(row.started), row.recorded, row.anyfold, _told(row.versions)) for row in contents.runs
    ]
    _print_table(console, "Runs", ("run", "started", "recorded", "anyfold", "versions"), shown)


def _print_table(console: Console, title: str, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    from rich.table import Table

    console.print(title, style="bold")
    if not rows:
        console.print("none")
    else:
        table = Table(box=None, header_style="dim", pad_edge=False, padding=(0, 2, 0, 0))
        for column in header:
            table.add_column(column, overflow="fold")
        for row in rows:
            table.add_row(*(_plain(str(cell)) for cell in row))
        console.print(table)
    console.print()


def _plain(text: str) -> str:
    """Return a text that cannot steer a terminal, whoever wrote it."""
    return "".join(
        character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text
    )


def _when(seconds: float) -> str:
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
    except (ValueError, OverflowError, OSError):
        return "unknown"


def _told(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())
