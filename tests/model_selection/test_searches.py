"""Searches find what scikit-learn's find, to the last bit, and fit shared steps once."""

import pickle
import threading
import uuid
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import loguniform
from sklearn import model_selection as theirs
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.datasets import load_iris
from sklearn.exceptions import FitFailedWarning
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.metrics import accuracy_score, make_scorer
from sklearn.model_selection import GroupKFold, StratifiedKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier
from tests.backends import BACKENDS
from tests.model_selection.pipelines import CASES

import anyfold as af
import anyfold.model_selection as ours
from anyfold import _parallel
from anyfold._worker.cross_validate import FoldData
from anyfold.errors import AnyfoldError, UnreadableResultError, UnsupportedFeatureError

X, y = load_iris(return_X_y=True)
TIMES = ("mean_fit_time", "std_fit_time", "mean_score_time", "std_score_time")

pytestmark = pytest.mark.filterwarnings(
    # A grid asks for things that do not exist on purpose, as 1.0 components of whitened data.
    "ignore:One or more of the:UserWarning",
    r"ignore:\s+\d+ fits failed",
)


def assert_same_results(found, expected):
    """All columns but the times: names, order, dtype and bytes."""
    assert list(found.cv_results_) == list(expected.cv_results_)
    for name, column in expected.cv_results_.items():
        if name in TIMES:
            assert found.cv_results_[name].shape == column.shape
        elif name == "params":
            assert repr(found.cv_results_[name]) == repr(column)
        else:
            own = found.cv_results_[name]
            assert own.dtype == column.dtype, name
            same = repr(own) == repr(column) if column.dtype == object else own.tobytes() == column.tobytes()
            assert same, name
    for name in ("best_index_", "best_score_", "n_splits_", "multimetric_"):
        assert getattr(found, name, None) == getattr(expected, name, None)
    assert repr(found.best_params_) == repr(expected.best_params_)


@pytest.fixture(scope="module")
def expected():
    known = {}

    def search(case):
        if case not in known:
            estimator, grid, data = CASES[case]
            known[case] = theirs.GridSearchCV(clone(estimator), grid, cv=3, return_train_score=True).fit(
                *data
            )
        return known[case]

    return search


@pytest.mark.parametrize("case", CASES)
def test_a_grid_gives_scikit_learns_results(case, expected):
    estimator, grid, data = CASES[case]
    for backend in ("serial", "multiprocessing"):
        search = ours.GridSearchCV(
            clone(estimator), grid, cv=3, return_train_score=True, backend=backend, n_jobs=2
        )
        assert_same_results(search.fit(*data), expected(case))
        assert search.predict(data[0]).tolist() == expected(case).predict(data[0]).tolist()


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_backend_gives_the_same(backend, expected):
    for case in ("mixed columns", "imputation by whole steps"):
        estimator, grid, data = CASES[case]
        search = ours.GridSearchCV(
            clone(estimator), grid, cv=3, return_train_score=True, backend=backend, n_jobs=2
        )
        assert_same_results(search.fit(*data), expected(case))


@pytest.mark.parametrize(
    ("case", "n_shared"),
    [
        ("scaled linear model", 3 * (3 + 2)),  # one scaler for 4 candidates, two decompositions for 2 each
        ("text", 3 * (4 - 2)),
        ("nested pipelines", 3 * (2 + 2)),  # the inner pipeline as a whole, and the selection
        ("precomputed kernel", 0),
    ],
)
def test_what_was_shared_is_told(case, n_shared):
    estimator, grid, data = CASES[case]
    search = ours.GridSearchCV(clone(estimator), grid, cv=3, backend="serial", refit=False).fit(*data)
    assert search.n_shared_fits_ == n_shared
    assert (search.saved_time_ > 0) == (n_shared > 0)


def smallest_good(results):
    return int(np.argmin(np.where(results["mean_test_accuracy"] > 0.9, results["param_max_depth"], 99)))


