"""Grid searches whose candidates have steps in common, against scikit-learn and dask-ml."""

from __future__ import annotations

import os
import tempfile
import time
import warnings
from functools import partial
from typing import Any

import numpy as np
from contest import Contender, Contest, main
from sklearn import model_selection as theirs
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.datasets import make_classification
from sklearn.decomposition import PCA
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, RidgeClassifier, SGDClassifier
from sklearn.pipeline import Pipeline

import anyfold as af
import anyfold.model_selection as ours


def scores_of(search: Any) -> dict[str, Any]:
    """Return what must be equal among contenders; dask-ml rounds means otherwise."""
    results = search.cv_results_
    return {name: results[name] for name in results if name.startswith(("split", "rank"))}


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Return whether all common columns are equal to the last bit."""
    common = one.keys() & other.keys()
    return bool(common) and all(np.array_equal(one[name], other[name]) for name in common)


def contenders(estimator: Any, grid: Any, X: Any, y: Any, *, cv: int, backends: list[str]) -> list[Contender]:
    """Return everybody who can search this grid."""

    def search(kind: Any, **settings: Any) -> dict[str, Any]:
        return scores_of(kind(clone(estimator), grid, cv=cv, refit=False, **settings).fit(X, y))

    def with_memory(n_jobs: int | None) -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            cached = clone(estimator).set_params(memory=folder)
            return scores_of(theirs.GridSearchCV(cached, grid, cv=cv, refit=False, n_jobs=n_jobs).fit(X, y))

    found = [
        Contender("scikit-learn, serial", partial(search, theirs.GridSearchCV)),
        Contender("scikit-learn, n_jobs=2", partial(search, theirs.GridSearchCV, n_jobs=2)),
    ]
    if isinstance(estimator, Pipeline):
        found.append(Contender("scikit-learn, memory=", partial(with_memory, None)))
        found.append(Contender("scikit-learn, memory=, n_jobs=2", partial(with_memory, 2)))
    try:
        from dask_ml.model_selection import GridSearchCV as of_dask
    except ImportError:
        pass
    else:
        found.append(Contender("dask-ml, threads", partial(search, of_dask, scheduler="threads", n_jobs=2)))
        found.append(
            Contender("dask-ml, processes", partial(search, of_dask, scheduler="processes", n_jobs=2))
        )
    for backend in backends:
        run = partial(search, ours.GridSearchCV, backend=backend, n_jobs=2)
        found.append(Contender(f"anyfold, {backend}", run, ours=True))
    return found


def pca() -> Contest:
    """Return the contest of a principal component analysis before a linear model."""
    X, y = make_classification(10_000, 500, n_redundant=250, random_state=42)
    pipeline = Pipeline(
        [("pca", PCA(random_state=0)), ("model", LogisticRegression(solver="liblinear", random_state=0))]
    )
    grid = {
        "pca__n_components": [50, 100, 250],
        "model__C": [1e-4, 1, 1e4],
        "model__penalty": ["l1", "l2"],
    }
    return Contest(
        "PCA grid, 18 candidates, 3 folds",
        contenders(pipeline, grid, X, y, cv=3, backends=["multiprocessing", "threads"]),
        target=0.35,
        same=same,
        remark="Fitting each distinct step once takes 6.6 s of processor (9 PCA 1.1 s, 54 LIBLINEAR fits "
        "5.1 s), which is 3.3 s on two cores and what anyfold takes; nothing is left to remove without other "
        "numbers. With scikit-learn 1.9 a PCA costs little beside the fits of the last step.",
    )


def text() -> Contest:
    """Return the contest of words that are counted once for ten linear models."""
    random = np.random.default_rng(0)
    words = np.array([f"w{number}" for number in range(20_000)])
    weights = 1 / np.arange(1, 20_001)
    drawn = random.choice(words, (6_000, 150), p=weights / weights.sum())
    documents = [" ".join(row) for row in drawn]
    y = random.integers(0, 2, 6_000)
    pipeline = Pipeline(
        [("tfidf", TfidfVectorizer()), ("model", SGDClassifier(max_iter=20, tol=None, random_state=0))]
    )
    grid = {"tfidf__ngram_range": [(1, 1), (1, 2)], "model__alpha": list(np.logspace(-6, -1, 10))}
    return Contest(
        "Text grid, 20 candidates, 5 folds",
        contenders(pipeline, grid, documents, y, cv=5, backends=["multiprocessing", "threads"]),
        target=0.35,
        same=same,
        remark="Fitting each distinct step once takes 33.1 s of processor, and anyfold on `serial` takes "
        "34.6 s: what is left are the 100 fits of the last step, which nobody can share.",
    )


def cheap() -> Contest:
    """Fits of a millisecond."""
    X, y = make_classification(1_000, 20, random_state=0)
    return Contest(
        "Cheap grid, 200 candidates, 5 folds",
        contenders(
            RidgeClassifier(),
            {"alpha": list(np.logspace(-3, 3, 200))},
            X,
            y,
            cv=5,
            backends=["multiprocessing", "processes", "loky", "serial"],
        ),
        target=0.6,
        same=same,
        against="scikit-learn, serial",
    )


class SleepsToTransform(TransformerMixin, BaseEstimator):
    """A step that takes two seconds."""

    def fit(self, X: Any, y: Any = None) -> SleepsToTransform:
        time.sleep(2)
        return self

    def transform(self, X: Any) -> Any:
        return X


class SleepsToFit(BaseEstimator):
    """A model that takes half a second."""

    def __init__(self, number: int = 0) -> None:
        self.number = number

    def fit(self, X: Any, y: Any) -> SleepsToFit:
        time.sleep(0.5)
        return self

    def score(self, X: Any, y: Any) -> float:
        return float(self.number)


WIDTH = 16
"""Workers."""

BEST_SCHEDULE = 2 + 0.5 * np.ceil(20 * 5 / WIDTH)
"""Seconds: five folds' first steps at once, then a hundred models on sixteen workers."""


_open: list[Any] = []
"""Executors of the contest that is held now."""


def width(backend: str) -> Contest:
    """One long step before many models, on more workers than there are folds."""
    while _open:
        _open.pop().shutdown()
    af.shutdown()
    X, y = make_classification(100, 5, random_state=0)
    pipeline = Pipeline([("step", SleepsToTransform()), ("model", SleepsToFit())])
    grid = {"model__number": list(range(20))}

    def search() -> dict[str, Any]:
        if not _open:
            _open.append(af.get_executor(backend, WIDTH))
        return scores_of(ours.GridSearchCV(pipeline, grid, cv=5, refit=False, backend=_open[0]).fit(X, y))

    return Contest(
        f"Width: {WIDTH} workers of {backend}, a step of 2 s, 20 models of 0.5 s, 5 folds",
        [
            Contender("the best schedule", partial(time.sleep, BEST_SCHEDULE)),
            Contender(f"anyfold, {backend}", search, ours=True),
        ],
        target=1.3,
    )


WIDTHS = {f"width-{name}": partial(width, name) for name in ("multiprocessing", "processes", "loky", "ray")}

if __name__ == "__main__":
    warnings.simplefilter("ignore")
    os.environ["PYTHONWARNINGS"] = "ignore"  # for everybody's workers
    main({"pca": pca, "text": text, "cheap": cheap, **WIDTHS}, __doc__)
