"""Bad input gets a clear error before any work starts: the thing, the value, what is allowed, what to do."""

from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import numpy as np
import pytest
from sklearn.base import BaseEstimator
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import KFold
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import SVC

import anyfold as af
from anyfold.errors import (
    AnyfoldError,
    InvalidInputError,
    InvalidSettingError,
    MissingDependencyError,
    UnknownBackendError,
    UnsupportedFeatureError,
)

X, y = load_iris(return_X_y=True)


class Witness(BaseEstimator):
    """Leaves a file behind when it is fitted."""

    def __init__(self, path=None):
        self.path = path

    def fit(self, X, y):
        from pathlib import Path

        Path(self.path).touch()
        return self

    def score(self, X, y):
        return 0.0


@pytest.fixture
def refuses(tmp_path):
    """Calls run_cv with something wrong in it; no fit may have been started by then."""

    def check(error, *parts, models=None, folds=None, **kwargs):
        witness = tmp_path / "fitted"
        given = {"w": Witness(str(witness))} if models is None else models
        with pytest.raises(error) as caught:
            af.run_cv(given, af.Folds(X, y) if folds is None else folds, **kwargs)
        for part in parts:
            assert part in str(caught.value), str(caught.value)
        assert isinstance(caught.value, (AnyfoldError, TypeError))
        assert not witness.exists()

    return check


def test_an_unknown_backend_names_the_near_ones(refuses):
    refuses(UnknownBackendError, "'lokey'", "loky", backend="lokey")
    refuses(LookupError, "'proceses'", "processes", backend="proceses")


def test_a_missing_package_gives_the_pip_command(refuses):
    af.register_backend("cluster", "anyfold_no_such_module:Cluster", requires="anyfold[ray]", replace=True)
    refuses(MissingDependencyError, 'pip install "anyfold[ray]"', backend="cluster")


def test_a_bad_variable_is_named_with_its_value(refuses, monkeypatch):
    monkeypatch.setenv("ANYFOLD_N_JOBS", "four")
    refuses(InvalidSettingError, "ANYFOLD_N_JOBS", "'four'", "n_jobs takes")


@pytest.mark.parametrize("value", [0, 1.5, "2", True])
def test_a_bad_n_jobs_is_named(refuses, value):
    refuses(InvalidSettingError, "n_jobs", repr(value), n_jobs=value)


def test_an_unknown_setting_names_the_near_one(refuses):
    refuses(TypeError, "'njobs'", "n_jobs", njobs=2)


def test_lengths_that_differ_are_told():
    with pytest.raises(InvalidInputError, match="X has 150, y has 149"):
        af.Folds(X, y[:-1])
    with pytest.raises(InvalidInputError, match="groups has 2"):
        af.Folds(X, y, groups=[1, 2], cv=KFold(2))


@pytest.mark.parametrize("wrong", [None, 3, object()])
def test_what_has_no_samples_is_refused(wrong):
    with pytest.raises(InvalidInputError, match="X is"):
        af.Folds(wrong)


def test_no_samples_at_all_are_refused():
    with pytest.raises(InvalidInputError, match="X is empty"):
        af.Folds(np.zeros((0, 2)))


@pytest.mark.parametrize(
    ("folds", "how"),
    [
        (KFold(3), "anyfold.Folds(X, y, cv=KFold("),
        ([(y > 0, y == 0)], "anyfold.Folds(X, y, cv=[(train, test), ...])"),
        (5, "anyfold.Folds(X, y, cv=5)"),
        (X, "anyfold.Folds(X, y, cv=5)"),
    ],
    ids=["splitter", "list", "int", "array"],
)
def test_what_is_no_folds_is_told_how_to_write_it(refuses, folds, how):
    refuses(InvalidInputError, "not Folds", how, folds=folds)


def test_what_is_no_estimator_is_refused(refuses):
    refuses(InvalidInputError, "model 'x' is no estimator", models={"x": 3})


def test_two_models_of_one_name_are_refused(refuses):
    refuses(InvalidInputError, "two models are named 'a'", models=[("a", Ridge()), ("a", Ridge())])