@pytest.mark.parametrize(
    "settings",
    [
        {"scoring": ["accuracy", "neg_log_loss"], "refit": "accuracy"},
        {"scoring": {"accuracy": make_scorer(accuracy_score)}, "refit": smallest_good},
        {"scoring": "roc_auc_ovr"},
        {"cv": StratifiedKFold(3, shuffle=True, random_state=0)},
        {"refit": False},
    ],
    ids=["several metrics", "refit by a function", "one metric", "splitter", "no refit"],
)
def test_settings_of_scikit_learn_mean_what_they_mean_there(settings):
    model = DecisionTreeClassifier(random_state=0)
    grid = {"max_depth": np.array([1, 2, 3])}
    expected = theirs.GridSearchCV(model, grid, **settings).fit(X, y)
    found = ours.GridSearchCV(model, grid, **settings, backend="multiprocessing", n_jobs=2).fit(X, y)
    if expected.multimetric_ and callable(settings["refit"]):
        assert not hasattr(found, "best_score_")
    assert {name for name in vars(expected) if name.endswith("_")} | {"n_shared_fits_", "saved_time_"} == {
        name for name in vars(found) if name.endswith("_")
    }
    for name in expected.cv_results_.keys() - set(TIMES) - {"params", "param_max_depth"}:
        assert found.cv_results_[name].tobytes() == expected.cv_results_[name].tobytes()


def test_groups_and_weights_reach_splitter_and_model():
    groups = np.arange(len(X)) % 7
    weights = np.linspace(0.1, 1, len(X))
    grid = {"max_depth": [1, 3]}
    found, expected = (
        kind(DecisionTreeClassifier(random_state=0), grid, cv=GroupKFold(3), **settings).fit(
            X, y, groups=groups, sample_weight=weights
        )
        for kind, settings in (
            (ours.GridSearchCV, {"backend": "multiprocessing", "n_jobs": 2}),
            (theirs.GridSearchCV, {}),
        )
    )
    assert_same_results(found, expected)


PIPELINE = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))


@pytest.mark.parametrize(
    ("name", "space", "settings"),
    [
        (
            "RandomizedSearchCV",
            {"standardscaler__with_mean": [True, False], "logisticregression__C": loguniform(0.01, 10)},
            {"n_iter": 6, "random_state": 1},
        ),
        (
            "HalvingGridSearchCV",
            {"standardscaler__with_mean": [True, False], "logisticregression__C": [0.01, 0.1, 1, 10]},
            {"random_state": 1, "min_resources": 30},
        ),
        (
            "HalvingRandomSearchCV",
            {"standardscaler__with_mean": [True, False], "logisticregression__C": loguniform(0.01, 10)},
            {"random_state": 1, "min_resources": 30},
        ),
    ],
)
def test_other_searches_give_scikit_learns_results(name, space, settings):
    expected = getattr(theirs, name)(PIPELINE, space, cv=3, **settings).fit(X, y)
    for backend in ("serial", "multiprocessing"):
        search = getattr(ours, name)(PIPELINE, space, cv=3, **settings, backend=backend, n_jobs=2)
        assert_same_results(search.fit(X, y), expected)
        assert search.n_shared_fits_ > 0


def test_the_data_of_a_search_in_rounds_is_published_once(monkeypatch):
    published = []
    share = _parallel.share

    def counting(executor, obj, temp_dir=None):
        published.append(obj)
        return share(executor, obj, temp_dir)

    monkeypatch.setattr(_parallel, "share", counting)
    X, y = load_iris(return_X_y=True)
    grid = {"max_depth": [1, 2, 3, 4, 5, 6]}
    search = ours.HalvingGridSearchCV(DecisionTreeClassifier(random_state=0), grid, cv=2, backend="serial")
    search.fit(X, y)

    assert search.n_iterations_ == 2
    assert sum(isinstance(obj, FoldData) for obj in published) == 1


