"""Whether failures end a run with an error or with a warning."""

from __future__ import annotations

import textwrap
import warnings
from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any

from anyfold._plan.task import Outcome, TaskKey
from anyfold.errors import AnyfoldError
from anyfold.results.cv_result import CVResult
from anyfold.results.fitted_models import FittedModels
from anyfold.results.records import FailureRecord

__all__ = ["raise_or_warn", "raise_or_warn_of_fits"]


def raise_or_warn(result: CVResult, outcomes: Collection[Outcome], error_score: Any) -> None:
    """Raise the original exception where nothing came of a run; warn once where some tasks failed.

    Parameters
    ----------
    result : CVResult
        What came of the run.
    outcomes : collection of Outcome
        Of which it was made.
    error_score : "raise" or number
        As given to the front door.
    """
    if not result.failures:
        return
    n_tasks = len(result.models) * result.n_folds
    if error_score == "raise" or not any(outcome.value is not None for outcome in outcomes):
        first = min(result.failures, key=lambda failure: (failure.fold, result.models.index(failure.model)))
        error = _original(first)
        reason = "error_score is 'raise'" if error_score == "raise" else f"all {n_tasks} tasks failed"
        error.add_note(f"raised in {first.stage} of model {first.model!r}, fold {first.fold} ({reason})")
        raise error
    told = f"{len(result.failures)} of {n_tasks} tasks failed; the scores that they miss are {error_score}. "
    _warn(result.failures, told)


def raise_or_warn_of_fits(fitted: FittedModels, on_error: str) -> None:
    """Do the same for models that were fitted on all of their data."""
    if not fitted.failures:
        return
    n_models = len(fitted.models)
    if on_error == "raise" or len(fitted.failures) == n_models:
        first = fitted.failures[0]
        error = _original(first)
        reason = "on_error is 'raise'" if on_error == "raise" else f"all {n_models} models failed"
        error.add_note(f"raised in {first.stage} of model {first.model!r} ({reason})")
        raise error
    _warn(fitted.failures, f"{len(fitted.failures)} of {n_models} models failed. ")


def _warn(failures: Sequence[FailureRecord], start: str) -> None:
    from sklearn.exceptions import FitFailedWarning

    lines = Counter(_line(failure) for failure in failures)
    told = "\n".join(f"  {n} x {line}" for line, n in lines.items())
    warnings.warn(
        f"{start}result.failures has the tracebacks.\n{told}",
        FitFailedWarning,
        stacklevel=4,
    )


def _line(failure: FailureRecord) -> str:
    first, *_ = failure.message.splitlines() or [""]
    if failure.stage == "worker":  # it names the fold, which would keep the same failures apart
        task = TaskKey(failure.model, 0, failure.fold)
        first = first.partition(f"{str(task).rpartition(', ')[2]}: ")[2] or first
    shown = textwrap.shorten(first, 300, placeholder=" …")
    return f"{failure.model}, {failure.stage}: {failure.type}: {shown}"


def _original(failure: FailureRecord) -> BaseException:
    try:
        error = failure.exception()
    except AnyfoldError as unreadable:
        return unreadable
    if isinstance(error, Exception):
        return error
    # SystemExit would end the caller's program without a word, KeyboardInterrupt is the user's own.
    told = AnyfoldError(f"a model raised {error!r}, which is no Exception")
    told.__cause__ = error
    return told
