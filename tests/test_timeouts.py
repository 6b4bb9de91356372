"""A hung fit is stopped and recorded, and the rest goes on."""

import time
from pathlib import Path

import pytest
from sklearn.base import BaseEstimator
from sklearn.datasets import load_iris
from sklearn.exceptions import FitFailedWarning
from tests.backends import HEALING_BACKENDS

import anyfold as af
from anyfold.errors import AnyfoldWarning, TaskTimeoutError, UnsupportedFeatureError

X, y = load_iris(return_X_y=True)


class Quick(BaseEstimator):
    def fit(self, X, y):
        return self

    def score(self, X, y):
        return 1.0


class Hangs(Quick):
    """Never returns from one fold, holding the interpreter's lock or not."""

    def __init__(self, how="sleeping", folder=None, always=False):
        self.how = how
        self.folder = folder
        self.always = always

    def fit(self, X, y):
        (Path(self.folder) / f"{X.sum():.6f}-{time.time_ns()}").touch()
        if self.always or X[0, 0] != X_FIRST:
            getattr(self, self.how)()
        return self

    def sleeping(self):
        while True:
            time.sleep(3600)

    def looping(self):
        while True:
            pass

    def holding_the_lock(self):
        import re

        re.match(r"(a+)+$", "a" * 50 + "b")  # one call that takes longer than anybody lives


X_FIRST = X[30, 0]  # the first training row of fold 0 below is this one, and of no other fold


@pytest.mark.parametrize("how", ["sleeping", "looping", "holding_the_lock"])
@pytest.mark.parametrize("backend", HEALING_BACKENDS)
def test_a_hung_fit_is_stopped_and_recorded_with_its_stack(backend, how, tmp_path):
    folds = af.Folds(X, y, cv=[(range(30, 150), range(30)), (range(120), range(120, 150))])
    models = {"quick": Quick(), "hangs": Hangs(how, str(tmp_path))}
    with pytest.warns(FitFailedWarning, match="1 of 4 tasks failed"):
        result = af.run_cv(models, folds, backend=backend, n_jobs=2, timeout=1.5)
    (failure,) = result.failures
    assert (failure.model, failure.fold, failure.type) == ("hangs", 1, "TaskTimeoutError")
    assert "fold 1: ran longer than timeout=1.5 seconds" in failure.message
    assert f"in {how}" in failure.traceback
    assert isinstance(failure.exception(), TaskTimeoutError)
    assert result["quick"]["test_score"].tolist() == [1.0, 1.0]
    assert result["hangs"]["test_score"][0] == 1.0
    if backend == "multiprocessing":
        assert len(list(tmp_path.iterdir())) == 2  # what hangs is not tried again


def test_a_fit_that_is_quick_enough_is_left_alone():
    result = af.run_cv(Quick(), af.Folds(X, y), n_jobs=2, timeout=30)
    assert not result.failures


def test_time_counts_from_the_start_of_a_task_not_from_its_submission(tmp_path):
    class Slow(Quick):
        def fit(self, X, y):
            time.sleep(0.4)  # work
            return self

    result = af.run_cv({f"m{i}": Slow() for i in range(3)}, af.Folds(X, y, cv=3), n_jobs=1, timeout=1)
    assert not result.failures


@pytest.mark.parametrize("setting", [{"timeout": 1}, {"time_limit": 1}], ids=str)
@pytest.mark.parametrize("backend", ["serial", "threads"])
def test_limits_are_refused_where_nothing_can_be_stopped(backend, setting):
    with pytest.raises(UnsupportedFeatureError, match=r"cannot stop work.*multiprocessing"):
        af.run_cv(Quick(), af.Folds(X, y), backend=backend, **setting)


def test_a_time_limit_returns_what_has_finished(tmp_path):
    models = {"quick": Quick(), "hangs": Hangs("sleeping", str(tmp_path), always=True)}
    with pytest.warns(
        AnyfoldWarning, match=r"time_limit=1.5 seconds were over when \d+ of 4 tasks had finished"
    ):
        result = af.run_cv(models, af.Folds(X, y, cv=2), n_jobs=2, time_limit=1.5)
    assert result.interrupted
    assert ("hangs", 0) in result.missing
    assert result["quick"]["test_score"][0] == 1.0
