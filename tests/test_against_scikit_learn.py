"""Numbers equal scikit-learn's own on the same folds with the same thread limits."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.sparse as sp
import sklearn
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris
from sklearn.decomposition import PCA
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import ExtraTreesRegressor, RandomForestClassifier
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import accuracy_score, make_scorer
from sklearn.model_selection import (
    GroupKFold,
    KFold,
    RepeatedStratifiedKFold,
    ShuffleSplit,
    StratifiedKFold,
    cross_val_predict,
    cross_validate,
)
from sklearn.multioutput import MultiOutputClassifier
from sklearn.naive_bayes import MultinomialNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier
from threadpoolctl import threadpool_limits

import anyfold as af

IRIS = load_iris(return_X_y=True)
CANCER = load_breast_cancer(return_X_y=True)
DIABETES = load_diabetes(return_X_y=True)


@pytest.fixture(params=["serial", "multiprocessing"])
def backend(request):
    return request.param


def same_as_scikit_learn(model, X, y, cv, backend, *, scoring=None, params=None, groups=None, **more):
    """Run both and compare every score that scikit-learn returns, as bytes."""
    splits = list(cv.split(X if hasattr(X, "shape") else np.zeros((len(X), 1)), y, groups))
    with threadpool_limits(1):
        expected = cross_validate(
            model, X, y, cv=splits, scoring=scoring, params=params, return_train_score=True, **more
        )
    folds = af.Folds(X, y, cv=splits)
    result = af.run_cv(
        {"m": model},
        folds,
        scoring=scoring,
        params=params,
        return_train_score=True,
        backend=backend,
        n_jobs=2,
        **more,
    )
    found = result["m"]
    assert set(found) == set(expected)
    for key, values in expected.items():
        if key.startswith(("test_", "train_")):
            assert found[key].dtype == values.dtype
            assert found[key].tobytes() == values.tobytes(), key
    return result


def named_metrics(estimator, X, y):
    return {"a": accuracy_score(y, estimator.predict(X)), "b": np.float64(len(y))}


@pytest.mark.parametrize(
    "scoring",
    [
        None,
        "accuracy",
        ["accuracy", "f1_macro"],
        ("accuracy", "neg_log_loss"),
        {"acc": "accuracy", "own": make_scorer(accuracy_score)},
        make_scorer(accuracy_score, normalize=False),
        named_metrics,
        lambda estimator, X, y: 0.5,
    ],
    ids=lambda scoring: getattr(scoring, "__name__", str(scoring)),
)
def test_every_form_of_scoring(scoring, backend):
    same_as_scikit_learn(
        LogisticRegression(max_iter=500), *IRIS, StratifiedKFold(4), backend, scoring=scoring
    )


@pytest.mark.parametrize(
    "model",
    [
        make_pipeline(StandardScaler(), PCA(3), LogisticRegression()),
        RandomForestClassifier(10, random_state=0),
        DecisionTreeClassifier(random_state=np.random.RandomState(3)),
        SVC(kernel="poly"),
    ],
    ids=lambda model: type(model).__name__,
)
def test_every_kind_of_model(model, backend):
    same_as_scikit_learn(
        model,
        *CANCER,
        StratifiedKFold(3, shuffle=True, random_state=0),
        backend,
        scoring=["accuracy", "roc_auc"],
    )


ARRAYS = {
    "C order": np.ascontiguousarray,
    "Fortran order": np.asfortranarray,
    "float32": lambda X: X.astype(np.float32),
    "every other column of a wider array": lambda X: np.repeat(X, 2, axis=1)[:, ::2],
    "rows backwards and forwards": lambda X: X[::-1].copy()[::-1],
    "big-endian": lambda X: X.astype(">f8"),
    "integers": lambda X: (X * 100).astype(np.int32),
    "read-only": lambda X: _read_only(X.copy()),
    "csr": sp.csr_matrix,
    "csc": sp.csc_array,
    "coo": sp.coo_matrix,
    "pandas": pd.DataFrame,
    "pandas, Fortran order": lambda X: pd.DataFrame(np.asfortranarray(X)),
    "pandas, Arrow": lambda X: pd.DataFrame(X).astype("double[pyarrow]"),
    "pandas, nullable": lambda X: pd.DataFrame(X).astype("Float64"),
    "pandas, mixed": lambda X: pd.DataFrame(X).astype({0: "float32", 1: "int64"}),
    "polars": lambda X: pl.DataFrame(X, schema=[f"c{i}" for i in range(X.shape[1])]),
    "nested lists": lambda X: X.tolist(),
}


def _read_only(X):
    X.flags.writeable = False
    return X


@pytest.mark.parametrize("kind", ARRAYS)
def test_every_kind_of_data(kind, backend):
    X, y = DIABETES
    same_as_scikit_learn(
        Ridge(), ARRAYS[kind](X), y, KFold(3), backend, scoring=["r2", "neg_mean_absolute_error"]
    )
    same_as_scikit_learn(
        ExtraTreesRegressor(4, random_state=0), ARRAYS[kind](X[:150]), y[:150], KFold(3), backend
    )


TARGETS = {
    "text": lambda y: np.array(["setosa", "versicolor", "virginica"])[y],
    "object": lambda y: np.array(["setosa", "versicolor", "virginica"], dtype=object)[y],
    "pandas": pd.Series,
    "pandas text": lambda y: pd.Series(np.array(["a", "b", "c"])[y], index=np.arange(len(y))[::-1]),
    "pandas category": lambda y: pd.Series(np.array(["a", "b", "c"])[y], dtype="category"),
    "polars": pl.Series,
    "list": lambda y: y.tolist(),
}


@pytest.mark.parametrize("kind", TARGETS)
def test_every_kind_of_target(kind, backend):
    X, y = IRIS
    target = TARGETS[kind](y)
    splits = StratifiedKFold(3).split(X, y)
    with threadpool_limits(1):
        expected = cross_validate(DecisionTreeClassifier(random_state=0), X, target, cv=list(splits))
    folds = af.Folds(X, target, cv=3)
    found = af.run_cv(DecisionTreeClassifier(random_state=0), folds, backend=backend, n_jobs=2)
    assert found["decisiontreeclassifier"]["test_score"].tobytes() == expected["test_score"].tobytes()


def test_lists_of_text(backend):
    X = [f"{'good' if i % 3 else 'bad'} film number {i % 7}" for i in range(60)]
    y = np.array([i % 3 > 0 for i in range(60)])
    same_as_scikit_learn(
        make_pipeline(CountVectorizer(), MultinomialNB()),
        X,
        y,
        StratifiedKFold(3),
        backend,
        scoring="roc_auc",
    )


def test_frames_with_text_and_categories(backend):
    from sklearn.compose import make_column_transformer
    from sklearn.preprocessing import OneHotEncoder

    X, y = IRIS
    frame = pd.DataFrame(
        {
            "a": X[:, 0],
            "text": [f"t{int(v)}" for v in X[:, 1]],
            "cat": pd.Categorical((X[:, 2] // 2).astype(str)),
        }
    )
    model = make_pipeline(
        make_column_transformer(
            (OneHotEncoder(handle_unknown="ignore"), ["text", "cat"]), remainder="passthrough"
        ),
        LogisticRegression(max_iter=200),
    )
    same_as_scikit_learn(model, frame, y, StratifiedKFold(3, shuffle=True, random_state=0), backend)


def test_precomputed_kernels_are_sliced_along_both_axes(backend):
    X, y = IRIS
    same_as_scikit_learn(SVC(kernel="precomputed"), X @ X.T, y, StratifiedKFold(3), backend)


def test_groups_and_repeated_and_partial_splits(backend):
    X, y = IRIS
    model = DecisionTreeClassifier(max_depth=2, random_state=0)
    same_as_scikit_learn(model, X, y, GroupKFold(3), backend, groups=np.arange(150) % 10)
    same_as_scikit_learn(
        model, X, y, RepeatedStratifiedKFold(n_splits=2, n_repeats=2, random_state=0), backend
    )
    same_as_scikit_learn(model, X, y, ShuffleSplit(3, test_size=0.2, random_state=0), backend)


def test_without_a_target(backend):
    X, _ = IRIS
    same_as_scikit_learn(PCA(2), X, None, KFold(3), backend)


@pytest.mark.parametrize("as_series", [False, True])
def test_sample_weights_are_sliced_with_the_fold(backend, as_series):
    X, y = IRIS
    weights = np.random.default_rng(0).random(150)
    params = {"sample_weight": pd.Series(weights) if as_series else weights}
    same_as_scikit_learn(LogisticRegression(max_iter=300), X, y, StratifiedKFold(3), backend, params=params)


def test_metadata_is_routed_to_fit_and_scorer(backend):
    X, y = IRIS
    weights = np.random.default_rng(0).random(150)
    with sklearn.config_context(enable_metadata_routing=True):
        scorer = make_scorer(accuracy_score).set_score_request(sample_weight=True)
        model = LogisticRegression(max_iter=300).set_fit_request(sample_weight=True)
        same_as_scikit_learn(
            model, X, y, StratifiedKFold(3), backend, params={"sample_weight": weights}, scoring=scorer
        )


def test_configuration_travels(backend):
    X, y = IRIS
    frame = pd.DataFrame(X, columns=list("abcd"))
    with sklearn.config_context(transform_output="pandas"):
        result = af.run_cv(
            {"m": make_pipeline(StandardScaler(), DecisionTreeClassifier(random_state=0))},
            af.Folds(frame, y),
            return_estimator=True,
            backend=backend,
        )
    names = result["m"]["estimator"][0][-1].feature_names_in_
    assert list(names) == list("abcd")


@pytest.mark.parametrize("method", ["predict", "predict_proba", "predict_log_proba", "decision_function"])
def test_out_of_fold_predictions(method, backend):
    X, y = IRIS
    cv = StratifiedKFold(3, shuffle=True, random_state=0)
    model = LogisticRegression(max_iter=500)
    with threadpool_limits(1):
        expected = cross_val_predict(model, X, y, cv=cv, method=method)
    result = af.run_cv(
        {"m": model}, af.Folds(X, y, cv=cv), return_predictions=method, backend=backend, n_jobs=2
    )
    found = result.predictions("m", method)
    assert found.dtype == expected.dtype
    assert found.tobytes() == expected.tobytes()


def test_out_of_fold_probabilities_of_several_outputs(backend):
    X, y = IRIS
    Y = np.column_stack([y, y == 1]).astype(int)
    model = MultiOutputClassifier(DecisionTreeClassifier(max_depth=2, random_state=0))
    cv = KFold(3, shuffle=True, random_state=0)
    expected = cross_val_predict(model, X, Y, cv=cv, method="predict_proba")
    result = af.run_cv(
        {"m": model}, af.Folds(X, Y, cv=cv), return_predictions="predict_proba", backend=backend, n_jobs=2
    )
    found = result.predictions("m", "predict_proba")
    assert [values.tobytes() for values in found] == [values.tobytes() for values in expected]


def test_fitted_estimators_are_those_of_scikit_learn(backend):
    X, y = IRIS
    cv = StratifiedKFold(3)
    with threadpool_limits(1):
        expected = cross_validate(LogisticRegression(max_iter=500), X, y, cv=cv, return_estimator=True)
    result = af.run_cv(
        {"m": LogisticRegression(max_iter=500)}, af.Folds(X, y, cv=cv), return_estimator=True, backend=backend
    )
    for ours, theirs in zip(result["m"]["estimator"], expected["estimator"], strict=True):
        assert ours.coef_.tobytes() == theirs.coef_.tobytes()
        assert ours.n_iter_.tolist() == theirs.n_iter_.tolist()


def test_returned_estimators_do_not_share_memory_with_anything(backend):
    X, y = IRIS
    model = DummyClassifier(constant=np.int64(1), strategy="constant")
    result = af.run_cv({"m": model}, af.Folds(X, y, cv=3), return_estimator=True, backend=backend)
    estimators = result["m"]["estimator"]
    assert len({id(estimator) for estimator in estimators}) == 3
    assert all(estimator is not model for estimator in estimators)
    assert not hasattr(model, "classes_")
    estimators[0].class_prior_[:] = 9  # returned attributes can be written to
    assert estimators[1].class_prior_.sum() == 1
