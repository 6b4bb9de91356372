"""Predictions of folds become what cross_val_predict returns."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import polars as pl
import pytest
from scipy import sparse
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.datasets import make_classification, make_multilabel_classification, make_regression
from sklearn.ensemble import IsolationForest, RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import KFold, RepeatedKFold, ShuffleSplit, StratifiedKFold, cross_val_predict
from sklearn.multiclass import OneVsRestClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier

from anyfold.errors import InvalidInputError
from anyfold.results.predictions import align_to_classes

METHODS = ["predict", "predict_proba", "predict_log_proba", "decision_function"]
X, Y3 = make_classification(n_samples=90, n_features=8, n_informative=5, n_classes=3, random_state=0)
Y2 = (Y3 > 0).astype(int)
SHUFFLED = list(StratifiedKFold(3, shuffle=True, random_state=1).split(X, Y3))
WORDS = np.array(["zebra", "ant", "mole"])


def assert_same(answer, expected):
    assert type(answer) is type(expected)
    if isinstance(expected, list):
        assert len(answer) == len(expected)
        for one, other in zip(answer, expected, strict=True):
            assert_same(one, other)
    elif sparse.issparse(expected):
        assert answer.format == expected.format and answer.dtype == expected.dtype
        np.testing.assert_array_equal(answer.toarray(), expected.toarray())
    else:
        assert answer.dtype == expected.dtype and answer.shape == expected.shape
        np.testing.assert_array_equal(answer, expected)


def compare(make, model, X, y, splits, method):
    """Compare with scikit-learn, whose warning about missing classes is not the matter."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        expected = cross_val_predict(model, X, y, cv=splits, method=method)
        result = make.cross_validated({"model": model}, X, y, splits, scoring=False, methods=[method])
        assert_same(result.predictions("model", method), expected)
        assert_same(result.predictions("model"), expected)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "y", [Y2, Y3, WORDS[Y3], Y3 == 1, Y3 - 7.0], ids=["binary", "multi", "text", "bool", "float"]
)
def test_predictions_are_those_of_cross_val_predict(make, method, y):
    compare(make, LogisticRegression(), X, y, SHUFFLED, method)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("y", [Y3, WORDS[Y3]], ids=["numbers", "text"])
def test_classes_that_a_fold_lacks_are_filled_in(make, method, y):
    y = y.copy()
    y[:4] = 9 if y.dtype.kind == "i" else "bee"
    splits = [
        (np.arange(4, 90), np.arange(4)),
        (np.arange(60), np.arange(60, 90)),
        (np.arange(60), np.arange(4, 60)),
    ]
    compare(make, LogisticRegression(), X, y, splits, method)


def test_filling_in_warns_of_model_and_fold(make):
    y = Y3.copy()
    y[:4] = 9
    splits = [(np.arange(4, 90), np.arange(4)), (np.arange(60), np.arange(4, 90))]
    result = make.cross_validated(
        {"logit": LogisticRegression()}, X, y, splits, scoring=False, methods=["predict_proba", "predict"]
    )
    with pytest.warns(
        RuntimeWarning, match="model 'logit', fold 0 have 3 of 4 classes; predict_proba is filled in"
    ):
        assert (result.predictions("logit", "predict_proba")[:4, 3] == 0).all()
    result.predictions("logit", "predict")


def test_decisions_that_cannot_be_placed_are_refused(make):
    y = Y3.copy()
    y[:4] = 9
    model = SVC(decision_function_shape="ovo")
    two = np.flatnonzero(Y3[4:] < 2) + 4
    splits = [(two, np.setdiff1d(np.arange(90), two)), (np.arange(90), two)]
    result = make.cross_validated({"svc": model}, X, y, splits, scoring=False, methods=["decision_function"])
    with pytest.raises(
        InvalidInputError, match=r"decision_function of model 'svc', fold 0 has shape \(\d+,\)"
    ):
        result.predictions("svc")


@pytest.mark.parametrize("method", ["predict", "predict_proba", "predict_log_proba"])
def test_several_outputs_make_a_list(make, method):
    y = np.column_stack([Y3, Y2 + 5])
    compare(make, RandomForestClassifier(3, random_state=0), X, y, SHUFFLED, method)


