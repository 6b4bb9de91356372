"""Many models at once, each on all of its data."""

import gc
import os
import pickle
import re
import signal
import threading
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.ensemble import RandomForestRegressor
from sklearn.exceptions import FitFailedWarning
from sklearn.linear_model import LinearRegression, Ridge
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeRegressor
from threadpoolctl import threadpool_limits

import anyfold as af
from anyfold.errors import (
    InvalidInputError,
    ModelFailedError,
    UnknownModelError,
    UnpicklableModelError,
    UnsupportedFeatureError,
    WorkerLostError,
)

rng = np.random.default_rng(0)
X, y = rng.normal(size=(60, 4)), rng.normal(size=60)
FOREST = RandomForestRegressor(4, max_depth=3)


@pytest.fixture(scope="module")
def pool():
    with af.get_executor("multiprocessing", n_jobs=2) as executor:
        yield executor


class Spy(RegressorMixin, BaseEstimator):
    """Notes where it was fitted and on what."""

    def fit(self, X, y=None, sample_weight=None):
        self.pid_, self.address_ = os.getpid(), X.__array_interface__["data"][0]
        self.n_, self.target_, self.weight_ = len(X), y, sample_weight
        return self


class Raises(BaseEstimator):
    def __init__(self, error=None):
        self.error = error

    def fit(self, X, y=None):
        raise self.error or ValueError("not today")


class Kills(BaseEstimator):
    def fit(self, X, y=None):
        os.kill(os.getpid(), signal.SIGKILL)


class Hangs(BaseEstimator):
    def fit(self, X, y=None):
        threading.Event().wait()


class Allocates(BaseEstimator):
    def __init__(self, n_bytes=0):
        self.n_bytes = n_bytes

    def fit(self, X, y=None):
        np.ones(30 << 17)  # 31 MB that, when they are freed, have the C library keep as much from then on
        parts = [np.ones(1 << 17) for _ in range(self.n_bytes >> 20)]
        self.n_ = len(parts)
        return self


class Reads(BaseEstimator):
    def fit(self, X, y=None):
        self.sum_ = X.sum()
        return self


class Writes(BaseEstimator):
    def fit(self, X, y=None):
        X["new"] = 1.0
        self.columns_ = list(X.columns)
        return self


class Keeps(BaseEstimator):
    def __init__(self, table=None):
        self.table = table

    def fit(self, X, y=None):
        return self


class Stays:
    def __reduce__(self):
        raise TypeError("stays here")

    def __deepcopy__(self, memo):
        return self


class Unreadable:
    def __init__(self, where=None):
        if where is not None and where != os.getpid():
            raise OSError("not here")

    def __reduce__(self):
        return Unreadable, (os.getpid(),)

    def __deepcopy__(self, memo):
        return self


def make_data(n=30):
    return X[:n], y[:n]


def no_data():
    raise OSError("the file is gone")


# ---- what comes back ---------------------------------------------------------------------------


def test_each_model_is_a_fitted_clone_and_the_original_is_untouched():
    models = {"ridge": Ridge(), "tree": DecisionTreeRegressor(random_state=0)}
    fitted = af.fit_models(models, X, y, backend="serial")
    assert list(fitted) == ["ridge", "tree"]
    assert fitted["ridge"] is fitted["ridge"]
    for name, model in models.items():
        assert not hasattr(model, "n_features_in_")
        own = type(model)(**model.get_params()).fit(X, y)
        assert np.array_equal(fitted[name].predict(X), own.predict(X))


@pytest.mark.parametrize("models", [FOREST, [FOREST], {"randomforestregressor": FOREST}])
def test_models_are_named_as_those_of_run_cv(models):
    assert list(af.fit_models(models, X, y, backend="serial")) == ["randomforestregressor"]


def test_open_random_states_are_seeded_alike_wherever_a_model_is_fitted(pool):
    here = af.fit_models({"one": FOREST, "other": FOREST}, X, y, random_state=3, backend="serial")
    there = af.fit_models({"new": Ridge(), "one": FOREST}, X, y, random_state=3, backend=pool)
    assert here["one"].random_state == here["other"].random_state == there["one"].random_state
    assert np.array_equal(here["one"].predict(X), there["one"].predict(X))


def test_a_root_seed_is_drawn_and_recorded():
    fitted = af.fit_models(FOREST, X, y, backend="serial")
    again = af.fit_models(FOREST, X, y, random_state=fitted.random_state, backend="serial")
    assert again["randomforestregressor"].random_state == fitted["randomforestregressor"].random_state


def test_what_each_took_is_a_table():
    fitted = af.fit_models({"ridge": Ridge(), "spy": Spy()}, X, y, backend="serial")
    frame = fitted.to_frame()
    assert frame["model"].tolist() == ["ridge", "spy"]
    assert frame["status"].tolist() == ["fitted", "fitted"]
    assert (frame["fit_time"] > 0).all()
    assert (frame["model_size"] > 100).all()
    assert frame["worker"].tolist() == [os.getpid()] * 2
    assert frame["peak_memory"].isna().all()  # the caller's process has other work too


