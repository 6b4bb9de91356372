"""Steps that pipelines have in common are fitted once on each fold, and nobody can tell by the results."""

import time
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_breast_cancer
from sklearn.decomposition import PCA
from sklearn.exceptions import FitFailedWarning
from sklearn.linear_model import LogisticRegression, RidgeClassifier, SGDClassifier
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

import anyfold as af

X, y = load_breast_cancer(return_X_y=True)
X = X[:150]
y = y[:150]
FOLDS = af.Folds(X, y, cv=3)
BACKENDS = ("serial", "threads", "multiprocessing", "processes", "loky")


class Noting(TransformerMixin, BaseEstimator):
    """Leaves a file for each fit; what it makes of data depends on `shift`."""

    def __init__(self, folder="", shift=0.0, fails=False):
        self.folder = folder
        self.shift = shift
        self.fails = fails

    def fit(self, X, y=None):
        for number in range(1000):
            try:
                (Path(self.folder) / f"{self.shift}-{X.sum():.6f}-{number}").touch(exist_ok=False)
                break
            except FileExistsError:
                continue
        if self.fails:
            raise ArithmeticError("cannot be fitted")
        warnings.warn(f"fitted with shift {self.shift}", UserWarning, stacklevel=2)
        self.mean_ = X.mean(axis=0)
        return self

    def transform(self, X):
        return X - self.mean_ + self.shift


def fits(folder):
    return Counter(path.name.rpartition("-")[0] for path in Path(folder).iterdir())