def test_the_same_split_and_the_same_candidate_may_come_more_than_once():
    X, y = load_iris(return_X_y=True)
    one, other = theirs.StratifiedKFold(2).split(X, y)
    model, grid = LogisticRegression(max_iter=500), {"C": [1e-4, 1.0]}
    expected, found = (
        module.GridSearchCV(LogisticRegression(max_iter=500), grid, cv=[one, one, other], refit=False).fit(
            X, y
        )
        for module in (theirs, ours)
    )
    assert scores_of(found) == scores_of(expected)

    def again(base):
        class Again(base):
            def _run_search(self, evaluate_candidates):
                first, second = {"C": 1e-4}, {"C": 1.0}
                evaluate_candidates([first, first, second])

        return Again(model, grid, cv=2, refit=False).fit(X, y)

    assert scores_of(again(ours.GridSearchCV)) == scores_of(again(theirs.GridSearchCV))


def scores_of(search):
    return {name: list(values) for name, values in search.cv_results_.items() if name.endswith("test_score")}


def test_a_parameter_of_one_of_several_steps_that_does_not_exist_is_said_before_anything_is_fitted():
    X, y = load_iris(return_X_y=True)
    pipeline = Pipeline([("clf", LogisticRegression())])
    grid = {"clf": [LogisticRegression(), RidgeClassifier()], "clf__C": [1.0]}
    with pytest.raises(ValueError, match="Invalid parameter 'C' for estimator RidgeClassifier"):
        ours.GridSearchCV(pipeline, grid, backend="serial").fit(X, y)


class HoldsALock(LogisticRegression):
    def fit(self, X, y):
        self.lock_ = threading.Lock()
        return super().fit(X, y)


def test_an_estimator_that_cannot_be_sent_back_is_not_replaced_by_an_unfitted_one():
    X, y = load_iris(return_X_y=True)
    with pytest.raises(UnreadableResultError, match="cannot be sent back, as return_estimator=True asks"):
        ours.cross_validate(HoldsALock(max_iter=500), X, y, return_estimator=True, backend="serial")


def test_a_journal_is_refused_where_it_could_keep_nothing_and_one_for_all_calls_is_not_meant(
    tmp_path, monkeypatch
):
    X, y = load_iris(return_X_y=True)
    with pytest.raises(
        UnsupportedFeatureError, match="a journal keeps scores, no results of fit_and_predict"
    ):
        ours.cross_val_predict(
            DecisionTreeClassifier(), X, y, journal=tmp_path / "j.sqlite", backend="serial"
        )
    monkeypatch.setenv("ANYFOLD_JOURNAL", str(tmp_path / "j.sqlite"))
    assert len(ours.cross_val_predict(DecisionTreeClassifier(), X, y, backend="serial")) == len(X)
    assert list(tmp_path.iterdir()) == []


def test_a_search_is_an_estimator_like_any_other():
    inner = ours.GridSearchCV(
        DecisionTreeClassifier(random_state=0), {"max_depth": [1, 2]}, cv=2, backend="serial", timeout=None
    )
    assert inner.get_params()["backend"] == "serial"
    assert clone(inner).set_params(backend="threads", estimator__min_samples_leaf=3).backend == "threads"
    assert "backend='serial'" in repr(inner)
    found = af.run_cv(inner, af.Folds(X, y, cv=3), backend="multiprocessing", n_jobs=2)
    reference = theirs.GridSearchCV(DecisionTreeClassifier(random_state=0), {"max_depth": [1, 2]}, cv=2)
    expected = theirs.cross_val_score(reference, X, y, cv=3)
    assert found["gridsearchcv"]["test_score"].tolist() == expected.tolist()


def test_a_fitted_search_can_be_pickled_and_cloned_though_an_executor_cannot():
    with af.get_executor("multiprocessing", n_jobs=2) as executor:
        search = ours.GridSearchCV(
            DecisionTreeClassifier(random_state=0), {"max_depth": [1, 2]}, backend=executor
        )
        search.fit(X, y)
        assert clone(search).backend is executor
        copy = pickle.loads(pickle.dumps(search))
        assert copy.predict(X).tolist() == search.predict(X).tolist()
        assert copy.backend is None
        assert search.backend is executor