def test_an_output_that_lacks_a_class_is_filled_in(make):
    y = np.column_stack([Y3, Y2])
    y[:4, 0] = 9
    splits = [(np.arange(4, 90), np.arange(4)), (np.arange(60), np.arange(4, 90))]
    compare(make, DecisionTreeClassifier(random_state=0), X, y, splits, "predict_proba")


@pytest.mark.parametrize("method", ["predict", "predict_proba"])
@pytest.mark.parametrize("kind", ["columns", "one against rest"])
def test_multilabel_columns_are_outputs_not_classes(make, method, kind):
    X, y = make_multilabel_classification(60, 5, n_classes=4, random_state=0)
    model = MLPClassifier((4,), max_iter=2000, tol=1e-2, random_state=0)
    if kind == "one against rest":
        model = OneVsRestClassifier(LogisticRegression())
    compare(make, model, X, y, list(KFold(3).split(X)), method)


@pytest.mark.parametrize("form", ["csr", "csc", "coo"])
def test_sparse_predictions_stay_sparse(make, form):
    X, y = make_multilabel_classification(
        60, 5, n_classes=4, random_state=0, sparse=True, return_indicator="sparse"
    )
    model = OneVsRestClassifier(LogisticRegression())
    splits = list(KFold(3, shuffle=True, random_state=0).split(X))
    dense = make.cross_validated(
        {"m": model}, X.tocsr(), y.toarray(), splits, scoring=False, methods=["predict"]
    )
    expected = cross_val_predict(model, X, y, cv=splits)
    assert sparse.issparse(expected)
    outcomes = [
        make.outcome(
            "m",
            fold,
            {"score": 0.0},
            payload={"predictions": {"predict": (expected[test].asformat(form), None)}},
        )
        for fold, (_, test) in enumerate(splits)
    ]
    result = make.result_of(outcomes, splits=splits, n_samples=60, response_methods=("predict",))
    assert_same(result.predictions("m"), expected.asformat(form))
    np.testing.assert_array_equal(dense.predictions("m"), expected.toarray())


def test_regressors_and_several_targets(make):
    X, y = make_regression(60, 5, n_targets=2, random_state=0)
    splits = list(KFold(3, shuffle=True, random_state=0).split(X))
    compare(make, LinearRegression(), X, y, splits, "predict")
    compare(make, LinearRegression(), X, y[:, 0], splits, "predict")


def test_estimators_without_classes_are_left_as_they_are(make):
    compare(make, IsolationForest(n_estimators=3, random_state=0), X, None, SHUFFLED, "decision_function")


class FrameRegressor(RegressorMixin, BaseEstimator):
    """Predicts frames, as an estimator with an output container of its own does."""

    def __init__(self, container=pd.DataFrame):
        self.container = container

    def fit(self, X, y):
        self.mean_ = float(np.mean(y))
        return self

    def predict(self, X):
        return self.container({"mean": X[:, 0] + self.mean_, "twice": 2 * X[:, 0]})


@pytest.mark.parametrize("container", [pd.DataFrame, pl.DataFrame], ids=["pandas", "polars"])
def test_frames_become_arrays_as_in_cross_val_predict(make, container):
    compare(make, FrameRegressor(container), X, Y3, SHUFFLED, "predict")


class FrameClassifier(ClassifierMixin, BaseEstimator):
    """Probabilities in a frame whose columns are the classes."""

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        return self

    def predict(self, X):
        return pd.Series(np.full(len(X), self.classes_[0]))

    def predict_proba(self, X):
        return pd.DataFrame(
            np.full((len(X), len(self.classes_)), 1 / len(self.classes_)), columns=self.classes_
        )


@pytest.mark.parametrize("method", ["predict", "predict_proba"])
def test_frames_of_probabilities_become_arrays(make, method):
    compare(make, FrameClassifier(), X, Y3, SHUFFLED, method)


def test_frames_of_probabilities_are_filled_in(make):
    splits = [(np.flatnonzero(Y3 != 1), np.flatnonzero(Y3 == 1)), (np.arange(90), np.flatnonzero(Y3 != 1))]
    result = make.cross_validated(
        {"m": FrameClassifier()}, X, Y3, splits, scoring=False, methods=["predict_proba"]
    )
    with pytest.warns(RuntimeWarning, match="2 of 3 classes"):
        proba = result.predictions("m")
    assert proba[Y3 == 1].tolist() == [[0.5, 0.0, 0.5]] * int((Y3 == 1).sum())