def outcome(models, backend, *, sharing=True, **arguments):
    """Everything that a run says, times excepted; without sharing every model runs in a run of its own."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        groups = [models] if sharing else [{name: model} for name, model in models.items()]
        results = [
            af.run_cv(
                group,
                FOLDS,
                random_state=3,
                backend=backend,
                n_jobs=None if backend == "serial" else 2,
                return_train_score=True,
                **{"return_predictions": ["predict", "decision_function"], **arguments},
            )
            for group in groups
        ]
    told = {}
    for result in results:
        for name in result:
            told[name] = [
                result[name]["test_score"].tobytes(),
                result[name]["train_score"].tobytes(),
                *(
                    result.predictions(name, method).tobytes()
                    for method in result.response_methods
                    if not result.failures
                ),
            ]
    failures = sorted((f.model, f.fold, f.type, f.message) for result in results for f in result.failures)
    return told, failures, results, seen


def many_models(folder):
    noting = Noting(str(folder))
    models = {}
    for c in (0.1, 1.0, 10.0):
        logit = LogisticRegression(C=c, max_iter=500)
        models[f"pca5-{c}"] = make_pipeline(noting, PCA(5), logit)
        models[f"pca9-{c}"] = make_pipeline(noting, PCA(9), SGDClassifier(alpha=c))
        models[f"nested-{c}"] = make_pipeline(make_pipeline(noting, PCA(5)), RidgeClassifier(alpha=c))
        models[f"union-{c}"] = make_pipeline(
            FeatureUnion([("pca", PCA(3)), ("noting", noting)]), RidgeClassifier(alpha=c)
        )
        models[f"columns-{c}"] = make_pipeline(
            ColumnTransformer(
                [("pca", PCA(3), [0, 1, 2, 3]), ("noting", Noting(str(folder), 0.5), slice(4, 8))],
                remainder="passthrough",
            ),
            RidgeClassifier(alpha=c),
        )
        models[f"alone-{c}"] = RidgeClassifier(alpha=c)
    return models


@pytest.mark.parametrize("backend", BACKENDS)
def test_each_step_is_fitted_once_on_each_fold_and_nothing_else_changes(backend, tmp_path):
    (tmp_path / "shared").mkdir()
    (tmp_path / "alone").mkdir()
    shared = outcome(many_models(tmp_path / "shared"), backend)
    alone = outcome(many_models(tmp_path / "alone"), "serial", sharing=False)
    assert shared[0] == alone[0]
    assert shared[1] == alone[1] == []
    assert len(fits(tmp_path / "shared")) == 2 * FOLDS.n_splits
    assert set(fits(tmp_path / "alone").values()) == {12, 3}
    if backend in ("serial", "threads"):
        assert set(fits(tmp_path / "shared").values()) == {1}


def test_a_step_that_few_folds_share_is_fitted_by_one_worker_for_all(tmp_path):
    models = {f"m{a}": make_pipeline(Noting(str(tmp_path)), RidgeClassifier(alpha=a)) for a in range(1, 20)}
    for backend in ("multiprocessing", "threads", "loky"):
        for path in tmp_path.iterdir():
            path.unlink()
        shared = outcome(models, backend)
        assert shared[0] == outcome(models, "serial")[0]
        assert set(fits(tmp_path).values()) == {2}  # of each of the two runs one


class Counting(StandardScaler):
    """Changes when it transforms, without setting an attribute."""

    def fit(self, X, y=None, sample_weight=None):
        self.calls_ = []
        return super().fit(X, y, sample_weight)

    def transform(self, X, copy=None):
        self.calls_.append(len(X))
        return super().transform(X) * len(self.calls_)


class Drawing(StandardScaler):
    """Adds noise from the global generator, as careless models do."""

    def transform(self, X, copy=None):
        return super().transform(X) + np.random.normal(scale=0.1, size=X.shape)


class Opaque:
    """Has no content that could be compared."""

    def __deepcopy__(self, memo):
        return self

    def __reduce__(self):
        raise TypeError("cannot be pickled")


class Selfish(TransformerMixin, BaseEstimator):
    def __init__(self, key=None):
        self.key = key

    def fit(self, X, y=None):
        return self

    def transform(self, X):
        return X.copy()


@pytest.mark.parametrize(
    "step",
    [Counting(), Drawing(), Selfish(Opaque()), StandardScaler(copy=False)],
    ids=["changes itself", "draws", "cannot be compared", "writes to its input"],
)
def test_what_cannot_be_shared_is_not(step):
    models = {f"m{a}": make_pipeline(step, RidgeClassifier(alpha=a)) for a in (1, 2, 3)}
    assert outcome(models, "serial")[0] == outcome(models, "serial", sharing=False)[0]


def test_a_step_that_fails_fails_exactly_what_follows_it_and_is_tried_once(tmp_path):
    folder = str(tmp_path)
    models = {
        **{f"bad{a}": make_pipeline(Noting(folder, fails=True), RidgeClassifier(alpha=a)) for a in range(9)},
        **{f"good{a}": make_pipeline(Noting(folder, 0.5), RidgeClassifier(alpha=a + 1)) for a in range(9)},
    }
    for backend in ("serial", "threads", "multiprocessing"):
        for path in tmp_path.iterdir():
            path.unlink()
        told = outcome(models, backend)
        assert told[1] == [
            (f"bad{a}", fold, "ArithmeticError", "cannot be fitted") for a in range(9) for fold in range(3)
        ]
        assert set(fits(tmp_path).values()) == {1}
        assert any(issubclass(warning.category, FitFailedWarning) for warning in told[3])


@pytest.mark.parametrize("backend", ["serial", "multiprocessing"])
def test_every_model_has_the_warnings_and_times_of_the_steps_that_it_was_given(backend, tmp_path):
    class Slow(Noting):
        def fit(self, X, y=None):
            begun = time.perf_counter()
            while time.perf_counter() < begun + 0.05:
                pass
            return super().fit(X, y)

    models = {f"m{a}": make_pipeline(Slow(str(tmp_path)), RidgeClassifier(alpha=a + 1)) for a in range(12)}
    _, _, (result,), _ = outcome(models, backend)
    issued = Counter((w.model, w.fold) for w in result.warnings if "fitted with shift" in w.message)
    assert issued == {(f"m{a}", fold): 1 for a in range(12) for fold in range(3)}
    assert all((result[name]["fit_time"] >= 0.05).all() for name in result)
    assert result.n_shared_fits == 33
    assert result.saved_time >= 33 * 0.05


def test_estimators_that_are_returned_are_as_if_each_had_been_fitted_alone():
    models = {f"m{a}": make_pipeline(StandardScaler(), PCA(3), RidgeClassifier(alpha=a)) for a in (1, 2, 3)}
    _, _, (result,), _ = outcome(models, "serial", return_estimator=True)
    for a in (1, 2, 3):
        for fold, (train, _) in enumerate(FOLDS):
            mine = result[f"m{a}"]["estimator"][fold]
            other = make_pipeline(
                StandardScaler(), PCA(3, random_state=mine[1].random_state), RidgeClassifier(alpha=a)
            ).fit(X[train], y[train])
            assert [sorted(vars(step)) for step in mine] == [sorted(vars(step)) for step in other]
            assert mine[1].components_.tobytes() == other[1].components_.tobytes()
            assert mine.decision_function(X).tobytes() == other.decision_function(X).tobytes()
    assert len({id(estimator[0]) for name in result for estimator in result[name]["estimator"]}) == 9


def test_a_pipeline_with_a_memory_of_its_own_uses_that(tmp_path):
    models = {
        f"m{a}": Pipeline(
            [("noting", Noting(str(tmp_path / "fits"))), ("ridge", RidgeClassifier(alpha=a))],
            memory=str(tmp_path / "memory"),
        )
        for a in (1, 2, 3)
    }
    (tmp_path / "fits").mkdir()
    assert outcome(models, "serial")[1] == []
    assert set(fits(tmp_path / "fits").values()) == {1}
    assert any((tmp_path / "memory").rglob("*.pkl"))
