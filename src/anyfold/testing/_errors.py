"""Category ``errors``: promise 5, errors of models are results."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from sklearn.exceptions import FitFailedWarning

from anyfold.testing._base import ROOT, ContractBase
from anyfold.testing._case import contract_test
from anyfold.testing.probes import Fails, Probe, ProbeError, count_invocations, probe_data

__all__ = ["ErrorTests"]


class _FailsToScore(Probe):
    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        raise ProbeError("cannot be scored", 3)


class _FailsToPredict(Probe):
    def predict(self, X: Any) -> Any:
        raise ProbeError("cannot predict", 4)


def _folds() -> Any:
    from sklearn.model_selection import KFold

    from anyfold import Folds

    return Folds(*probe_data(), cv=KFold(3))


class ErrorTests(ContractBase):
    """Whether the error of one model harms nothing else and loses nothing."""

    @contract_test("errors")
    def test_an_error_of_a_model_is_kept_with_what_it_is_of(self) -> None:
        """Type, message, arguments, worker traceback, model, fold and parameters of an error are kept."""
        result = self.run_cv({"good": Probe(), "fails": Fails(on=(20,))}, _folds())
        assert [(f.model, f.fold) for f in result.failures] == [("fails", 1)], result.failures
        failure = result.failures[0]
        assert (failure.stage, failure.type) == ("fit", "ProbeError"), failure
        assert "cannot be fitted without sample 20" in failure.message
        assert "in _act" in failure.traceback, f"the worker's traceback is lost:\n{failure.traceback}"
        assert failure.parameters["on"] == (20,)
        error = failure.exception()
        assert type(error) is ProbeError, f"the exception came back as {error!r}"
        assert getattr(error, "code", None) == 20, "the exception's attributes are lost"
        assert result["good"]["test_score"].tolist() == [1.0] * 3
        assert np.isnan(result["fails"]["test_score"]).tolist() == [False, True, False]

    @contract_test("errors")
    def test_an_error_of_a_model_is_never_retried(self) -> None:
        """A model that fails is run once."""
        folder = str(self.folder)
        models = {"fails": Fails(folder, "fails", on=(0, 20)), "good": Probe(folder, "good")}
        result = self.run_cv(models, _folds(), retries=3)
        assert len(result.failures) == 2
        counts = {n: [count_invocations(folder, f"{n}-{i}") for i in (0, 20, 40)] for n in models}
        assert counts == {"fails": [1, 1, 1], "good": [1, 1, 1]}, f"fits were started this often: {counts}"

    @contract_test("errors")
    def test_failures_are_summarised_in_one_warning(self) -> None:
        """One `FitFailedWarning` tells of all failures, and failed tasks have ``error_score``."""
        from anyfold import run_cv

        with self.executor() as executor, warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            models = {"fails": Fails(on=(0, 20)), "good": Probe()}
            result = run_cv(
                models, _folds(), backend=executor, error_score=-5, random_state=ROOT, progress=False
            )
        assert result["fails"]["test_score"].tolist() == [-5, -5, 1.0]
        summaries = [w for w in told if issubclass(w.category, FitFailedWarning)]
        assert len(summaries) == 1, f"{len(summaries)} warnings tell of two failures"
        assert "2 of 6 tasks failed" in str(summaries[0].message)

    @contract_test("errors")
    def test_an_error_can_be_raised(self) -> None:
        """With ``error_score="raise"`` the original exception of the first failure is raised, and named."""
        models = {"good": Probe(), "fails": Fails(on=(20, 40))}
        error = self._raised(models, error_score="raise")
        assert type(error) is ProbeError, f"{error!r} was raised, not the original"
        assert getattr(error, "code", None) == 20, f"not the first failure in the order of folds: {error!r}"
        notes = " ".join(getattr(error, "__notes__", ()))
        assert "'fails', fold 1" in notes, f"the note does not name the task: {notes!r}"

    @contract_test("errors")
    def test_when_all_fail_the_error_is_raised(self) -> None:
        """Where nothing came of a run, the original exception is raised."""
        error = self._raised({"fails": Fails()})
        assert type(error) is ProbeError, f"{error!r} was raised, not the original"

    @contract_test("errors")
    def test_errors_while_scoring_and_predicting_are_results(self) -> None:
        """An error keeps the stage that it was raised in."""
        models = {"score": _FailsToScore(), "predict": _FailsToPredict(), "good": Probe()}
        result = self.run_cv(models, _folds(), return_predictions=True)
        stages = {(f.model, f.fold): f.stage for f in result.failures}
        expected = {(name, fold): name for name in ("score", "predict") for fold in range(3)}
        assert stages == expected, f"failures and their stages are {stages}"
        assert result["good"]["test_score"].tolist() == [1.0] * 3

    def _raised(self, models: Any, **arguments: Any) -> BaseException:
        try:
            self.run_cv(models, _folds(), **arguments)
        except Exception as error:
            return error
        raise AssertionError("nothing was raised")
