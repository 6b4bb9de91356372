"""``anyfold check BACKEND``: everything that anyfold promises, proved for one backend on this machine."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from anyfold.testing import Result

__all__ = ["register", "run"]

SUMMARY = "prove that a backend keeps anyfold's promises on this machine"
DESCRIPTION = f"""\
{SUMMARY.capitalize()}.

Runs the contract suite, the tests that third parties run on executors of theirs: a line per test as it
ends, then the failures with the code that failed, and totals by category. It takes half a minute to
some minutes, as long as the backend takes to start workers.

The exit status is 1 if a test failed, 0 if all passed, and 2 if there is no such backend.
"""
SYMBOLS = {"passed": "ok", "failed": "FAILED", "expected failure": "expected", "unexpected pass": "PASSED"}


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser of ``anyfold``."""
    parser = commands.add_parser(
        "check",
        help=SUMMARY,
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "backend",
        metavar="BACKEND",
        help="a name that doctor lists, or package.module:factory of something called with max_workers",
    )
    parser.add_argument(
        "--category",
        action="append",
        metavar="CATEGORY",
        help="only the tests of this category; may be given several times",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object at the end instead")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the contract on one backend, print what came of it and return the exit status."""
    from anyfold.errors import AnyfoldError
    from anyfold.testing import CATEGORIES, contract_for, run_contract

    if unknown := [name for name in arguments.category or () if name not in CATEGORIES]:
        return _refuse(f"there is no category {unknown[0]!r}; there are {', '.join(CATEGORIES)}")
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)  # as python -m does: a factory may lie here
    try:
        contract = contract_for(arguments.backend)
    except AnyfoldError as error:
        return _refuse(str(error))
    report = (lambda result: None) if arguments.json else _print_line
    results = run_contract(contract, categories=arguments.category, report=report)
    good = all(result.is_good for result in results)
    if arguments.json:
        sys.stdout.write(json.dumps(_in_json(arguments.backend, results, good), indent=2) + "\n")
    else:
        _print_failures(results)
        _print_totals(arguments.backend, results)
    status = 0 if good else 1
    if not good:
        _leave(status)
    return status


def _refuse(message: str) -> int:
    sys.stderr.write(f"anyfold check: {message}\n")
    return 2


def _leave(status: int) -> None:
    """End now where threads of a broken executor would keep the interpreter from ending."""
    import threading
    import time

    deadline = time.monotonic() + 5
    others = [t for t in threading.enumerate() if t is not threading.current_thread() and not t.daemon]
    for thread in others:
        thread.join(max(0, deadline - time.monotonic()))
    if any(thread.is_alive() for thread in others):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _print_line(result: Result) -> None:
    symbol = SYMBOLS[result.status]
    sys.stdout.write(f"{symbol:<9}{result.seconds:6.2f} s  {result.category:<14}{result.intent}\n")
    for note in result.notes:
        sys.stdout.write(f"{'':<33}{note.replace(': ', ': no, because ', 1)}\n")
    if result.reason:
        sys.stdout.write(f"{'':<33}{result.reason}\n")
    sys.stdout.flush()


def _print_failures(results: Sequence[Result]) -> None:
    for result in results:
        if not result.is_good:
            sys.stdout.write(f"\n{result.category}: {result.name}\n{result.intent}\n")
            sys.stdout.write(f"{result.traceback or result.reason}\n")


def _print_totals(backend: str, results: Sequence[Result]) -> None:
    sys.stdout.write(f"\n{'category':<16}{'passed':>8}{'expected':>10}{'failed':>8}\n")
    for category, (passed, expected, failed) in _totals(results).items():
        sys.stdout.write(f"{category:<16}{passed:>8}{expected:>10}{failed:>8}\n")
    failed = sum(not result.is_good for result in results)
    verdict = (
        f"{failed} of {len(results)} tests failed" if failed else f"all {len(results)} tests are as promised"
    )
    sys.stdout.write(f"\n{backend}: {verdict}\n")


def _totals(results: Sequence[Result]) -> dict[str, list[int]]:
    totals: dict[str, list[int]] = {}
    for result in results:
        column = 2 if not result.is_good else 0 if result.status == "passed" else 1
        totals.setdefault(result.category, [0, 0, 0])[column] += 1
    return totals


def _in_json(backend: str, results: Sequence[Result], good: bool) -> dict[str, Any]:
    from anyfold import __version__

    return {
        "anyfold": __version__,
        "backend": backend,
        "passed": good,
        "totals": {
            category: dict(zip(("passed", "expected failures", "failed"), counts, strict=True))
            for category, counts in _totals(results).items()
        },
        "tests": [asdict(result) for result in results],
    }
