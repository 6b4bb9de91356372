"""What scikit-learn is answered to a call that fits and scores: its dictionary, its lines, its warnings."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sklearn.base import clone

from anyfold import _compat
from anyfold._data.serialize import loads
from anyfold._plan.task import Failure, FoldScores, Outcome
from anyfold.errors import AnyfoldError, UnreadableResultError

__all__ = ["MISSING", "FitAndScore", "Replies", "exception_of"]

MISSING = Failure("worker", "TimeoutError", "", "the run ended before this candidate was evaluated\n")


@dataclass(frozen=True, slots=True)
class FitAndScore:
    """A call of scikit-learn's that fits and scores, by the names of its parameters."""

    arguments: Mapping[str, Any]

    def __getattr__(self, name: str) -> Any:
        return self.arguments[name]


Progress = tuple[Any, Any]
"""Which split of how many, and which candidate of how many; None where it is not said."""


@dataclass(frozen=True, slots=True)
class Replies:
    """Answers calls that differ from this one in their parameters, train and test indices only."""

    call: FitAndScore

    def to(
        self,
        parameters: Mapping[str, Any] | None,
        n_test: int,
        outcome: Outcome | None,
        progress: Progress = (None, None),
    ) -> dict[str, Any]:
        """Return the dictionary of one call, and say what scikit-learn would have said."""
        call = self.call
        scores = None if outcome is None else outcome.value
        failure = MISSING if outcome is None else outcome.failure
        told: dict[str, Any] = {"fit_error": None}
        if not isinstance(scores, FoldScores):
            assert failure is not None
            if failure.stage == "score":
                raise exception_of(failure)
            told["fit_error"] = failure.traceback
            scores = FoldScores(self._failed(), self._failed(), 0.0, 0.0)
        elif failure is not None and failure.stage == "result":
            raise UnreadableResultError(
                f"{type(call.estimator).__name__} was fitted, but cannot be sent back, as "
                f"return_estimator=True asks: {failure.type_name}: {failure.message}"
            )
        elif failure is not None:
            warnings.warn(
                "Scoring failed. The score on this train-test partition for these parameters will be set to "
                f"{call.error_score}. Details: \n{failure.traceback}",
                UserWarning,
                stacklevel=2,
            )
        told["test_scores"] = _single(scores.test, call.scorer)
        if call.return_train_score:
            told["train_scores"] = _single(scores.train or {}, call.scorer)
        if call.return_n_test_samples:
            told["n_test_samples"] = n_test
        if call.return_times:
            told |= {"fit_time": scores.fit_time, "score_time": scores.score_time}
        if call.return_parameters:
            told["parameters"] = parameters
        if call.return_estimator and outcome is not None and outcome.payload is not None:
            told["estimator"] = loads(outcome.payload)["estimator"]
        elif call.return_estimator:
            told["estimator"] = clone(call.estimator).set_params(**clone(dict(parameters or {}), safe=False))
        if call.verbose > 1:
            sys.stdout.write(f"{_line(call.verbose, parameters or {}, progress, told)}\n")
        return told

    def _failed(self) -> dict[str, float]:
        names = _compat.scorers_of(self.call.scorer)
        return dict.fromkeys(names, self.call.error_score)


def exception_of(failure: Failure) -> BaseException:
    """Return what to raise for a failure: the original exception, where it could be pickled."""
    if failure.exception is None:
        return AnyfoldError(f"{failure.type_name}: {failure.message}\n{failure.traceback}")
    error: BaseException = loads(failure.exception)
    return error


def _single(scores: Mapping[str, float], scorer: Any) -> Any:
    """Return a number where there is one metric without a name, as scikit-learn has it."""
    if not _compat.is_multimetric(scorer) and list(scores) == ["score"]:
        return scores["score"]
    return dict(scores)


def _line(verbose: int, given: Mapping[str, Any], progress: Progress, told: Mapping[str, Any]) -> str:
    """Return the line that scikit-learn prints for one call at this verbosity."""
    split, candidate = progress
    where = ""
    if verbose > 2 and split is not None:
        where = f" {split[0] + 1}/{split[1]}"
    if verbose > 9 and candidate:
        where += f"; {candidate[0] + 1}/{candidate[1]}"
    what = ", ".join(f"{name}={given[name]}" for name in sorted(given))
    if what:
        what += ";"
    if verbose > 2:
        test, train = told["test_scores"], told.get("train_scores")
        if isinstance(test, dict):
            for name in sorted(test):
                also = "" if train is None else f"train={train[name]:.3f}, "
                what += f" {name}: ({also}test={test[name]:.3f})"
        elif train is None:
            what += f", score={test:.3f}"
        else:
            what += f", score=(train={train:.3f}, test={test:.3f})"
    seconds = told.get("fit_time", 0.0) + told.get("score_time", 0.0)
    what += f" total time={_compat.short_format_time(seconds)}"
    begin = f"[CV{where}] END "
    return begin + "." * (80 - len(begin) - len(what)) + what
