"""Threads are budgeted, whatever a model asks for."""

import os
import threading

import numpy as np
import pytest
from joblib import Parallel, delayed
from sklearn.base import BaseEstimator
from sklearn.datasets import load_iris
from tests.backends import BACKENDS
from threadpoolctl import threadpool_info, threadpool_limits

import anyfold as af

X, y = load_iris(return_X_y=True)


class Counts(BaseEstimator):
    """Scores what its libraries and its own n_jobs would use here."""

    def fit(self, X, y):
        from sklearn.utils._openmp_helpers import _openmp_effective_n_threads

        self.blas_ = max(lib["num_threads"] for lib in threadpool_info() if lib["user_api"] == "blas")
        self.openmp_ = _openmp_effective_n_threads()
        where = Parallel(n_jobs=-1)(delayed(_where)() for _ in range(20))
        self.own_ = len(set(where))
        explicit = Parallel(n_jobs=8, prefer="threads")(delayed(_where)() for _ in range(20))
        self.explicit_ = len(set(explicit))
        return self

    def score(self, X, y):
        return 0.0


def _where():
    np.linalg.svd(np.ones((40, 40)))
    return (os.getpid(), threading.get_ident())


def score(estimator, X, y):
    return {
        "blas": estimator.blas_,
        "openmp": estimator.openmp_,
        "own": estimator.own_,
        "explicit": estimator.explicit_,
    }


@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("backend", BACKENDS)
def test_inner_threads_bound_blas_openmp_and_a_models_own_n_jobs(backend, n_threads):
    result = af.run_cv(
        Counts(), af.Folds(X, y), scoring=score, backend=backend, n_jobs=2, inner_threads=n_threads
    )
    frame = result.to_frame()
    assert frame["blas"].max() <= n_threads
    assert frame["openmp"].max() <= n_threads
    assert frame["own"].max() <= n_threads
    assert frame["explicit"].max() <= n_threads
    if n_threads > 1:
        assert frame["blas"].max() == n_threads  # the budget can be used


@pytest.mark.parametrize("backend", ["serial", "threads"])
def test_the_callers_own_limits_are_restored(backend):
    def limits():
        return sorted((lib["filepath"], lib["num_threads"]) for lib in threadpool_info())

    _where()
    before = limits()
    af.run_cv(Counts(), af.Folds(X, y), scoring=score, backend=backend)
    assert limits() == before


@pytest.mark.parametrize("backend", ["serial", "threads"])
def test_limits_hold_though_another_thread_has_set_its_own_before(backend):
    """From threadpoolctl 3.8 on one thread at a time limits OpenBLAS, and others are not listened to."""
    has_set, may_end = threading.Event(), threading.Event()

    def set_own():
        threadpool_limits(max(before.values()))
        has_set.set()
        may_end.wait()

    _where()
    before = {lib["filepath"]: lib["num_threads"] for lib in threadpool_info()}
    other = threading.Thread(target=set_own)
    other.start()
    assert has_set.wait(30)
    result = af.run_cv(Counts(), af.Folds(X, y), scoring=score, backend=backend, n_jobs=1)
    after = {lib["filepath"]: lib["num_threads"] for lib in threadpool_info()}
    may_end.set()
    other.join()
    assert result.to_frame()["blas"].max() == 1
    assert after == before


class Nested(BaseEstimator):
    """Compares models inside a task."""

    def __init__(self, backend=None):
        self.backend = backend

    def fit(self, X, y):
        settings = {} if self.backend is None else {"backend": self.backend, "n_jobs": 1}
        inner = af.run_cv(Where(), af.Folds(X, y, cv=2), **settings)
        self.backend_ = inner.backend
        self.same_process_ = set(inner["where"]["test_score"]) == {os.getpid()}
        return self

    def score(self, X, y):
        return float(self.same_process_)


class Where(BaseEstimator):
    def fit(self, X, y):
        return self

    def score(self, X, y):
        return os.getpid()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_run_inside_a_task_is_serial_unless_asked_for(backend, monkeypatch):
    monkeypatch.setenv("ANYFOLD_BACKEND", "loky")
    result = af.run_cv(Nested(), af.Folds(X, y, cv=2), backend=backend, n_jobs=2, return_estimator=True)
    assert result["nested"]["test_score"].tolist() == [1.0, 1.0]
    assert {model.backend_ for model in result["nested"]["estimator"]} == {"serial"}


@pytest.mark.parametrize("backend", ["threads", "multiprocessing", "loky"])
def test_a_run_inside_a_task_can_ask_for_workers(backend):
    result = af.run_cv(
        Nested("multiprocessing"), af.Folds(X, y, cv=2), backend=backend, n_jobs=2, return_estimator=True
    )
    assert result["nested"]["test_score"].tolist() == [0.0, 0.0]
    assert {model.backend_ for model in result["nested"]["estimator"]} == {"multiprocessing"}
