"""What belongs to the caller is left as it was, on every backend."""

import io
import logging
import os
import random
import sys
import threading
import time
import warnings
import weakref
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pytest
import sklearn
from sklearn.base import BaseEstimator
from sklearn.cluster import KMeans
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier
from tests.backends import BACKENDS
from threadpoolctl import threadpool_info, threadpool_limits

import anyfold as af
from anyfold.errors import DataChangedWarning

X, y = load_iris(return_X_y=True)


class Rude(BaseEstimator):
    """Changes everything that a model should leave alone, where it can."""

    def fit(self, X, y):
        random.seed(0)
        np.random.seed(0)
        warnings.warn("rude", UserWarning, stacklevel=1)
        return self

    def score(self, X, y):
        return 0.0


def state():
    return {
        "random": random.getstate(),
        "numpy": [np.asarray(part).tolist() for part in np.random.get_state()],
        "environ": dict(os.environ),
        "cwd": Path.cwd(),
        "filters": list(warnings.filters),
        "sklearn": sklearn.get_config(),
    }


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.filterwarnings("ignore:rude")
def test_generators_environment_and_filters_are_left_as_they_were(backend):
    # Global generators belong to the process: threads cannot be kept apart.
    model = Warns() if backend == "threads" else Rude()
    random.seed(5)
    np.random.seed(5)
    before = state()
    af.run_cv(model, af.Folds(X, y), backend=backend, n_jobs=2)
    assert state() == before


@pytest.mark.parametrize("backend", BACKENDS)
def test_data_is_neither_changed_nor_made_read_only(backend):
    data = np.asfortranarray(X)
    copy = data.copy(order="K")
    result = af.run_cv(
        {"scaler": Writer(), "clusters": KMeans(2, n_init=1, copy_x=False)},
        af.Folds(data, y),
        random_state=0,
        backend=backend,
        n_jobs=2,
    )
    assert not result.failures
    assert data.tobytes() == copy.tobytes()
    assert data.flags.writeable
    assert data.flags.f_contiguous
    assert result["scaler"]["test_score"].tolist() == [1.0] * 5


class Writer(BaseEstimator):
    """Writes to its training and its test data, and scores 1 where it saw them unwritten."""

    def fit(self, X, y):
        self.sum_ = X.sum()
        X[:] = 0
        return self

    def score(self, X, y):
        clean = X.any() and self.sum_ > 0
        X *= 0
        return float(clean)


@pytest.mark.parametrize("backend", BACKENDS)
def test_data_that_its_owner_changed_between_two_calls_is_noticed(backend):
    data = X.copy()
    folds = af.Folds(data, y)
    with af.get_executor(backend, n_jobs=1) as executor:
        before = af.run_cv(Mean(), folds, backend=executor)["mean"]["test_score"]
        data += 1
        with pytest.warns(DataChangedWarning, match="X or y was changed"):
            after = af.run_cv(Mean(), folds, backend=executor)["mean"]["test_score"]
    np.testing.assert_allclose(after, before + 1)


class Mean(BaseEstimator):
    def fit(self, X, y):
        return self

    def score(self, X, y):
        return X.mean()


@pytest.mark.parametrize("backend", BACKENDS)
def test_warnings_of_tasks_reach_the_caller_once_with_their_tasks(backend):
    with pytest.warns(UserWarning) as caught:
        af.run_cv(
            {"rude": Rude()} if backend != "threads" else {"rude": Warns()}, af.Folds(X, y), backend=backend
        )
    told = [str(warning.message) for warning in caught]
    assert told == ["rude\n[model 'rude', folds 0, 1, 2, 3, 4]"]


class Warns(Rude):
    def fit(self, X, y):
        warnings.warn("rude", UserWarning, stacklevel=1)
        return self


@pytest.mark.parametrize("backend", BACKENDS)
def test_filters_of_the_caller_hold_in_tasks(backend):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message="rude")
        result = af.run_cv(Warns(), af.Folds(X, y), backend=backend, n_jobs=2)
    assert result.warnings == ()
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        with pytest.raises(UserWarning, match="rude"):
            af.run_cv(Warns(), af.Folds(X, y), backend=backend, n_jobs=2)


# ---- while a generator is paused ----------------------------------------------------------------------


def process_state():
    blas = {lib["filepath"]: lib["num_threads"] for lib in threadpool_info() if lib["user_api"] == "blas"}
    hooks = warnings.showwarning, logging.Logger.callHandlers, sys.stdout, sys.stderr
    return list(warnings.filters), hooks, blas


@pytest.mark.parametrize("backend", ["serial", "threads"])
def test_a_paused_generator_leaves_the_process_to_its_caller(backend):
    np.ones((2, 2)) @ np.ones((2, 2))
    with threadpool_limits(2):
        before = process_state()
        values = af.parallel_map(abs, range(50), return_as="generator", backend=backend, n_jobs=1)
        assert next(values) == 0
        until = time.monotonic() + 20
        while process_state() != before and time.monotonic() < until:
            time.sleep(0.01)  # a thread may still finish what it has
        assert process_state() == before
        values.close()


def test_what_a_caller_changes_while_threads_work_for_its_generator_stays():
    gate, heard = threading.Event(), []

    def wait(n):
        warnings.warn("of a task", UserWarning, stacklevel=1)
        print("in a task")
        assert not n or gate.wait(60)
        return n

    with warnings.catch_warnings(), redirect_stdout(io.StringIO()) as said:
        warnings.simplefilter("always")
        warnings.showwarning = lambda message, *args, **kwargs: heard.append(str(message))
        values = af.parallel_map(wait, range(2), return_as="generator", backend="threads", n_jobs=1)
        assert next(values) == 0
        with warnings.catch_warnings():  # begins while a task runs, and ends afterwards
            warnings.filterwarnings("ignore", message="mine")
            warnings.warn("mine", UserWarning, stacklevel=1)
            warnings.warn("heard", UserWarning, stacklevel=1)
            print("by the caller")
            gate.set()
            assert list(values) == [1]
            assert warnings.filters[0][1].match("mine")
            warnings.warn("mine", UserWarning, stacklevel=1)
        assert [entry[0] for entry in warnings.filters[:1]] == ["always"]
        warnings.warn("mine", UserWarning, stacklevel=1)
    assert heard == ["heard", "of a task\n[wait, item 0]", "mine"]
    assert said.getvalue().splitlines() == [
        "[wait, item 0] in a task",
        "by the caller",
        "[wait, item 1] in a task",
    ]


def test_what_stands_in_for_stdout_outlives_its_run():
    # In CPython 3.11 `print` holds no reference to the stream, and may be at it when a thread ends.
    stood_in = af.parallel_map(lambda _: weakref.ref(sys.stdout), [0], backend="threads", n_jobs=1)[0]
    assert stood_in() is not None
    assert stood_in() is not sys.stdout


def test_a_paused_generator_does_not_keep_others_from_showing_their_progress(capsys):
    paused = af.parallel_map(abs, range(3), return_as="generator", backend="serial", progress=True)
    next(paused)
    af.parallel_map(abs, range(3), backend="serial", progress=True)
    assert capsys.readouterr().err.count("anyfold: 3/3 tasks") == 1
    list(paused)
    assert capsys.readouterr().err.count("anyfold: 3/3 tasks") == 1


def test_models_that_use_joblib_inside_of_a_task_are_fitted_on_threads():
    X, y = np.arange(40.0)[:, None], np.arange(40) % 2
    forest = RandomForestClassifier(3, max_depth=2, random_state=0)
    result = af.run_cv(forest, af.Folds(X, y, cv=2), backend="threads", n_jobs=2)
    assert not result.failures
