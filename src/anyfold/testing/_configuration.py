"""Category ``configuration``: promise 11, configuration travels, and settings are not ignored."""

from __future__ import annotations

from typing import Any

import numpy as np
import sklearn

from anyfold.errors import InvalidSettingError, UnsupportedFeatureError
from anyfold.executors.base import capabilities_of
from anyfold.testing._base import ContractBase, oracle
from anyfold.testing._case import contract_test
from anyfold.testing.probes import Probe, probe_data

__all__ = ["ConfigurationTests"]


class _KeepsConfiguration(Probe):
    """Keeps scikit-learn's configuration as it is while fitting and scoring."""

    def fit(self, X: Any, y: Any = None, **params: Any) -> Probe:
        super().fit(X, y)
        self.configuration_ = sklearn.get_config()
        return self


class _KeepsWeights(Probe):
    """Keeps the weights that it was given."""

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None, **params: Any) -> Probe:
        super().fit(X, y)
        self.rows_ = np.asarray(X)[:, 0].tolist()
        self.weights_ = None if sample_weight is None else np.asarray(sample_weight).tolist()
        return self


def _folds() -> Any:
    from sklearn.model_selection import KFold

    from anyfold import Folds

    return Folds(*probe_data(), cv=KFold(3, shuffle=True, random_state=0))


class ConfigurationTests(ContractBase):
    """Whether tasks run under the configuration of the caller."""

    @contract_test("configuration")
    def test_the_configuration_of_scikit_learn_travels(self) -> None:
        """Tasks see the configuration that is in force where the run is started, and only then."""
        with sklearn.config_context(assume_finite=True, working_memory=123, print_changed_only=False):
            expected = sklearn.get_config()
            result = self.run_cv({"keeps": _KeepsConfiguration()}, _folds(), return_estimator=True)
        for model in result.estimators("keeps"):
            assert model.configuration_ == expected, f"a task saw {model.configuration_}"
        result = self.run_cv({"keeps": _KeepsConfiguration()}, _folds(), return_estimator=True)
        for model in result.estimators("keeps"):
            assert model.configuration_ == sklearn.get_config(), f"a later task saw {model.configuration_}"

    @contract_test("configuration")
    def test_sample_weights_are_cut_like_the_data(self) -> None:
        """Parameters with one value per sample are cut with the fold."""
        weights = np.arange(60) * 10.0
        result = self.run_cv(
            {"keeps": _KeepsWeights()}, _folds(), params={"sample_weight": weights}, return_estimator=True
        )
        assert not result.failures, result.failures[0].traceback
        for model in result.estimators("keeps"):
            assert model.weights_ == [10.0 * row for row in model.rows_], "weights of other samples arrived"

    @contract_test("configuration")
    def test_metadata_is_routed(self) -> None:
        """With metadata routing, what a model and its scorer request reaches them as it does serially."""
        from sklearn.linear_model import LogisticRegression
        from sklearn.metrics import get_scorer

        weights = np.random.default_rng(0).uniform(0.1, 5, 60)
        with sklearn.config_context(enable_metadata_routing=True):
            model = LogisticRegression().set_fit_request(sample_weight=True)
            scoring = {"accuracy": get_scorer("accuracy").set_score_request(sample_weight=True)}
            arguments = {"scoring": scoring, "params": {"sample_weight": weights}}
            expected = oracle({"m": model}, _folds(), **arguments)
            found = self.run_cv({"m": model}, _folds(), **arguments)
        assert not found.failures, found.failures[0].traceback
        have, want = found["m"]["test_accuracy"], expected["m"]["test_accuracy"]
        assert have.tobytes() == want.tobytes(), f"scores are {have}, serially {want}"

    @contract_test("configuration")
    def test_settings_that_an_executor_has_decided_are_errors(self) -> None:
        """``n_jobs`` and ``backend_options`` beside an executor are errors: it has its own."""
        for setting in ({"n_jobs": 2}, {"backend_options": {"anything": 1}}):
            try:
                self.run_cv(Probe(), _folds(), **setting)
            except InvalidSettingError as error:
                assert next(iter(setting)) in str(error)
                continue
            raise AssertionError(f"{setting} beside an executor was ignored")

    @contract_test("configuration")
    def test_resources_of_a_run_are_respected_or_refused(self) -> None:
        """``resources`` reaches an executor that places tasks by them; any other refuses it."""
        with self.executor() as executor:
            resources = {"probe": {"cpu": 1.0}}
            if "resources" in capabilities_of(executor):
                result = self.run_cv({"probe": Probe()}, _folds(), executor, resources=resources)
                assert not result.failures, result.failures
                return
            self.note("placing tasks by resources: it does not declare 'resources'")
            try:
                self.run_cv({"probe": Probe()}, _folds(), executor, resources=resources)
            except UnsupportedFeatureError:
                return
        raise AssertionError("resources were ignored by an executor that cannot place tasks by them")
