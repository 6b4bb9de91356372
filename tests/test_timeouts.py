"""A hung fit is stopped and recorded, and the rest goes on."""

import faulthandler
import signal
import time
from pathlib import Path

import pytest
from sklearn.base import BaseEstimator
from sklearn.datasets import load_iris
from sklearn.exceptions import FitFailedWarning
from tests.backends import START_METHODS

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


FOLDS = af.Folds(X, y, cv=[(range(30, 150), range(30)), (range(120), range(120, 150))])


def check_that_hung_fits_are_stopped(folder, hangs, **settings):
    models = {"quick": Quick(), **{how: Hangs(how, str(folder)) for how in hangs}}
    with pytest.warns(FitFailedWarning, match=f"{len(hangs)} of {2 * len(models)} tasks failed"):
        result = af.run_cv(models, FOLDS, n_jobs=2, timeout=1.5, **settings)
    assert [(f.model, f.fold, f.type) for f in result.failures] == [(h, 1, "TaskTimeoutError") for h in hangs]
    for how, failure in zip(hangs, result.failures, strict=True):
        assert "fold 1: ran longer than timeout=1.5 seconds" in failure.message
        first, *_ = failure.traceback.split("\n\n")  # the thread that hung comes before its helpers
        assert f"in {how}" in first
        assert isinstance(failure.exception(), TaskTimeoutError)
        assert result[how]["test_score"][0] == 1.0
    assert result["quick"]["test_score"].tolist() == [1.0, 1.0]


@pytest.mark.parametrize("backend", ["processes", "loky"])
def test_a_hung_fit_is_stopped_and_recorded_with_its_stack(backend, tmp_path):
    check_that_hung_fits_are_stopped(tmp_path, ["holding_the_lock"], backend=backend)


@pytest.mark.parametrize("start_method", START_METHODS)
def test_however_it_hangs_and_its_worker_was_started(start_method, tmp_path):
    # An alarm of the caller's own: in a fork the interpreter's watchdog waits for its thread for ever.
    faulthandler.dump_traceback_later(600)
    try:
        hangs = ["sleeping", "looping", "holding_the_lock"] if start_method == "fork" else ["looping"]
        options = {"start_method": start_method}
        check_that_hung_fits_are_stopped(tmp_path, hangs, backend="multiprocessing", backend_options=options)
    finally:
        faulthandler.cancel_dump_traceback_later()
    assert len(list(tmp_path.iterdir())) == 2 * len(hangs)  # what hangs is not tried again


def test_a_task_that_sets_alarms_does_not_spare_the_next(tmp_path):
    class SetsAlarms(Quick):
        def fit(self, X, y):
            signal.signal(signal.SIGALRM, signal.SIG_IGN)
            signal.alarm(1000)
            return self

    models = {"alarms": SetsAlarms(), "hangs": Hangs("sleeping", str(tmp_path))}
    with pytest.warns(FitFailedWarning, match=r"(?s)1 of 4 tasks failed.*TaskTimeoutError"):
        af.run_cv(
            models,
            FOLDS,
            n_jobs=1,
            timeout=1,
            backend="multiprocessing",
            backend_options={"start_method": "fork"},
        )


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
    af.run_cv(
        Quick(), af.Folds(X, y, cv=2), n_jobs=2
    )  # so that the time is not up before workers have started
    with pytest.warns(
        AnyfoldWarning, match=r"time_limit=4 seconds were over when \d+ of 4 tasks had finished"
    ):
        result = af.run_cv(models, af.Folds(X, y, cv=2), n_jobs=2, time_limit=4)
    assert result.interrupted
    assert ("hangs", 0) in result.missing
    assert result["quick"]["test_score"][0] == 1.0
