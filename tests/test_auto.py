"""``backend="auto"``: at once in the caller, on workers when that is worth it, with the same numbers."""

import logging
import os
import threading
import time
import warnings

import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.datasets import load_iris
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB

import anyfold as af
from anyfold import events, model_selection

X, y = load_iris(return_X_y=True)
FOLDS = af.Folds(X, y, cv=4)
CALLER = os.getpid()


class Constant(ClassifierMixin, BaseEstimator):
    """Draws from the global generator, and says where it was fitted."""

    def __init__(self, name="a"):
        self.name = name

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        self.drawn_ = np.random.random()
        print(self.name, "is fitted")
        logging.getLogger("tests.auto").warning("%s is logged", self.name)
        warnings.warn(f"{self.name} warns", UserWarning, stacklevel=1)
        return self

    def predict(self, X):
        return np.full(len(X), self.classes_[0])

    def score(self, X, y):
        return self.drawn_


class Meets(Constant):
    """In the caller, fits until others have been fitted on workers."""

    def __init__(self, folder, n=1, caller=CALLER):
        self.folder = folder
        self.n = n
        self.caller = caller
        self.name = "meets"

    def fit(self, X, y):
        if os.getpid() == self.caller:
            while len(list(self.folder.iterdir())) < self.n:
                time.sleep(0.01)
        else:
            (self.folder / f"{os.getpid()}-{time.time_ns()}").touch()
        return super().fit(X, y)


class Never(Constant):
    """Cannot be sent; fits until nobody tries any more."""

    def fit(self, X, y):
        while any(thread.name == "anyfold-scout" for thread in threading.enumerate()):
            time.sleep(0.01)
        return super().fit(X, y)

    def __reduce__(self):
        raise TypeError("stays here")


class Fails(Meets):
    def fit(self, X, y):
        super().fit(X, y)
        raise ValueError(f"with {len(X)}")


@pytest.fixture(autouse=True)
def two_workers(monkeypatch):
    monkeypatch.setenv("ANYFOLD_N_JOBS", "2")


@pytest.fixture
def models():
    return {"a": Constant(), "trees": ExtraTreesClassifier(2), "b": Constant("b")}


def compared(result):
    told = [(r.model, r.fold, r.message) for r in result.warnings]
    frame = result.to_frame().drop(columns=["fit_time", "score_time"])
    return frame.to_numpy().tolist(), told, result.logs, result.output


def run(models, **settings):
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        return af.run_cv(models, FOLDS, random_state=3, **settings)


def places(result):
    return {outcome.place.pid for outcome in result._grid}


def test_small_work_stays_in_the_caller_with_the_same_numbers(models, capsys):
    af.shutdown()
    result = run(models, backend="auto")
    assert places(result) == {CALLER}
    assert (result.backend, result.n_jobs) == ("serial", 1)
    assert "all tasks ran in the calling process: less was left than workers take to start" in result.choice
    assert capsys.readouterr().out.splitlines()[:2] == [
        "[model 'a', fold 0] a is fitted",
        "[model 'b', fold 0] b is fitted",
    ]
    assert compared(result) == compared(run(models, backend="serial"))


def test_workers_begin_while_the_caller_is_busy_and_change_no_number(models, tmp_path, capsys):
    heard, threads = [], set()

    def hear(event):
        heard.append(event)
        threads.add(threading.current_thread())

    (tmp_path / "met").mkdir()
    models = {"meets": Meets(tmp_path / "met", 2), **models}
    result = run(models, backend="auto", callbacks=[hear])
    assert CALLER in places(result)
    assert len(places(result)) > 1
    assert (result.backend, result.n_jobs) == ("multiprocessing", 2)
    assert "of 16 tasks ran in the calling process, the others on 2 workers" in result.choice
    said = capsys.readouterr().out.splitlines()
    assert said == [f"[model '{m}', fold {f}] {m} is fitted" for f in range(4) for m in ("meets", "a", "b")]
    assert threads == {threading.main_thread()}
    assert [event for event in heard if isinstance(event, events.RunStarted)] == [
        events.RunStarted(n_tasks=16, n_workers=2)
    ]
    assert isinstance(heard[0], events.RunStarted)
    assert isinstance(heard[-1], events.RunFinished)
    finished = [e.outcome.key for e in heard if isinstance(e, events.TaskFinished)]
    assert len(finished) == len(set(finished)) == 16
    assert len([e for e in heard if isinstance(e, events.RunFinished)]) == 1
    assert compared(result) == compared(run(models, backend="serial"))


