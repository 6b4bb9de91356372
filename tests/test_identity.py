"""Outcomes equal the serial backend's to the last bit, whatever ran them and however."""

import warnings

import joblib
import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.cluster import KMeans
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_breast_cancer, load_diabetes, make_classification
from sklearn.decomposition import PCA
from sklearn.ensemble import GradientBoostingRegressor, HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.feature_selection import SelectFromModel
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.model_selection import StratifiedKFold
from sklearn.multiclass import OneVsRestClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import QuantileTransformer, StandardScaler
from sklearn.svm import SVC, LinearSVC
from tests.backends import BACKENDS

import anyfold as af
from anyfold.model_selection import GridSearchCV


class Noisy(ClassifierMixin, BaseEstimator):
    """Draws from both global generators, as careless models do."""

    def fit(self, X, y):
        import random

        self.classes_ = np.unique(y)
        self.noise_ = np.random.normal(size=len(X)) + random.random()
        return self

    def predict(self, X):
        return self.classes_[(np.random.random(len(X)) * len(self.classes_)).astype(int)]


class Failing(ClassifierMixin, BaseEstimator):
    """Fails on folds whose first training label is 1."""

    def fit(self, X, y):
        if y[0] == 1:
            raise ArithmeticError(f"cannot fit {len(y)} samples")
        self.classes_ = np.unique(y)
        return self

    def predict(self, X):
        return np.full(len(X), self.classes_[0])


def _classification():
    X, y = load_breast_cancer(return_X_y=True)
    X, y = np.asfortranarray(X[::3]), y[::3]
    models = {
        "pipeline": make_pipeline(StandardScaler(), PCA(5), LogisticRegression()),
        "forest": RandomForestClassifier(8),
        "forest, all cores": RandomForestClassifier(8, n_jobs=-1),
        "sgd": SGDClassifier(max_iter=5, tol=None),
        "neighbours": KNeighborsClassifier(),
        "boosting": HistGradientBoostingClassifier(max_iter=5),
        "svm": SVC(probability=True),
        "network": MLPClassifier((4,), max_iter=5),
        "clusters": KMeans(3, n_init=2, copy_x=False),
        "columns": make_pipeline(
            make_column_transformer(
                (QuantileTransformer(n_quantiles=20, subsample=100), [0, 1]), remainder="passthrough"
            ),
            LogisticRegression(max_iter=20),
        ),
        "noisy": Noisy(),
        "failing": Failing(),
    }
    return models, af.Folds(X, y, cv=StratifiedKFold(3, shuffle=True, random_state=1))


def _regression():
    X, y = load_diabetes(return_X_y=True, as_frame=True)
    models = {
        "boosting": GradientBoostingRegressor(n_estimators=5, subsample=0.5),
        "process": GaussianProcessRegressor(alpha=1e-2, n_restarts_optimizer=1),
    }
    return models, af.Folds(X[:120], y[:120], cv=3)


def _text():
    words = ["red", "green", "blue", "cyan", "one", "two", "three", "four"]
    generator = np.random.default_rng(0)
    X = [" ".join(generator.choice(words, 12)) for _ in range(90)]
    y = ["warm" if text.count("red") > 1 else "cold" for text in X]
    models = {"text": make_pipeline(TfidfVectorizer(ngram_range=(1, 2)), SGDClassifier())}
    return models, af.Folds(X, y, cv=3)


CASES = {"classification": _classification, "regression": _regression, "text": _text}


def run(case, models=None, folds=None, **settings):
    made_models, made_folds = CASES[case]()
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")  # every warning is part of the outcome
        return af.run_cv(
            models or made_models,
            folds or made_folds,
            return_train_score=True,
            return_estimator=True,
            return_predictions=True,
            random_state=11,
            **settings,
        )


def state_of(model):
    """Return the attributes of a fitted model, and of the steps of a pipeline."""
    if model is None:
        return None
    state = dict(vars(model))
    # scikit-learn keeps the address of an object here, which is no outcome.
    state.pop("_stop_words_id", None)
    if "steps" in state:
        state["steps"] = [(name, type(step).__name__, state_of(step)) for name, step in model.steps]
    return state


def fingerprint(result, names=None):
    """Everything that is promised to be equal, as bytes or hashes."""
    frame = result.to_frame().drop(columns=["fit_time", "score_time"])
    if names is not None:
        frame = frame[frame["model"].isin(names)]
    kept = names or result.models
    return {
        "scores": {
            (row["model"], row["fold"]): row.drop(["model", "fold"]).to_numpy(float).tobytes()
            for _, row in frame.iterrows()
        },
        "failures": [
            (f.model, f.fold, f.stage, f.type, f.message) for f in result.failures if f.model in kept
        ],
        "warnings": [(w.model, w.fold, w.category, w.message) for w in result.warnings if w.model in kept],
        "estimators": {
            name: [joblib.hash(state_of(model)) for model in result[name]["estimator"]] for name in kept
        },
        "predictions": {name: joblib.hash(result.predictions(name)) for name in kept if name != "failing"},
    }


