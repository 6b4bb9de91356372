"""Steps that pipelines have in common are fitted once on each fold, and nobody can tell by the results."""

import threading
import time
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_array
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_breast_cancer
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.exceptions import FitFailedWarning
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression, Ridge, RidgeClassifier, SGDClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

import anyfold as af
import anyfold.model_selection as ours
from anyfold.events import TaskFinished

X, y = load_breast_cancer(return_X_y=True)
X = X[:150]
y = y[:150]
FOLDS = af.Folds(X, y, cv=3)
TABLE = np.ones(30)
GO_ON = threading.Event()
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


class CountsInside(Counting):
    """Keeps its count in an array that is no attribute."""

    def fit(self, X, y=None, sample_weight=None):
        super().fit(X, y, sample_weight)
        self.inside_ = {"n": np.zeros(1)}
        return self

    def transform(self, X, copy=None):
        self.inside_["n"] += 1
        return StandardScaler.transform(self, X) * self.inside_["n"]


class ByInstance(TransformerMixin, BaseEstimator):
    """Its method is no method of its class."""

    def __init__(self):
        self.transform = self._halved

    def fit(self, X, y=None):
        return self

    def _halved(self, X):
        return X / 2


class Forgetful(BaseEstimator):
    def fit(self, X, y=None):
        """Do not answer with itself, as all others do."""

    def transform(self, X):
        return X


@pytest.mark.parametrize(
    "step",
    [
        Counting(),
        CountsInside(),
        Drawing(),
        Selfish(Opaque()),
        StandardScaler(copy=False),
        FrozenEstimator(StandardScaler().fit(X)),
        ByInstance(),
    ],
    ids=[
        "changes itself",
        "changes itself inside",
        "draws",
        "cannot be compared",
        "writes to its input",
        "is frozen",
        "has a method of its own",
    ],
)
def test_what_cannot_be_shared_is_not(step):
    models = {f"m{a}": make_pipeline(step, RidgeClassifier(alpha=a)) for a in (1, 2, 3)}
    assert outcome(models, "serial")[0] == outcome(models, "serial", sharing=False)[0]


def test_a_step_that_does_not_answer_with_itself_fails_in_each_model():
    models = {f"m{a}": make_pipeline(Forgetful(), RidgeClassifier(alpha=a)) for a in (1, 2)}
    with pytest.warns(FitFailedWarning):
        result = af.run_cv({**models, "good": RidgeClassifier()}, FOLDS, backend="serial")
    assert {(failure.model, failure.type) for failure in result.failures} == {
        ("m1", "AttributeError"),
        ("m2", "AttributeError"),
    }
    assert len(result.failures) == 6


class Adds(TransformerMixin, BaseEstimator):
    """Leaves a column behind in the frame that it is given."""

    def fit(self, X, y=None):
        return self

    def transform(self, X):
        X["added"] = X.iloc[:, 0] * X.iloc[:, 1]
        return X[["added"]]


class Squares(TransformerMixin, BaseEstimator):
    """Puts other values into the matrix that it is given."""

    def fit(self, X, y=None):
        return self

    def transform(self, X):
        X.data = X.data * X.data
        return X.copy()


@pytest.mark.parametrize(
    ("data", "step"),
    [(pd.DataFrame(X).rename(columns=str), Adds()), (csr_array(X), Squares())],
    ids=["frame", "sparse matrix"],
)
def test_a_step_that_changes_its_data_has_the_effect_that_it_has_alone(data, step):
    union = FeatureUnion([("changes", step), ("reduced", TruncatedSVD(random_state=0))])
    pipeline = make_pipeline(union, Ridge())
    grid = {"featureunion__reduced__n_components": [1, 2, 3], "ridge__alpha": [1, 2]}
    alone, together = (
        search(pipeline, grid, cv=2, refit=False, **settings).fit(data, y).cv_results_["mean_test_score"]
        for search, settings in ((GridSearchCV, {}), (ours.GridSearchCV, {"backend": "serial"}))
    )
    assert together.tobytes() == alone.tobytes()


def test_what_turns_out_not_to_be_shareable_is_not_given_to_other_workers_either():
    models = {f"m{a}": make_pipeline(Counting(), RidgeClassifier(alpha=a)) for a in range(1, 20)}
    folds = af.Folds(X, y, cv=2)
    expected = af.run_cv(models, folds, backend="serial", return_predictions="decision_function")
    found = af.run_cv(
        models, folds, backend="multiprocessing", n_jobs=2, return_predictions="decision_function"
    )
    for name in models:
        assert found.predictions(name).tobytes() == expected.predictions(name).tobytes()


class Hanging(Noting):
    def fit(self, X, y=None):
        super().fit(X, y)
        threading.Event().wait()


def test_a_step_that_hangs_is_stopped_once_for_all_that_follow_it(tmp_path):
    pipeline = make_pipeline(Hanging(str(tmp_path)), RidgeClassifier())
    grid = {"ridgeclassifier__alpha": [1.0, 2.0, 3.0]}
    settings = {"timeout": 2, "backend": "multiprocessing", "n_jobs": 4}
    with pytest.raises(ValueError, match="All the 6 fits failed"):
        ours.GridSearchCV(pipeline, grid, cv=2, refit=False, **settings).fit(X, y)
    assert set(fits(tmp_path).values()) == {1}


def test_a_search_inside_of_a_search_ends_no_sharing():
    inner = ours.GridSearchCV(RidgeClassifier(), {"alpha": [1.0, 2.0]}, cv=2, backend="serial")
    grid = {"gridsearchcv__estimator__tol": [1e-3, 1e-4, 1e-5]}
    search = ours.GridSearchCV(
        make_pipeline(StandardScaler(), inner), grid, cv=2, backend="serial", refit=False
    )
    assert search.fit(X, y).n_shared_fits_ == 4


def test_tables_of_a_module_stay_writable_where_tasks_share_its_process():
    class Adding(TransformerMixin, BaseEstimator):
        def fit(self, X, y=None):
            self.table_ = TABLE
            return self

        def transform(self, X):
            return X + self.table_

    models = [make_pipeline(Adding(), RidgeClassifier(alpha=a)) for a in (1, 2)]
    af.run_cv(models, FOLDS, backend="serial")
    assert TABLE.flags.writeable


class Waiting(RidgeClassifier):
    def __init__(self, alpha=1.0):
        super().__init__(alpha)

    def fit(self, X, y):
        if self.alpha == 1.0:
            assert GO_ON.wait(60)
        return super().fit(X, y)


def test_estimators_of_threads_hold_nothing_of_tasks_that_still_run():
    GO_ON.clear()
    models = {
        f"m{a}": make_pipeline(make_pipeline(StandardScaler(), StandardScaler()), Waiting(alpha=a))
        for a in (1.0, 2.0)
    }
    result = af.run_cv(
        models,
        af.Folds(X, y, cv=[(np.arange(100), np.arange(100, 150))]),
        backend="threads",
        n_jobs=2,
        return_estimator=True,
        callbacks=[lambda event: GO_ON.set() if isinstance(event, TaskFinished) else None],
    )
    for name in models:
        (fitted,) = result.estimators(name)
        clone(fitted)
        assert not any(
            {"fit", "fit_transform", "transform"} & vars(step).keys() for _, step in fitted[0].steps
        )


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