def test_a_run_with_a_journal_has_workers_from_the_start(models, tmp_path):
    settings = {"backend": "auto", "journal": tmp_path / "journal.sqlite"}
    result = run(models, **settings)
    assert CALLER not in places(result)
    assert result.choice == "what has a journal shall outlive a model that ends its process"
    again = run(models, **settings)
    assert len(again.journal.taken) == 12
    assert compared(again) == compared(result)


def test_what_cannot_be_sent_stays_in_the_caller(tmp_path):
    result = run({"never": Never(), "a": Constant()}, backend="auto")
    assert places(result) == {CALLER}
    assert "model 'never' cannot be sent to the workers" in result.choice
    assert not result.failures


def test_the_first_error_in_order_is_raised_wherever_it_happened(tmp_path):
    with pytest.raises(ValueError, match="with 112"):
        run({"a": Constant(), "fails": Fails(tmp_path)}, backend="auto", error_score="raise")


def test_where_something_must_be_stopped_workers_are_used_at_once():
    result = af.run_cv(GaussianNB(), FOLDS, backend="auto", timeout=60)
    assert CALLER not in places(result)
    assert result.choice == "timeout= and time_limit= need workers that can be stopped"


def test_one_worker_is_the_caller():
    result = af.run_cv(GaussianNB(), FOLDS, backend="auto", n_jobs=1)
    assert (result.backend, result.choice) == ("serial", "one worker is all there may be")


def test_auto_has_no_options_and_is_no_executor():
    with pytest.raises(af.errors.InvalidSettingError, match="the backend 'auto' has none"):
        af.run_cv(GaussianNB(), FOLDS, backend="auto", backend_options={"start_method": "spawn"})
    with pytest.raises(af.errors.UnknownBackendError, match="'auto' is chosen by each run"):
        af.get_executor("auto")


def test_the_choice_is_saved_with_a_result(tmp_path):
    result = af.run_cv(GaussianNB(), FOLDS, backend="auto")
    result.save(tmp_path / "result.npz")
    assert af.CVResult.load(tmp_path / "result.npz").choice == result.choice


@pytest.mark.parametrize("n", [2, 30])
def test_a_search_has_the_same_results(n):
    grid = {"C": np.logspace(-3, 3, n).tolist()}
    searches = [
        model_selection.GridSearchCV(LogisticRegression(max_iter=500), grid, backend=backend).fit(X, y)
        for backend in ("serial", "auto")
    ]
    serial, auto = [
        {k: np.asarray(v).tolist() for k, v in s.cv_results_.items() if "time" not in k} for s in searches
    ]
    assert serial == auto


def test_models_are_fitted_with_the_same_numbers():
    models = {f"trees {i}": ExtraTreesClassifier(5) for i in range(6)}
    serial, auto = [
        af.fit_models(models, X, y, random_state=1, backend=backend) for backend in ("serial", "auto")
    ]
    assert auto.choice
    for name in models:
        assert serial[name].predict_proba(X).tobytes() == auto[name].predict_proba(X).tobytes()


@pytest.mark.parametrize("call", ["map", "predict"])
def test_other_calls_use_workers(call):
    if call == "map":
        assert af.parallel_map(abs, [-1, -2], backend="auto") == [1, 2]
    else:
        model = GaussianNB().fit(X, y)
        expected = model.predict(X)
        assert (af.predict_partitions(model, X, backend="auto", n_partitions=2) == expected).all()
