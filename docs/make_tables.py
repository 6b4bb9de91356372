"""Writes tables of the manual: ``python docs/make_tables.py [settings | BACKEND ...]``, from the root.

``docs/contract.md`` lists the tests and the broken executors that they catch, ``docs/hostile_tasks.md`` what
becomes of hostile tasks. ``docs/promises.md`` says
which backend keeps which promise, from a run of the contract on each; naming backends runs these only and
prints the table. ``docs/settings.md`` has a table of all settings, which ``settings`` writes alone.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from anyfold._settings.fields import ProgramSettings, Settings, settings_of, variable_of

ROOT = Path(__file__).parents[1]
BACKENDS = ("serial", "threads", "processes", "multiprocessing", "loky", "joblib", "dask", "ray")
EXPECTED = {"passed", "expected failure"}

CONTRACT = """\
# The contract

What anyfold promises of every backend, as tests: `anyfold.testing.ExecutorContract`, or
`python -m anyfold check BACKEND`. How to use it on an executor of yours is told in
[Write a backend](write_a_backend.md). This page is written by `docs/make_tables.py`.

{tests}
## Is the contract itself any good?

Each of these executors breaks one promise, and the test named catches it. They stand in
`tests/testing/broken_executors.py`.

| category | executor | what it does | caught by |
| --- | --- | --- | --- |
{broken}
"""

PROMISES = """\
# Which backend keeps which promise

From a run of the contract on each backend, written by `docs/make_tables.py`. "yes" means that all tests of
the category pass; a number stands for something that the backend cannot do and says so when it is asked to,
listed below; "NO" for a test that fails.

{table}

{notes}
"""

HOSTILE = """\
# Hostile tasks

What becomes of a model that does one of these things in `fit`, on one fold, with `retries=0`. `tests/hostile`
does it on every backend, and sees to it that the other models have the scores that they have alone, to the
last bit, that the next run on the same workers is right, and that the next task finds its process as it
was: working directory, environment, signal handlers, standard streams, resource limits, settings of numpy,
scikit-learn and warnings. This page is written by `docs/make_tables.py` from the table of those tests.

{table}

On `dask` tasks run beside the main thread of a worker, where Python installs no signal handlers: there that
task fails with `ValueError`, as on `threads`. On `threads` the directory, the environment and the limits are
one for all tasks that run at the same time; they are put back at the end of the run.

A fork that a task has left running when `fit` returns does not go on as a second worker: it ends there. One
that stays inside `fit` ends with its worker, at the latest. Programs that a model starts, with `subprocess`
for example, are the model's own to end.
"""


def contract_page() -> str:
    """Return the page on the contract."""
    sys.path.insert(0, str(ROOT))
    from tests.testing.test_broken_executors import CATEGORY, CAUGHT_BY

    from anyfold.testing import CATEGORIES
    from anyfold.testing.contract import contract_cases

    header = ["", "| test | intent |", "| --- | --- |"]
    parts = []
    for category, promise in CATEGORIES.items():
        rows = [f"| `{case.name}` | {case.intent} |" for case in contract_cases([category])]
        parts += [f"## {category}", "", f"{promise[0].upper()}{promise[1:]}.", *header, *rows, ""]
    broken = [
        f"| {CATEGORY[test]} | `{executor.__name__}` | {' '.join(executor.__doc__.split())} | `{test}` |"
        for executor, test in CAUGHT_BY.items()
    ]
    return CONTRACT.format(tests="\n".join(parts), broken="\n".join(broken))


def hostile_page() -> str:
    """Return the page on hostile tasks."""
    sys.path.insert(0, str(ROOT))
    from tests.hostile.table import TASKS

    rows = [
        "| a task that ... | in a process of its own | `serial` | `threads` |",
        "| --- | --- | --- | --- |",
    ]
    for task in TASKS.values():
        cells = (task.does, *map(_ending, (task.in_process, task.serial, task.threads)))
        rows.append(f"| {' | '.join(cells)} |")
    return HOSTILE.format(table="\n".join(rows))


def _ending(ending: Any) -> str:
    if isinstance(ending, str):
        return ending
    if ending.type is None:
        return "has its score"
    scored = "; the score is kept" if ending.is_scored else ""
    return f"fails: `{ending.type}`{scored}"


def promises_page(reports: list[dict[str, Any]]) -> str:
    """Return the page on promises and backends, from the reports of ``check --json``."""
    from anyfold.testing import CATEGORIES

    notes: list[str] = []
    names = [report["backend"] for report in reports]
    rows = [f"| promise | {' | '.join(names)} |", f"| --- |{' --- |' * len(names)}"]
    for category, promise in CATEGORIES.items():
        cells = [_cell(report, category, notes) for report in reports]
        rows.append(f"| {promise} | {' | '.join(cells)} |")
    told = "\n".join(
        f"{n}. {note.replace(': ', ': no, because ', 1)}." for n, note in enumerate(notes, start=1)
    )
    return PROMISES.format(table="\n".join(rows), notes=told)


def _cell(report: dict[str, Any], category: str, notes: list[str]) -> str:
    tests = [test for test in report["tests"] if test["category"] == category]
    told = list(dict.fromkeys(note for test in tests for note in test["notes"]))
    told += [f"{test['name']}: {test['reason']}" for test in tests if test["status"] != "passed"]
    failed = any(test["status"] not in EXPECTED for test in tests)
    for note in told:
        if note not in notes:
            notes.append(note)
    numbers = ", ".join(str(notes.index(note) + 1) for note in told)
    verdict = "NO" if failed else "yes"
    return f"{verdict} ({numbers})" if numbers else verdict


def settings_page(page: str) -> str:
    """Return the page of the settings with its table, made from where they are written down."""
    rows = ["| setting | what it does |", "| --- | --- |"]
    arguments = settings_of(Settings)
    for name, (_, setting) in settings_of(ProgramSettings).items():
        sentences = [f"Default: `{setting.default!r}`. {setting.help}", f"Takes {setting.takes}."]
        if setting.none is not None:
            sentences.append(f"None: {setting.none}.")
        if name not in arguments:
            sentences.append("It concerns the whole program and is no argument of a call.")
        variable = variable_of(name)
        sentences.append("It has no variable." if variable is None else f"`{variable}` sets it.")
        told = " ".join(sentences).replace("``", "`").replace("|", r"\|")
        rows.append(f"| `{name}` | {told} |")
    before, _, rest = page.partition("## All settings\n")
    _, _, after = rest.partition("## Other variables\n")
    table = "\n".join(rows)
    return f"{before}## All settings\n\n{table}\n\n## Other variables\n{after}"


def check(backend: str) -> dict[str, Any]:
    """Run the contract on one backend and return the report."""
    command = [sys.executable, "-m", "anyfold", "check", backend, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    report: dict[str, Any] = json.loads(done.stdout)
    return report


if __name__ == "__main__":
    chosen = sys.argv[1:]
    settings = ROOT / "docs/settings.md"
    settings.write_text(settings_page(settings.read_text()))
    if chosen == ["settings"]:
        sys.exit()
    page = promises_page([check(backend) for backend in chosen or BACKENDS])
    if chosen:
        sys.stdout.write(page)
    else:
        (ROOT / "docs/promises.md").write_text(page)
        (ROOT / "docs/contract.md").write_text(contract_page())
        (ROOT / "docs/hostile_tasks.md").write_text(hostile_page())