def test_a_model_that_cannot_be_cloned_is_refused(refuses):
    class Uncloneable(Ridge):
        def __init__(self, alpha=1.0):
            super().__init__(alpha=alpha + 1)

    refuses(InvalidInputError, "model 'u' cannot be cloned", models={"u": Uncloneable()})


def test_a_scorer_that_does_not_exist_names_the_near_one(refuses):
    refuses(InvalidInputError, "'acuracy'", "accuracy", scoring="acuracy")


def test_a_scorer_that_needs_what_a_model_lacks_is_refused(refuses):
    refuses(InvalidInputError, "predict_proba", "'svc'", models={"svc": SVC()}, scoring="neg_log_loss")


def test_predictions_that_a_model_cannot_give_are_refused(refuses):
    refuses(
        InvalidInputError, "predict_proba", "'r'", models={"r": Ridge()}, return_predictions="predict_proba"
    )


def test_a_multimetric_scorer_must_return_the_same_keys():
    def score(estimator, X, y):
        return {"a": 1.0} if y[0] == y[-1] else {"b": 1.0}

    folds = af.Folds(X, y, cv=[(np.arange(90), np.arange(110, 150)), (np.arange(90), np.arange(90, 110))])
    with pytest.raises(InvalidInputError, match=r"returned \['b'\] for model .* fold 1, but \['a'\]"):
        af.run_cv(KNeighborsClassifier(), folds, scoring=score, backend="serial")


def test_parameters_that_fit_does_not_take_are_refused(refuses):
    refuses(
        InvalidInputError,
        "'sample_weight'",
        "'knn'",
        models={"knn": KNeighborsClassifier()},
        params={"sample_weight": np.ones(150)},
    )


@pytest.mark.parametrize("value", ["zero", 1.5, -1, True])
def test_a_random_state_of_a_wrong_type_is_refused(refuses, value):
    refuses(InvalidInputError, "random_state=", repr(value), random_state=value)


@pytest.mark.parametrize("value", ["rise", None, True])
def test_an_error_score_of_a_wrong_type_is_refused(refuses, value):
    refuses(InvalidInputError, "error_score=", error_score=value)


@pytest.mark.parametrize("pool", [ThreadPoolExecutor, ProcessPoolExecutor])
def test_an_executor_that_is_shut_down_is_refused(refuses, pool):
    executor = pool(1)
    executor.shutdown()
    refuses(InvalidInputError, "shut down", backend=executor)


def test_an_executor_of_ours_that_is_shut_down_is_refused(refuses):
    executor = af.get_executor("multiprocessing", n_jobs=1)
    executor.shutdown()
    refuses(InvalidInputError, "shut down", backend=executor)


@pytest.mark.parametrize("setting", [{"n_jobs": 2}, {"backend_options": {"start_method": "spawn"}}], ids=str)
def test_settings_of_workers_beside_an_executor_are_refused(refuses, setting):
    with ThreadPoolExecutor(1) as executor:
        refuses(InvalidSettingError, next(iter(setting)), backend=executor, **setting)


def test_something_that_is_no_executor_is_refused(refuses):
    refuses(InvalidSettingError, "backend", backend=object())


def test_an_unknown_option_of_a_backend_is_refused(refuses):
    given = {"backend": "multiprocessing", "backend_options": {"start_metod": "spawn"}}
    refuses(InvalidSettingError, "start_metod", "start_method", **given)


def test_options_without_the_backend_that_they_are_for_are_refused(refuses):
    refuses(InvalidSettingError, "'auto' has none", backend_options={"start_method": "spawn"})


def test_fork_with_inner_threads_is_refused(refuses):
    refuses(
        UnsupportedFeatureError,
        "inner_threads=2",
        "'fork'",
        inner_threads=2,
        n_jobs=1,
        backend="multiprocessing",
        backend_options={"start_method": "fork"},
    )


def test_a_model_that_fails_everywhere_raises_its_own_error():
    class Hopeless(LogisticRegression):
        def fit(self, X, y):
            raise ArithmeticError("no hope")

    with pytest.raises(ArithmeticError, match="no hope") as caught:
        af.run_cv({"h": Hopeless()}, af.Folds(X, y), backend="serial")
    assert any("model 'h', fold 0" in note for note in caught.value.__notes__)
    assert "Hopeless" in str(caught.value.__cause__) or "fit" in str(caught.value.__cause__)