def test_the_result_shows_itself():
    fitted = af.fit_models({"ridge": Ridge(), "a<b": Spy()}, X, y, random_state=1, backend="serial")
    headline, _, *rows = repr(fitted).splitlines()
    assert headline.startswith("FittedModels: 2 of 2 models, backend='serial', n_jobs=1, random_state=1, ")
    assert [row.split()[:2] for row in rows] == [["ridge", "fitted"], ["a<b", "fitted"]]
    assert "a&lt;b" in fitted._repr_html_()


def test_the_result_can_be_pickled():
    fitted = pickle.loads(pickle.dumps(af.fit_models(Ridge(), X, y, backend="serial")))
    assert np.array_equal(fitted["ridge"].predict(X), Ridge().fit(X, y).predict(X))


def test_a_name_that_was_not_asked_for_is_unknown():
    fitted = af.fit_models(Ridge(), X, y, backend="serial")
    with pytest.raises(UnknownModelError, match="did you mean 'ridge'"):
        fitted["rigde"]


# ---- data --------------------------------------------------------------------------------------


def test_a_model_may_bring_its_own_data():
    weight = np.arange(20.0)
    data = {"pair": (X[:10], y[:10]), "triple": (X[:20], None, {"sample_weight": weight}), "made": make_data}
    sizes = {"pair": 10, "triple": 20, "made": 30}
    fitted = af.fit_models(dict.fromkeys(["all", *data], Spy()), X, y, data=data, backend="serial")
    assert {name: model.n_ for name, model in fitted.items()} == {"all": 60, **sizes}
    assert fitted["triple"].target_ is None
    assert np.array_equal(fitted["triple"].weight_, weight)
    assert fitted["pair"].weight_ is None


def test_one_estimator_is_fitted_on_each_data():
    data = {size: partial(make_data, int(size)) for size in ("10", "20")}
    fitted = af.fit_models(Spy(), data=data, backend="serial")
    assert {name: model.n_ for name, model in fitted.items()} == {"10": 10, "20": 20}


def test_params_go_to_each_fit():
    weight = np.arange(60.0)
    fitted = af.fit_models([Spy(), Spy()], X, y, params={"sample_weight": weight}, backend="threads")
    assert all(np.array_equal(model.weight_, weight) for model in fitted.values())


def test_models_without_a_target_are_fitted_on_X_alone():
    fitted = af.fit_models(StandardScaler(), X, backend="serial")
    assert np.array_equal(fitted["standardscaler"].mean_, X.mean(axis=0))


def test_data_is_made_on_the_worker_that_fits(pool, tmp_path):
    def make():
        (tmp_path / "pid").write_text(str(os.getpid()))
        return X, y

    fitted = af.fit_models({"made": Spy()}, data={"made": make}, backend=pool)
    assert int((tmp_path / "pid").read_text()) == fitted["made"].pid_ != os.getpid()


def test_shared_data_is_sent_once(pool):
    data = {str(n): (X, y) for n in range(6)}
    fitted = af.fit_models(Spy(), data=data, backend=pool)
    models = list(fitted.values())
    assert len({(model.pid_, model.address_) for model in models}) == len({model.pid_ for model in models})


def test_data_is_published_no_earlier_than_it_is_needed_and_gone_afterwards(pool):
    def count(event=None):
        descriptors.append(len(os.listdir("/proc/self/fd")))  # noqa: PTH208

    af.fit_models([Spy()] * 20, X, y, backend=pool)  # both workers have been started
    gc.collect()
    descriptors = []
    count()
    data = {str(n): (np.full((10_000, 1), n), np.full(10_000, n)) for n in range(200)}
    fitted = af.fit_models(Spy(), data=data, backend=pool, callbacks=[count])
    assert len(fitted) == 200
    assert max(descriptors) - descriptors[0] < 300  # of 400 that there could be
    gc.collect()
    count()
    assert descriptors[-1] <= descriptors[0] + 1


def test_what_a_model_does_to_its_frame_reaches_no_other(pool):
    frame = pd.DataFrame(X, columns=list("abcd"))
    for backend in ("threads", pool):
        fitted = af.fit_models([Writes() for _ in range(6)], frame, y, backend=backend)
        assert all(model.columns_ == [*"abcd", "new"] for model in fitted.values())
    assert list(frame.columns) == list("abcd")


