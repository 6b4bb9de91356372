"""A worker that dies costs no finished result and no other task."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest
from sklearn.base import BaseEstimator
from sklearn.datasets import load_iris
from sklearn.exceptions import FitFailedWarning

import anyfold as af
from anyfold.errors import WorkerLostError
from anyfold.model_selection import GridSearchCV

X, y = load_iris(return_X_y=True)


class Counted(BaseEstimator):
    """Writes down each fit in a file of its own."""

    def __init__(self, folder=None, name="counted"):
        self.folder = folder
        self.name = name

    def count(self):
        """Return how often this fit was started before, and write down that it was once more."""
        fold = int(self.X_.sum() * 1000)  # each fold has other training rows
        earlier = list(Path(self.folder).glob(f"{self.name}-{fold}-*"))
        (Path(self.folder) / f"{self.name}-{fold}-{len(earlier)}").touch()
        return len(earlier)

    def fit(self, X, y):
        self.X_ = X
        self.earlier_ = self.count()
        self.act(self.earlier_)
        del self.X_
        return self

    def act(self, earlier):
        pass

    def score(self, X, y):
        return 1.0


class Dies(Counted):
    """Ends its worker the first ``deaths`` times."""

    def __init__(self, folder=None, name="dies", deaths=1):
        super().__init__(folder, name)
        self.deaths = deaths

    def act(self, earlier):
        if earlier < self.deaths:
            os.kill(os.getpid(), signal.SIGKILL)


def fits(folder, name):
    return len(list(folder.glob(f"{name}-*")))


@pytest.mark.parametrize("backend", ["multiprocessing", "processes"])
def test_a_task_whose_worker_died_is_run_again_and_only_the_guilty_one_fails(backend, tmp_path):
    models = {
        "a": Counted(str(tmp_path), "a"),
        "once": Dies(str(tmp_path), "once"),
        "always": Dies(str(tmp_path), "always", deaths=99),
        "b": Counted(str(tmp_path), "b"),
    }
    with pytest.warns(FitFailedWarning, match="2 of 8 tasks failed"):
        result = af.run_cv(models, af.Folds(X, y, cv=2), backend=backend, n_jobs=2, retries=1)
    assert all(result[name]["test_score"].tolist() == [1.0] * 2 for name in ("a", "once", "b"))
    # A pool that breaks as a whole may take down another task that was about to die; that is no charge.
    for name in ("once", "always"):
        assert fits(tmp_path, name) >= 4
        assert backend != "multiprocessing" or fits(tmp_path, name) == 4
    for failure in result.failures:
        assert (failure.model, failure.type, failure.stage) == ("always", "WorkerLostError", "worker")
        assert f"fold {failure.fold}: the worker that ran it ended 2 times" in failure.message


def test_the_default_pool_charges_nobody_else(tmp_path):
    models = {"dies": Dies(str(tmp_path), deaths=99), "a": Counted(str(tmp_path), "a")}
    with pytest.warns(FitFailedWarning):
        result = af.run_cv(models, af.Folds(X, y, cv=4), backend="multiprocessing", n_jobs=2, retries=0)
    assert fits(tmp_path, "a") == 4  # no innocent task was started twice
    assert fits(tmp_path, "dies") == 4
    assert all("SIGKILL" in failure.message and "memory" in failure.message for failure in result.failures)


def test_when_every_task_loses_its_worker_that_is_the_error(tmp_path):
    with pytest.raises(WorkerLostError, match="model 'dies', fold 0"):
        af.run_cv(Dies(str(tmp_path), deaths=99), af.Folds(X, y, cv=2), backend="multiprocessing", retries=0)


def test_with_error_score_raise_the_first_lost_task_is_the_error(tmp_path):
    models = {"a": Counted(str(tmp_path), "a"), "dies": Dies(str(tmp_path), deaths=99)}
    with pytest.raises(WorkerLostError, match="model 'dies', fold 0"):
        af.run_cv(models, af.Folds(X, y, cv=3), backend="multiprocessing", retries=0, error_score="raise")


def test_a_bare_pool_that_breaks_keeps_what_had_finished(tmp_path):
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    models = {"a": Counted(str(tmp_path), "a"), "dies": Dies(str(tmp_path), deaths=99)}
    with ProcessPoolExecutor(1, mp_context=get_context("forkserver")) as executor:
        with pytest.warns(FitFailedWarning):
            result = af.run_cv(models, af.Folds(X, y, cv=3), backend=executor)
    assert result["a"]["test_score"][0] == 1.0
    assert "does not heal" in result.failures[-1].message


def test_in_units_of_many_tiny_tasks_only_those_that_die_are_run_again(tmp_path):
    models = {f"m{i}": Counted(str(tmp_path), f"m{i}") for i in range(40)}
    models |= {f"dies{i}": Dies(str(tmp_path), f"dies{i}") for i in range(3)}
    result = af.run_cv(models, af.Folds(X, y, cv=3), backend="multiprocessing", n_jobs=2, retries=2)
    assert not result.failures
    assert len(result.to_frame()) == 43 * 3
    assert fits(tmp_path, "dies0") == 6
    assert all(fits(tmp_path, f"m{i}") == 3 for i in range(40))


@pytest.mark.parametrize("backend", ["multiprocessing", "processes"])
def test_tasks_that_wait_in_a_pool_that_breaks_again_and_again_are_not_charged(backend, tmp_path):
    models = {"d0": Dies(str(tmp_path), "d0", deaths=99), "d1": Dies(str(tmp_path), "d1", deaths=99)}
    models |= {name: Counted(str(tmp_path), name) for name in "abc"}
    with pytest.warns(FitFailedWarning, match="4 of 10 tasks failed"):
        result = af.run_cv(models, af.Folds(X, y, cv=2), backend=backend, n_jobs=2, retries=0)
    assert {failure.model for failure in result.failures} == {"d0", "d1"}


def end_if_read_by_a_worker(driver):
    if os.getpid() != driver:
        os.kill(os.getpid(), signal.SIGKILL)
    return Deadly(driver)


class Deadly:
    """Ends the worker that reads it, before that can say which task it has."""

    def __init__(self, driver):
        self.driver = driver

    def __reduce__(self):
        return end_if_read_by_a_worker, (self.driver,)


class Chosen(BaseEstimator):
    def __init__(self, value=None):
        self.value = value

    def fit(self, X, y):
        return self

    def score(self, X, y):
        return 1.0


@pytest.mark.filterwarnings(
    "ignore:One or more of the test scores are non-finite"
)  # said by scikit-learn too
@pytest.mark.parametrize("backend", ["multiprocessing", "processes"])
def test_a_task_that_ends_its_worker_when_it_is_read_is_the_only_one_that_fails(backend):
    values = [0, 1, Deadly(os.getpid()), 3]
    search = GridSearchCV(
        Chosen(), {"value": values}, cv=2, refit=False, backend=backend, n_jobs=2, retries=0
    )
    with pytest.warns(FitFailedWarning, match="WorkerLostError"):
        search.fit(X, y)
    scores = search.cv_results_["mean_test_score"]
    assert [bool(lost) for lost in np.isnan(scores)] == [False, False, True, False]
