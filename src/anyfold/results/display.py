"""How a result shows itself: a short table as text or HTML, made without pandas."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from math import isnan
from typing import TYPE_CHECKING

from anyfold.results.grid import OutcomeGrid
from anyfold.results.names import shortened

if TYPE_CHECKING:
    from anyfold._plan.content import JournalUse
    from anyfold.results.cv_result import CVResult

__all__ = ["as_html", "as_text", "number", "table_as_html", "table_as_text"]

MOST_MODELS = 20
MOST_METRICS = 6
REMARK = "margin: 0.2em 0; opacity: 0.75"


def number(value: float) -> str:
    """Show a score with about four digits.

    Examples
    --------
    >>> [number(value) for value in (0.98765, 0.0, -3635.5, 1.5e-7, float("nan"))]
    ['0.9877', '0.0000', '-3636', '1.5e-07', 'nan']
    """
    return f"{value:.4f}" if value == 0 or 1e-3 <= abs(value) < 100 else f"{value:.4g}"


def as_text(result: CVResult, grid: OutcomeGrid) -> str:
    """Return the table as plain text."""
    return table_as_text(_headline(result), *_table(result, grid), _remarks(result, grid))


def as_html(result: CVResult, grid: OutcomeGrid) -> str:
    """Return the table as HTML."""
    return table_as_html(_headline(result), *_table(result, grid), _remarks(result, grid))


def table_as_text(headline: str, header: list[str], rows: list[list[str]], remarks: Sequence[str]) -> str:
    """Return a table whose first column are names as plain text."""
    labels = shortened([row[0] for row in rows], 40)
    cells = [header, *([label, *row[1:]] for label, row in zip(labels, rows, strict=True))]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    lines = [headline]
    for row in cells:
        padded = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
        lines.append("  ".join([row[0].ljust(widths[0]), *padded[1:]]))
    return "\n".join([*lines, *remarks])


def table_as_html(headline: str, header: list[str], rows: list[list[str]], remarks: Sequence[str]) -> str:
    """Return a table whose first column are names as HTML."""
    head = "".join(f'<th style="text-align: {_side(i)}">{escape(cell)}</th>' for i, cell in enumerate(header))
    body = "".join(
        "<tr>"
        + "".join(f'<td style="text-align: {_side(i)}">{escape(cell)}</td>' for i, cell in enumerate(row))
        + "</tr>"
        for row in rows
    )
    told = "".join(f"<p>{escape(line)}</p>" for line in remarks)
    return (
        f"<div><p>{escape(headline)}</p>"
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{told}</div>"
    )


def _side(column: int) -> str:
    return "left" if column == 0 else "right"


def _table(result: CVResult, grid: OutcomeGrid) -> tuple[list[str], list[list[str]]]:
    metrics = list(result.metrics[:MOST_METRICS])
    cells = {model: [model] for model in result.ranked_models[:MOST_MODELS]}
    for metric in metrics:
        for model, mean, std in zip(grid.models, *grid.mean_and_std(metric), strict=True):
            if model in cells:
                cells[model].append("nan" if isnan(mean) else f"{number(mean)} ± {number(std)}")
    return ["model", *metrics], list(cells.values())


def _headline(result: CVResult) -> str:
    jobs = "" if result.n_jobs is None else f", n_jobs={result.n_jobs}"
    return (
        f"CVResult: {_count(len(result.models), 'model')} on {_count(result.n_folds, 'fold')}, "
        f"backend={result.backend!r}{jobs}, random_state={result.random_state}, {result.wall_time:.3g} s"
    )


def _remarks(result: CVResult, grid: OutcomeGrid) -> Sequence[str]:
    n_tasks = len(result.models) * result.n_folds
    remarks = []
    if len(result.models) > MOST_MODELS:
        remarks.append(f"… and {len(result.models) - MOST_MODELS} more models: summary() has all")
    if len(result.metrics) > MOST_METRICS:
        remarks.append(f"… and {len(result.metrics) - MOST_METRICS} more metrics: summary() has all")
    if result.journal is not None:
        remarks += _of_journal(result.journal, n_tasks)
    if result.n_shared_fits:
        remarks.append(
            f"{_count(result.n_shared_fits, 'fit')} of steps saved, {result.saved_time:.3g} s of work"
        )
    if n_again := sum(outcome.attempts > 1 for outcome in grid):
        remarks.append(
            f"{_count(n_again, 'task')} run more than once, since workers were lost; see slowest()"
        )
    if result.interrupted or result.missing:
        why = "interrupted: " if result.interrupted else ""
        remarks.append(f"{why}{len(result.missing)} of {_count(n_tasks, 'task')} did not run; see .missing")
    if result.failures:
        remarks.append(f"{len(result.failures)} of {_count(n_tasks, 'task')} failed; see .failures")
    if result.warnings:
        remarks.append(f"{_count(len(result.warnings), 'warning')}; see .warnings")
    return remarks


def _of_journal(use: JournalUse, n_tasks: int) -> Iterator[str]:
    yield f"{len(use.taken)} of {_count(n_tasks, 'task')} taken from the journal {use.path!r}"
    if use.reason:
        yield f"nothing could be taken from it: {use.reason}"
    for model, why in use.untrusted.items():
        yield f"not kept in it: {model!r}, {why}"
    if use.stopped:
        yield f"nothing more was recorded in it from some point on: {use.stopped}"


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"