@pytest.mark.parametrize("backend", ["loky", "dask", "ray"])
def test_data_and_models_travel_on_every_backend(backend):
    data = {"mon": (X[:10], y[:10]), "tue": partial(make_data, 20), "wed": (X, y), "thu": (X, -y)}
    many = np.tile(X, (20, 1))
    oracle = af.fit_models(LinearRegression(), data=data, backend="serial")
    with af.get_executor(backend, n_jobs=2) as executor:
        fitted = af.fit_models(LinearRegression(), data=data, backend=executor)
        frame = af.predict_models(fitted, X, backend=executor)
        parts = af.predict_partitions(fitted["wed"], many, n_partitions=3, backend=executor)
    for name in data:
        assert np.array_equal(fitted[name].coef_, oracle[name].coef_)
    assert frame.equals(af.predict_models(oracle, X, backend="serial"))
    with threadpool_limits(1):
        assert np.array_equal(parts, fitted["wed"].predict(many))


# ---- failures ----------------------------------------------------------------------------------


def test_a_model_that_fails_does_not_cost_the_others():
    models = {"bad": Raises(), "good": Ridge()}
    with pytest.warns(FitFailedWarning, match=r"1 of 2 models failed.*\n  1 x bad, fit: ValueError: not"):
        fitted = af.fit_models(models, X, y, backend="threads")
    assert list(fitted) == ["good"]
    assert fitted.get("bad") is None
    (failure,) = fitted.failures
    assert (failure.model, failure.stage, failure.type) == ("bad", "fit", "ValueError")
    assert "fold" not in repr(failure)
    with pytest.raises(ModelFailedError, match="'bad' was not fitted: ValueError in fit: not today") as info:
        fitted["bad"]
    assert isinstance(info.value.__cause__, ValueError)
    assert fitted.to_frame()["status"].tolist() == ["failed", "fitted"]
    assert "1 of 2 failed" in repr(fitted)


def test_data_that_cannot_be_made_is_a_failure_of_its_own_stage():
    with pytest.warns(FitFailedWarning, match="bad, data: OSError: the file is gone"):
        fitted = af.fit_models(
            {"bad": Ridge(), "good": Ridge()}, X, y, data={"bad": no_data}, backend="serial"
        )
    assert fitted.failures[0].stage == "data"


def test_data_that_cannot_be_sent_costs_its_model_only(pool):
    data = {"bad": ([threading.Lock()] * 60, y), "good": (X, y)}
    with pytest.warns(FitFailedWarning, match="bad, data: UnpicklableModelError: data cannot be sent to the"):
        fitted = af.fit_models(Ridge(), data=data, backend=pool)
    assert list(fitted) == ["good"]


def test_a_model_that_cannot_be_sent_fails_alone_and_is_named(pool):
    models = {"good": Ridge(), "bad": Raises(Stays()), "wide": Keeps(np.ones(1 << 14))}
    with pytest.warns(FitFailedWarning, match="1 of 3 models failed") as told:
        fitted = af.fit_models(models, X, y, backend=pool)
    assert list(fitted) == ["good", "wide"]
    expected = "parameter 'error', a Stays, of model 'bad' cannot be sent to the workers of backend"
    assert expected in str(told[0].message)
    with pytest.raises(UnpicklableModelError, match="of model 'bad' cannot be sent"):
        af.fit_models({"bad": models["bad"]}, X, y, backend=pool)


def test_a_model_that_cannot_be_read_on_the_worker_fails_alone(pool):
    models = {"bad": Raises(Unreadable()), "good": Ridge()}
    with pytest.warns(FitFailedWarning, match="bad, worker: OSError: not here"):
        fitted = af.fit_models(models, X, y, backend=pool)
    assert list(fitted) == ["good"]


def test_what_makes_no_pair_is_told():
    with pytest.raises(InvalidInputError, match=r"returned is ndarray, not \(X, y\)"):
        af.fit_models(Ridge(), data={"bad": partial(np.ones, 3)}, backend="serial")


@pytest.mark.parametrize("on_error", ["raise", "warn"])
def test_the_original_error_is_raised_on_request_and_where_all_fail(on_error):
    models = {"bad": Raises(), "worse": Raises(KeyError("k"))}
    with pytest.raises(ValueError, match="not today") as info:
        af.fit_models(models, X, y, on_error=on_error, backend="serial")
    assert info.value.__notes__[0].startswith("raised in fit of model 'bad'")


def test_a_model_that_ends_its_worker_is_the_only_one_that_is_lost(pool):
    models = {"kills": Kills(), **{f"ridge{n}": Ridge() for n in range(4)}}
    with pytest.warns(FitFailedWarning, match="kills, worker: WorkerLostError"):
        fitted = af.fit_models(models, X, y, backend=pool, retries=0)
    assert len(fitted) == 4
    with pytest.raises(ModelFailedError) as info:
        fitted["kills"]
    assert isinstance(info.value.__cause__, WorkerLostError)