def test_repeated_and_partial_test_sets_come_by_fold(make):
    splits = list(ShuffleSplit(4, test_size=0.4, random_state=0).split(X))
    result = make.cross_validated(
        {"m": LogisticRegression()}, X, Y3, splits, scoring=False, methods=["predict"]
    )
    answer = result.predictions("m")
    assert len(answer) == 4
    for (train, test), (rows, values) in zip(splits, answer, strict=True):
        np.testing.assert_array_equal(rows, test)
        np.testing.assert_array_equal(values, LogisticRegression().fit(X[train], Y3[train]).predict(X[test]))


def test_samples_that_are_tested_twice_come_by_fold(make):
    splits = list(RepeatedKFold(n_splits=2, n_repeats=2, random_state=0).split(X))
    result = make.cross_validated(
        {"m": LogisticRegression()}, X, Y3, splits, scoring=False, methods=["predict"]
    )
    assert [len(rows) for rows, _ in result.predictions("m")] == [45] * 4


def test_a_target_of_one_column_has_one_set_of_classes():
    values = np.array([[0.25, 0.75]])
    with pytest.warns(RuntimeWarning, match="2 of 3 classes"):
        answer = align_to_classes(
            values, np.array([1, 3]), [np.array([1, 2, 3])], "predict_proba", "model 'm', fold 0"
        )
    assert answer.tolist() == [[0.25, 0.0, 0.75]]


def test_a_label_that_never_changes_is_still_a_column():
    values = np.array([[0.25, 1.0, 0.5]])
    labels = [np.array([0, 1]), np.array([1]), np.array([0, 1])]
    answer = align_to_classes(values, np.arange(3), labels, "predict_proba", "model 'm', fold 0")
    assert answer is values


def test_by_fold_keeps_a_partition_apart(make):
    result = make.cross_validated(
        {"m": LogisticRegression()}, X, Y3, SHUFFLED, scoring=False, methods=["predict"]
    )
    whole = result.predictions("m")
    for (_, test), (rows, values) in zip(SHUFFLED, result.predictions("m", by_fold=True), strict=True):
        np.testing.assert_array_equal(rows, test)
        np.testing.assert_array_equal(values, whole[test])


def test_a_fold_without_predictions_is_named_and_never_filled_up(make):
    def predicted(fold):
        payload = {"predictions": {"predict": (np.array([fold]), None)}}
        return make.outcome("m", fold, {"score": 0.0}, payload=payload)

    failed = make.outcome("m", 1, None, failure=make.failed())
    result = make.result_of([predicted(2), failed, predicted(0)], n_folds=4, response_methods=("predict",))
    with pytest.raises(
        InvalidInputError, match=r"no predict of model 'm' on fold 1, 3, which failed or did not run"
    ):
        result.predictions("m")
    by_fold = result.predictions("m", by_fold=True)
    assert [None if values is None else values.tolist() for _, values in by_fold] == [[0], None, [2], None]


def test_predictions_of_the_wrong_length_are_refused(make):
    payload = {"predictions": {"predict": (np.array([1, 2]), None)}}
    result = make.result_of(
        [make.outcome("m", 0, {"score": 0.0}, payload=payload)], response_methods=("predict",)
    )
    with pytest.raises(
        InvalidInputError, match=r"predict of model 'm', fold 0 has shape \(2,\) for 1 test samples"
    ):
        result.predictions("m")


def test_predictions_that_were_not_kept_are_refused(make):
    with pytest.raises(InvalidInputError, match="return_predictions="):
        make.scored({"m": [1.0]}).predictions("m")
    result = make.scored({"m": [1.0]}, response_methods=("predict_proba", "predict"))
    with pytest.raises(InvalidInputError, match="did you mean 'predict_proba'"):
        result.predictions("m", "predict_prob")


def test_columns_whose_classes_are_unknown_are_refused(make):
    payload = {"predictions": {"predict_proba": (np.array([[0.5, 0.5]]), np.array(["x", "y"]))}}
    result = make.result_of(
        [make.outcome("m", 0, {"score": 0.0}, payload=payload)],
        response_methods=("predict_proba",),
        classes=np.array(["a", "b", "c"]),
    )
    with pytest.raises(InvalidInputError, match=r"model 'm', fold 0 has classes \['x', 'y'\]"):
        result.predictions("m")