def without(model, parts):
    kept = {"failures": parts["failures"], "warnings": parts["warnings"]}
    kept["scores"] = {key: value for key, value in parts["scores"].items() if key[0] != model}
    for part in ("estimators", "predictions"):
        kept[part] = {key: value for key, value in parts[part].items() if key != model}
    return kept


@pytest.fixture(scope="module")
def oracle():
    return {case: fingerprint(run(case, backend="serial")) for case in CASES}


WAYS = [(backend, n_jobs, None) for backend in BACKENDS for n_jobs in (1, 2, 3) if backend != "serial"] + [
    (backend, n_jobs, start_method)
    for backend in ("multiprocessing", "processes")
    for n_jobs in (1, 2, 3)
    for start_method in ("fork", "spawn")  # forkserver is the default, above
]


@pytest.mark.parametrize(("backend", "n_jobs", "start_method"), WAYS)
def test_outcomes_equal_the_serial_ones_to_the_last_bit(backend, n_jobs, start_method, oracle):
    options = {"start_method": start_method} if start_method else {}
    with af.get_executor(backend, n_jobs=n_jobs, **options) as executor:
        for case in CASES:
            result = run(case, backend=executor)
            found = fingerprint(result)
            expected = oracle[case]
            if backend == "threads":
                # Its numbers come from global generators, which threads have in common.
                found, expected = without("noisy", found), without("noisy", expected)
            for part in expected:
                assert found[part] == expected[part], (case, part)


@pytest.mark.parametrize("backend", ["serial", "multiprocessing"])
def test_a_models_numbers_do_not_depend_on_its_company(backend, oracle):
    models, folds = CASES["classification"]()
    names = list(models)[::-1]
    reordered = {name: models[name] for name in names}
    reordered["one more"] = RandomForestClassifier(3)
    found = fingerprint(
        run("classification", reordered, folds, backend=backend, n_jobs=2), names=list(models)
    )
    expected = oracle["classification"]
    assert found["scores"] == expected["scores"]
    assert found["estimators"] == expected["estimators"]
    assert found["predictions"] == expected["predictions"]


def test_models_that_share_a_generator_of_the_process_have_their_numbers_in_threads_too():
    X, y = make_classification(800, 40, random_state=0)
    l1 = LogisticRegression(solver="liblinear", l1_ratio=1.0, random_state=0)
    models = {
        "l1": l1,
        "dual": LogisticRegression(solver="liblinear", dual=True, max_iter=20, random_state=0),
        "inside": OneVsRestClassifier(clone(l1)),
        "a step": Pipeline([("select", SelectFromModel(clone(l1))), ("model", LinearSVC(dual=True))]),
    }

    def coefficients(**settings):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # some do not converge
            result = af.run_cv(
                models,
                af.Folds(X, y, cv=6),
                random_state=0,
                return_predictions="decision_function",
                **settings,
            )
        return {name: result.predictions(name, "decision_function").tobytes() for name in models}

    expected = coefficients(backend="serial")

    assert coefficients(backend="threads", n_jobs=4) == expected


def test_a_search_on_threads_inside_a_fit_that_runs_alone_does_not_wait_for_it():
    X, y = make_classification(100, random_state=0)
    search = GridSearchCV(LinearSVC(dual=True), {"C": [0.1, 1]}, cv=2, backend="threads", n_jobs=2)
    result = af.run_cv(search, af.Folds(X, y, cv=2), backend="threads", n_jobs=2)

    assert not result.failures


def test_a_models_numbers_do_not_depend_on_its_name():
    models, folds = CASES["classification"]()
    one = af.run_cv({"a": models["forest"]}, folds, random_state=0, backend="serial")
    two = af.run_cv({"b": models["forest"]}, folds, random_state=0, backend="serial")
    assert one["a"]["test_score"].tobytes() == two["b"]["test_score"].tobytes()


def test_another_root_seed_gives_other_numbers():
    _, folds = CASES["classification"]()
    scores = {
        seed: af.run_cv({"noisy": Noisy()}, folds, random_state=seed, backend="serial")["noisy"]["test_score"]
        for seed in (0, 1)
    }
    assert scores[0].tobytes() != scores[1].tobytes()


def test_a_drawn_root_seed_is_recorded_and_gives_the_numbers_again():
    _, folds = CASES["classification"]()
    first = af.run_cv(RandomForestClassifier(3), folds, backend="serial")
    second = af.run_cv(RandomForestClassifier(3), folds, backend="serial", random_state=first.random_state)
    assert first["randomforestclassifier"]["test_score"].tobytes() == (
        second["randomforestclassifier"]["test_score"].tobytes()
    )
