"""``anyfold bench``: what each backend costs on this machine, and from when on it is worth it."""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

__all__ = ["Row", "break_even", "register", "run", "summarized"]

SUMMARY = "measure what each backend costs here, and from which length of tasks it is faster than serial"
DESCRIPTION = f"""\
{SUMMARY.capitalize()}.

Each backend that is installed is measured in a process of its own, through run_cv, with tasks that take a
core for a given time and let other threads run meanwhile, as numpy does. Figures are medians of up to three:

  start       from nothing to the first results of all workers, measured once
  per task    what an empty task costs, of many
  per MB      what data costs that workers have not seen, their slices of it included
  faster from the length of a task from which {{n}} of them, on warm workers, take less time than in serial
  pays from   how long a serial run must take for cold workers to have paid off

It takes about ten seconds for each backend, with --quick, which measures once, half of that. Other work on
this machine makes the figures worse, and itself slower.

The exit status is 1 if a backend could not be measured, 2 if there is no such backend, otherwise 0.
"""
TIME_LIMIT = 120.0
"""Seconds after which a backend has failed."""
BUDGET = 3.0
"""Seconds after which no figure of a backend is measured again."""


@dataclass(frozen=True, slots=True)
class Row:
    """What one backend costs; times in seconds, None where they cannot be told."""

    backend: str
    workers: int | None = None
    start: float | None = None
    per_task: float | None = None
    per_megabyte: float | None = None
    faster_from: float | None = None
    """Infinite where it never was."""
    pays_from: float | None = None
    speedups: Mapping[str, float] | None = None
    """By the length of tasks."""
    error: str | None = None


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser of ``anyfold``."""
    parser = commands.add_parser(
        "bench",
        help=SUMMARY,
        description=DESCRIPTION.format(n="64"),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--backends",
        metavar="NAME,…",
        help="only these, separated by commas; default: all that are installed",
    )
    parser.add_argument(
        "--n-jobs", metavar="N", type=int, help="number of workers; default: all cores that may be used"
    )
    parser.add_argument("--quick", action="store_true", help="fewer repetitions and lengths of tasks")
    parser.add_argument(
        "--chart", metavar="FILE", type=Path, help="also draw it, as PNG, SVG or PDF; needs anyfold[plot]"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Measure, print a table and return the exit status."""
    from anyfold.errors import AnyfoldError
    from anyfold.settings import effective_n_jobs

    try:
        names = _chosen(arguments.backends)
        n_jobs = effective_n_jobs(arguments.n_jobs)
        if arguments.chart is not None:
            from anyfold._commands.bench_chart import check_can_draw

            check_can_draw(arguments.chart)
    except AnyfoldError as error:
        sys.stderr.write(f"anyfold bench: {error}\n")
        return 2
    busy = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    figures: dict[str, dict[str, Any]] = {}
    for name in dict.fromkeys(["serial", *names]):
        _say(f"measuring {name} …")
        figures[name] = _measured(name, n_jobs, quick=arguments.quick)
    _say("")
    rows = [summarized(name, figures[name], figures["serial"]) for name in names]
    without = figures["serial"].get("error")
    if arguments.json:
        sys.stdout.write(_in_json(rows, figures, n_jobs, without) + "\n")
    else:
        _print(rows)
        if without is not None:
            sys.stdout.write(
                f"serial could not be measured, so that nothing is compared with it: {without}\n"
            )
        if busy > n_jobs / 2:
            sys.stdout.write(
                f"other work was going on here (load {busy:.1f}): the figures are worse for it\n"
            )
    if arguments.chart is not None and without is None:
        from anyfold._commands.bench_chart import draw

        draw(rows, arguments.chart)
        if not arguments.json:
            sys.stdout.write(f"the chart is in {arguments.chart}\n")
    return 1 if without is not None or any(row.error for row in rows) else 0


def _chosen(given: str | None) -> list[str]:
    from anyfold.errors import InvalidInputError, MissingDependencyError, UnknownBackendError
    from anyfold.executors.registry import available_backends, find_backend

    known = {each.name: each for each in available_backends()}
    if given is None:
        names = [name for name, each in known.items() if each.available]
        return sorted(names, key=lambda name: name != "serial")
    names = [name.strip() for name in given.split(",") if name.strip()]
    if not names:
        raise InvalidInputError(f"--backends {given!r} names none; there are {', '.join(known)}")
    for name in names:
        if name not in known:
            find_backend(name)
            raise UnknownBackendError(f"there is no backend {name!r}; there are {', '.join(known)}")
        if not known[name].available:
            raise MissingDependencyError(f"the backend {name!r} cannot be used: {known[name].detail}")
    return list(dict.fromkeys(names))