def test_a_model_that_hangs_is_stopped(pool):
    with pytest.warns(FitFailedWarning, match="hangs, worker: TaskTimeoutError"):
        fitted = af.fit_models({"hangs": Hangs(), "ridge": Ridge()}, X, y, backend=pool, timeout=1)
    assert list(fitted) == ["ridge"]


def test_a_time_limit_leaves_what_had_been_fitted(pool):
    with pytest.warns(af.errors.AnyfoldWarning, match=r"time_limit=1 .* result.missing"):
        fitted = af.fit_models({"hangs": Hangs(), "ridge": Ridge()}, X, y, backend=pool, time_limit=1)
    assert "hangs" in fitted.missing
    assert {*fitted, *fitted.missing} == {"hangs", "ridge"}
    with pytest.raises(ModelFailedError, match="the run ended before its turn"):
        fitted["hangs"]


def test_ctrl_c_leaves_what_had_been_fitted():
    models = {"ridge": Ridge(), "interrupted": Raises(KeyboardInterrupt())}
    with pytest.raises(KeyboardInterrupt) as info:
        af.fit_models(models, X, y, backend="serial")
    assert list(info.value.result) == ["ridge"]
    assert info.value.result.missing == ("interrupted",)
    assert "1 of 2 models had been fitted" in info.value.__notes__[0]


# ---- memory ------------------------------------------------------------------------------------


def test_the_peak_of_memory_is_measured_on_the_worker(pool):
    models = {
        str(n): Allocates(50 << 20) for n in range(4)
    }  # what one has freed does not hide what another takes
    peaks = af.fit_models(models, X, y, backend=pool).to_frame()["peak_memory"]
    assert ((peaks > 45 << 20) & (peaks < 90 << 20)).all()


def test_shared_data_is_no_memory_of_the_model(pool):
    large = np.ones((4_000_000, 2))
    peaks = af.fit_models([Reads(), Reads()], large, backend=pool).to_frame()["peak_memory"]
    assert (peaks < 30e6).all()


# ---- what cannot be ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"models": Ridge()}, "model 'ridge' has no data: pass X and y"),
        ({"models": Ridge(), "X": X, "y": y[:3]}, "X has 60, y has 3"),
        ({"models": {"a": Ridge()}, "data": {"a": (X, y[:3])}}, r"data\['a'\]: X and y must have"),
        ({"models": {"a": Ridge()}, "data": {"a": (X,)}}, r"data\['a'\] is tuple of 1, not \(X, y\)"),
        ({"models": {"a": Ridge()}, "data": {"a": X}}, r"data\['a'\] is ndarray, not \(X, y\)"),
        ({"models": {"a": Ridge()}, "data": {"a": (X, y, 3)}}, "the params in .* are int"),
        (
            {"models": {"mon": Ridge()}, "X": X, "data": {"mom": (X, y)}},
            r"'mom', .*\(did you mean 'mon'",
        ),
        ({"models": {"a": Ridge()}, "X": X, "data": {"a": (X, y)}}, "leave out X and y"),
        ({"models": {"a": Ridge()}, "X": X, "data": [(X, y)]}, "data is list, not a mapping"),
        ({"models": Ridge(), "X": X, "y": y, "params": {"weigth": y}}, "takes no 'weigth'"),
        ({"models": Ridge, "X": X, "y": y}, r"write Ridge\(\)"),
        ({"models": Ridge(), "X": X, "y": y, "on_error": "nan"}, "allowed are 'warn' and 'raise'"),
        ({"models": Ridge(), "X": X, "y": y, "resources": {"rigde": {"gpu": 1}}}, "resources names 'rigde'"),
    ],
)
def test_what_cannot_be_fitted_is_told_before_any_work(arguments, message):
    with pytest.raises(InvalidInputError, match=message):
        af.fit_models(**arguments, backend="serial")


def test_a_journal_is_refused_and_one_for_all_calls_is_not_meant(tmp_path, monkeypatch):
    with pytest.raises(UnsupportedFeatureError, match="keeps scores, no fitted models"):
        af.fit_models(Ridge(), X, y, journal=tmp_path / "journal", backend="serial")
    monkeypatch.setenv("ANYFOLD_JOURNAL", str(tmp_path / "of the environment"))
    assert list(af.fit_models(Ridge(), X, y, backend="serial")) == ["ridge"]
    with af.config_context(journal=tmp_path / "journal"):
        assert list(af.fit_models(Ridge(), X, y, backend="serial")) == ["ridge"]
    assert list(tmp_path.iterdir()) == []


def test_the_code_of_the_page_runs():
    page = (Path(__file__).parent.parent / "docs/fitting_and_predicting.md").read_text()
    namespace = {}
    with af.config_context(backend="threads", n_jobs=2):
        for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
            exec(code, namespace)
    assert list(namespace["by_day"]) == ["mon", "tue", "wed"]
    assert list(namespace["frame"].columns) == ["left", "right"]