def test_candidates_of_an_interrupted_search_are_taken_from_its_journal(tmp_path):
    journal = tmp_path / "search.sqlite"
    folder = tmp_path / "fits"
    folder.mkdir()
    expected = theirs.GridSearchCV(Counted(str(tmp_path)), {"depth": [1, 2, 3]}, refit=False, cv=3).fit(X, y)
    for depths, n_fits in (([1, 2], 6), ([1, 2, 3], 9), ([1, 2, 3], 9)):
        search = ours.GridSearchCV(
            Counted(str(folder)), {"depth": depths}, refit=False, cv=3, journal=journal, backend="serial"
        ).fit(X, y)
        assert len(list(folder.iterdir())) == n_fits
    assert_same_results(search, expected)


class Counted(ClassifierMixin, BaseEstimator):
    """A tree that leaves a file for each fit."""

    def __init__(self, folder=None, depth=None, hang=False):
        self.folder = folder
        self.depth = depth
        self.hang = hang

    def fit(self, X, y):
        (Path(self.folder) / uuid.uuid4().hex).touch()
        if self.hang:
            threading.Event().wait()
        self.tree_ = DecisionTreeClassifier(max_depth=self.depth, random_state=0).fit(X, y)
        self.classes_ = self.tree_.classes_
        return self

    def predict(self, X):
        return self.tree_.predict(X)


def test_a_candidate_that_hangs_costs_nothing_but_itself(tmp_path):
    search = ours.GridSearchCV(
        Counted(str(tmp_path)),
        {"hang": [False, True]},
        cv=2,
        timeout=0.5,
        backend="multiprocessing",
        n_jobs=2,
        error_score=-1.0,
    )
    with pytest.warns(FitFailedWarning, match="ran longer than timeout=0.5"):
        search.fit(X, y)
    assert search.best_params_ == {"hang": False}
    assert search.cv_results_["mean_test_score"][1] == -1.0


def test_with_error_score_raise_the_error_of_the_model_is_raised():
    grid = {"max_depth": [2, -1], "min_samples_leaf": [1, 2]}
    search = ours.GridSearchCV(
        DecisionTreeClassifier(), grid, error_score="raise", backend="multiprocessing", n_jobs=2
    )
    with pytest.raises(ValueError, match="max_depth"):
        search.fit(X, y)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"backend": "multiprocesing"}, "multiprocessing"),
        ({"backend": "serial", "timeout": 1}, "timeout"),
        ({"backend": "multiprocessing", "retries": -1}, "retries"),
        ({"backend": "multiprocessing", "n_jobs": 0}, "n_jobs"),
        ({"inner_threads": "many"}, "inner_threads"),
    ],
)
def test_a_wrong_setting_is_said_before_anything_is_fitted(settings, told, tmp_path):
    search = ours.GridSearchCV(Counted(str(tmp_path)), {"depth": [1]}, **settings)
    with pytest.raises((AnyfoldError, ValueError, TypeError), match=told):
        search.fit(X, y)
    assert not list(tmp_path.iterdir())


def test_a_parameter_that_does_not_exist_is_said_before_anything_is_fitted(tmp_path):
    search = ours.GridSearchCV(Counted(str(tmp_path)), {"depth": [1], "deph": [2]}, backend="serial")
    with pytest.raises(ValueError, match="Invalid parameter 'deph'"):
        search.fit(X, y)
    assert not list(tmp_path.iterdir())


def test_the_environment_chooses_the_backend(monkeypatch):
    monkeypatch.setenv("ANYFOLD_BACKEND", "no-such-backend")
    with pytest.raises(AnyfoldError, match="ANYFOLD_BACKEND"):
        ours.GridSearchCV(DecisionTreeClassifier(), {"max_depth": [1]}).fit(X, y)
