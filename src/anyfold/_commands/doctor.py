"""``anyfold doctor``: what is installed, which setting came from where, and what is wrong."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from anyfold._commands.facts import Backend, Cores, SettingRow, Storage
    from anyfold._commands.problems import Problem

__all__ = ["examine", "register", "run"]

SUMMARY = "show what is installed, which setting came from where, and what is wrong"
DESCRIPTION = f"""\
{SUMMARY.capitalize()}.

Shown are versions, backends, the cores that may be used and why, every setting with its value, its
source and its variable, the storage for shared data, and problems. Nothing is changed.

The exit status is 1 if a problem will make runs fail (an error), otherwise 0 (warnings included).
"""


@dataclass(frozen=True, slots=True)
class Report:
    """All that the doctor found."""

    versions: Mapping[str, str]
    backends: Sequence[Backend]
    cores: Cores
    workers: int | None
    """What ``n_jobs`` comes to; None where that cannot be said."""
    settings: Sequence[SettingRow]
    storage: Sequence[Storage]
    problems: Sequence[Problem]

    @property
    def is_healthy(self) -> bool:
        return all(problem.level != "error" for problem in self.problems)


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser of ``anyfold``."""
    parser = commands.add_parser(
        "doctor",
        help=SUMMARY,
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Examine this installation, print the report and return the exit status."""
    report = examine()
    if arguments.json:
        sys.stdout.write(json.dumps(report, indent=2, default=_in_json) + "\n")
    else:
        _print_report(report)
    return 0 if report.is_healthy else 1


def examine() -> Report:
    """Gather the facts and judge them."""
    from anyfold._commands import facts
    from anyfold._commands.problems import find_problems
    from anyfold.settings import effective_n_jobs

    settings = facts.find_settings()
    valid = {row.name: row.value for row in settings if row.problem is None}
    cores = facts.find_cores()
    countable = cores.usable is not None and "n_jobs" in valid
    backends = facts.find_backends()
    storage = facts.find_storage(valid.get("temp_dir"))
    return Report(
        versions=facts.find_versions(),
        backends=backends,
        cores=cores,
        workers=effective_n_jobs(valid["n_jobs"]) if countable else None,
        settings=settings,
        storage=storage,
        problems=find_problems(backends, cores, settings, storage),
    )


def _print_report(report: Report) -> None:
    from rich.console import Console

    # In a pipe lines stay whole, for grep and for bug reports.
    in_terminal = sys.stdout.isatty()
    console = Console(markup=False, emoji=False, highlight=False, width=None if in_terminal else 240)
    _print_table(console, "Versions", report.versions.items())
    _print_table(
        console,
        "Backends",
        [
            (each.name, "yes" if each.available else "no", each.origin, each.detail)
            for each in report.backends
        ],
        header=("name", "available", "from", "detail"),
    )
    limits = [
        (name, "no limit" if limit is None else f"{limit:g}") for name, limit in report.cores.limits.items()
    ]
    counted = ("cores that may be used", "unknown" if report.cores.usable is None else report.cores.usable)
    workers = ("workers of a run", "unknown" if report.workers is None else report.workers)
    _print_table(console, "Cores", [*limits, counted, workers])
    _print_table(
        console,
        "Settings",
        [(row.name, repr(row.value), row.source, row.variable or "none") for row in report.settings],
        header=("name", "value", "source", "variable"),
    )
    _print_table(
        console,
        "Storage of shared data",
        [(each.place, each.use, each.path or "none", _size(each.free)) for each in report.storage],
        header=("place", "use", "path", "free"),
    )
    _print_problems(console, report.problems)


def _print_table(
    console: Console, title: str, rows: Iterable[Sequence[Any]], header: Sequence[str] = ()
) -> None:
    from rich.table import Table

    table = Table(
        box=None, show_header=bool(header), header_style="dim", pad_edge=False, padding=(0, 2, 0, 0)
    )
    rows = list(rows)
    for column in header or rows[0]:
        table.add_column(str(column), overflow="fold")
    for row in rows:
        table.add_row(*map(str, row))
    console.print(title, style="bold")
    console.print(table)
    console.print()


def _print_problems(console: Console, problems: Sequence[Problem]) -> None:
    console.print("Problems", style="bold")
    for problem in problems:
        style = "red" if problem.level == "error" else "yellow"
        console.print(f"{problem.level}: {problem.message}", style=style, soft_wrap=True)
    if not problems:
        console.print("none", style="green")


def _in_json(value: Any) -> Any:
    if is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    return str(value)


def _size(n_bytes: int | None) -> str:
    from anyfold._data.memory import format_bytes

    return "unknown" if n_bytes is None else format_bytes(n_bytes)