def _measured(name: str, n_jobs: int, *, quick: bool) -> dict[str, Any]:
    from anyfold._commands.measure import LENGTHS

    lengths = LENGTHS[::2] if quick else LENGTHS
    repeats = 1 if quick else 3
    asked = {"backend": name, "n_jobs": n_jobs, "lengths": lengths, "repeats": repeats, "seconds": BUDGET}
    # A journal or a time limit that is set for real work has no business here.
    environment = {
        variable: value
        for variable, value in os.environ.items()
        if not variable.startswith("ANYFOLD_") or variable == "ANYFOLD_TEMP_DIR"
    }
    try:
        done = subprocess.run(
            [sys.executable, "-m", "anyfold._commands.measure"],
            input=json.dumps(asked),
            env=environment,
            capture_output=True,
            text=True,
            timeout=TIME_LIMIT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"error": f"it took more than {TIME_LIMIT:g} seconds"}
    if done.returncode != 0:
        *_, last = done.stderr.strip().splitlines() or [f"ended with status {done.returncode}"]
        return {"error": last}
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


def summarized(name: str, figures: Mapping[str, Any], serial: Mapping[str, Any]) -> Row:
    """Turn measured times into what a backend costs.

    Parameters
    ----------
    name : str
        The backend.
    figures, serial : mapping
        As `measure` returns them, or with an ``error``.

    Returns
    -------
    Row
        With what can be told.
    """
    from anyfold._commands.measure import MANY, MEGABYTES, N_TASKS

    if "error" in figures:
        return Row(name, error=figures["error"])
    few, many, data, no_data = (statistics.median(figures[key]) for key in ("few", "many", "data", "no_data"))
    start = statistics.median(figures["start"])
    row = {
        "workers": figures["workers"],
        "start": start,
        "per_task": max(0.0, (many - few) / ((MANY - 1) * N_TASKS)),
        "per_megabyte": max(0.0, (data - no_data) / MEGABYTES),
    }
    if name == "serial" or "error" in serial:
        return Row(name, **row)
    speedups = {
        length: statistics.median(serial["runs"][length]) / statistics.median(times)
        for length, times in figures["runs"].items()
    }
    best = max(speedups.values())
    return Row(
        name,
        **row,
        speedups=speedups,
        faster_from=break_even({float(length): speedup for length, speedup in speedups.items()}),
        pays_from=start / (1 - 1 / best) if best > 1 else math.inf,
    )


def break_even(speedups: Mapping[float, float]) -> float:
    """Return the length of tasks from which on all measured lengths are faster than in serial.

    Examples
    --------
    >>> break_even({0.0: 0.25, 0.001: 0.5, 0.01: 2.0})
    0.0055
    >>> break_even({0.0: 0.25, 0.001: 0.5}), break_even({0.0: 1.5, 0.001: 2.0})
    (inf, 0.0)
    """
    lengths = sorted(speedups)
    slower = [length for length in lengths if speedups[length] <= 1]
    if not slower:
        return 0.0
    if slower[-1] == lengths[-1]:
        return math.inf
    below, above = slower[-1], lengths[lengths.index(slower[-1]) + 1]
    # The logarithm of the ratio is about linear between two lengths that are near each other.
    share = math.log(speedups[below]) / (math.log(speedups[below]) - math.log(speedups[above]))
    return round(below + share * (above - below), 7)


def _in_json(rows: Sequence[Row], figures: Mapping[str, Any], n_jobs: int, serial_error: str | None) -> str:
    backends = [
        {name: "never" if value == math.inf else value for name, value in asdict(row).items()}
        | {"measured": figures[row.backend]}
        for row in rows
    ]
    told = {"n_jobs": n_jobs, "serial_error": serial_error, "backends": backends}
    return json.dumps(told, indent=2, allow_nan=False)


def _say(text: str) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()


def _print(rows: Sequence[Row]) -> None:
    from rich.console import Console
    from rich.table import Table

    from anyfold._commands.measure import LENGTHS

    width = None if sys.stdout.isatty() else 240
    console = Console(markup=False, emoji=False, highlight=False, width=width)
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    header = ("backend", "workers", "start", "per task", "per MB", "faster from", "pays from")
    for column in header:
        table.add_column(column, justify="left" if column == "backend" else "right")
    for row in rows:
        if row.error is None:
            since = told(row.faster_from)
            since = {"never": f"> {told(LENGTHS[-1])}", "0": "any length"}.get(since, since)
            cells = (told(row.start), told(row.per_task), told(row.per_megabyte), since, told(row.pays_from))
            table.add_row(row.backend, str(row.workers), *cells)
    console.print(table)
    for row in rows:
        if row.error is not None and row.backend != "serial":
            console.print(f"{row.backend}: could not be measured: {row.error}", style="red", soft_wrap=True)


def told(seconds: float | None) -> str:
    """Show a time for people.

    Examples
    --------
    >>> [told(seconds) for seconds in (None, 0.0, 0.00005, 0.0123, 2.5, 90.0, math.inf)]
    ['', '0', '50 µs', '12 ms', '2.5 s', '90 s', 'never']
    """
    if seconds is None:
        return ""
    if seconds == math.inf:
        return "never"
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{_two_digits(seconds / size)} {unit}"
    return f"{_two_digits(seconds / 1e-6)} µs" if seconds else "0"


def _two_digits(number: float) -> str:
    return f"{number:.0f}" if number >= 10 else f"{number:.2g}"
