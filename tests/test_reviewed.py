"""What careful readers and first users found wrong stays right."""

import logging
import os
import signal
import subprocess
import sys
import textwrap
import threading
import warnings
from concurrent.futures import Executor, Future, ThreadPoolExecutor

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.base import BaseEstimator
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import FitFailedWarning
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from tests.backends import BACKENDS
from threadpoolctl import threadpool_info

import anyfold as af
from anyfold.errors import AnyfoldWarning, InvalidInputError, WorkerLostError

X, y = load_iris(return_X_y=True)
FOLDS = af.Folds(X, y, cv=4)


class Model(BaseEstimator):
    def fit(self, X, y=None, **params):
        return self

    def score(self, X, y=None):
        return 1.0


class Interrupting(float):
    def __reduce__(self):
        return (_interrupt, ())


def _interrupt():
    signal.raise_signal(signal.SIGINT)
    return 0.0


def test_ctrl_c_while_a_result_is_read_is_no_failure_of_a_model():
    class Scores(Model):
        def score(self, X, y=None):
            return Interrupting(1.0)

    with pytest.raises(KeyboardInterrupt) as caught:
        af.run_cv(Scores(), FOLDS, backend="multiprocessing", n_jobs=1)
    assert caught.value.result.failures == ()
    assert "tasks had finished" in caught.value.__notes__[0]


def test_a_time_limit_warns_also_where_errors_are_raised():
    class Waits(Model):
        def fit(self, X, y=None):
            threading.Event().wait(1)
            return self

    with pytest.warns(AnyfoldWarning, match="time_limit=1.5 seconds were over"):
        result = af.run_cv(Waits(), FOLDS, error_score="raise", time_limit=1.5, n_jobs=1)
    assert result.missing


def test_a_run_that_ends_does_not_stop_the_work_of_another(tmp_path):
    class Slow(Model):
        def fit(self, X, y=None):
            (tmp_path / f"{os.getpid()}-{X.sum()}").touch()
            threading.Event().wait(0.7)
            return self

    class Fails(Model):
        def fit(self, X, y=None):
            raise ArithmeticError("at once")

    found = {}
    with af.get_executor("multiprocessing", n_jobs=3) as executor:

        def slowly():
            found["result"] = af.run_cv(Slow(), FOLDS, backend=executor, retries=0)

        thread = threading.Thread(target=slowly)
        thread.start()
        while not list(tmp_path.iterdir()):
            assert thread.is_alive()
        with pytest.raises(ArithmeticError):
            af.run_cv({"slow": Model(), "fails": Fails()}, FOLDS, backend=executor, error_score="raise")
        thread.join()
    assert not found["result"].failures
    assert not found["result"].missing


def test_text_that_the_callers_stream_cannot_show_costs_nothing():
    code = """
        from sklearn.base import BaseEstimator
        from sklearn.datasets import load_iris
        import anyfold as af
        class Talks(BaseEstimator):
            def fit(self, X, y):
                print("caf\\u00e9 \\u2192")
                return self
            def score(self, X, y):
                return 1.0
        X, y = load_iris(return_X_y=True)
        result = af.run_cv(Talks(), af.Folds(X, y, cv=2), backend="multiprocessing", n_jobs=1)
        assert result["talks"]["test_score"].sum() == 2
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env=dict(os.environ, PYTHONIOENCODING="ascii"),
        stdout=subprocess.PIPE,
        check=True,
    )
    assert done.stdout.splitlines()[0] == rb"[model 'talks', fold 0] caf\xe9 \u2192"


def test_a_handler_that_raises_costs_nothing():
    class Raises(logging.Handler):
        def handle(self, record):
            raise RuntimeError("no room")

    class Logs(Model):
        def fit(self, X, y=None):
            logging.getLogger("tests.raises").warning("hello")
            return self

    logger = logging.getLogger("tests.raises")
    handler = Raises()
    logger.addHandler(handler)
    try:
        assert not af.run_cv(Logs(), FOLDS, n_jobs=1).missing
    finally:
        logger.removeHandler(handler)


def test_runs_at_once_in_this_process_leave_its_thread_limits_as_they_were():
    def limits():
        return sorted((lib["filepath"], lib["num_threads"]) for lib in threadpool_info())

    first_inside, second_done = threading.Event(), threading.Event()

    class First(Model):
        def fit(self, X, y=None):
            first_inside.set()
            assert second_done.wait(30)
            return self

    af.run_cv(Model(), FOLDS, backend="serial")
    before = limits()
    thread = threading.Thread(target=lambda: af.run_cv(First(), FOLDS, backend="threads", n_jobs=1))
    thread.start()
    assert first_inside.wait(30)
    second = threading.Thread(target=lambda: af.run_cv(Model(), FOLDS, backend="threads", n_jobs=1))
    second.start()
    second.join()
    during = {lib["filepath"]: lib["num_threads"] for lib in threadpool_info() if lib["user_api"] == "blas"}
    second_done.set()
    thread.join()
    assert set(during.values()) == {1}, during
    assert limits() == before


def test_workers_that_cannot_start_are_charged_to_no_task(tmp_path, monkeypatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    with af.get_executor("multiprocessing", n_jobs=1) as executor:
        gone.rmdir()
        with pytest.raises(WorkerLostError, match="no worker process could be started") as caught:
            af.run_cv(Model(), FOLDS, backend=executor)
    assert "ended 3 times" not in str(caught.value)


def test_an_executor_that_its_owner_shuts_down_keeps_what_had_finished():
    executor = ThreadPoolExecutor(1)

    class Shuts(Model):
        def fit(self, X, y=None):
            executor.shutdown(wait=False)
            return self

    with pytest.warns(FitFailedWarning):
        result = af.run_cv({f"m{i}": Shuts() for i in range(9)}, FOLDS, backend=executor)
    assert result["m0"]["test_score"][0] == 1.0
    assert not result.missing


def test_a_deprecation_in_a_script_is_shown_as_it_is_without_anyfold():
    code = """
        import warnings
        from sklearn.base import BaseEstimator
        from sklearn.datasets import load_iris
        import anyfold as af
        class Old(BaseEstimator):
            def fit(self, X, y):
                warnings.warn("old habits", DeprecationWarning)
                return self
            def score(self, X, y):
                return 1.0
        X, y = load_iris(return_X_y=True)
        for backend in ["serial", "multiprocessing"]:
            af.run_cv(Old(), af.Folds(X, y, cv=2), backend=backend)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], stderr=subprocess.PIPE, check=True, text=True
    )
    assert done.stderr.count("DeprecationWarning: old habits") == 2


def test_warm_workers_forget_the_levels_of_an_earlier_run(caplog):
    class Logs(Model):
        def fit(self, X, y=None):
            logging.getLogger("tests.levels").debug("detail")
            return self

    logger = logging.getLogger("tests.levels")
    with af.get_executor("multiprocessing", n_jobs=1) as executor:
        for level, expected in ((logging.DEBUG, 4), (logging.NOTSET, 0)):
            logger.setLevel(level)
            caplog.clear()
            af.run_cv(Logs(), FOLDS, backend=executor)
            assert len(caplog.records) == expected


@pytest.mark.parametrize("backend", ["serial", "threads", "multiprocessing"])
def test_filters_on_the_callers_loggers_hold(backend, caplog):
    class Logs(Model):
        def fit(self, X, y=None):
            logging.getLogger("tests.filtered").warning("hidden")
            return self

    logger = logging.getLogger("tests.filtered")
    hide = logging.Filter("nobody")
    logger.addFilter(hide)
    try:
        af.run_cv(Logs(), FOLDS, backend=backend)
    finally:
        logger.removeFilter(hide)
    assert caplog.records == []


@pytest.mark.parametrize("backend", BACKENDS)
def test_parameters_that_are_not_sliced_belong_to_the_task(backend):
    class Writes(Model):
        def fit(self, X, y=None, prior=None, log=None):
            prior *= 2
            log.append(1)
            self.seen_ = prior.sum() + len(log)
            return self

        def score(self, X, y=None):
            return self.seen_

    prior, log = np.ones(3), []
    result = af.run_cv(Writes(), FOLDS, params={"prior": prior, "log": log}, backend=backend, n_jobs=2)
    assert result["writes"]["test_score"].tolist() == [7.0] * 4
    assert prior.tolist() == [1, 1, 1]
    assert log == []


def test_probabilities_of_sparse_labels():
    Y = sp.csr_matrix(np.column_stack([y == 0, y == 1]).astype(int))
    model = OneVsRestClassifier(LogisticRegression(max_iter=200))
    splits = [(np.arange(150) % 3 != fold, np.arange(150) % 3 == fold) for fold in range(3)]
    result = af.run_cv(
        {"m": model}, af.Folds(X, Y, cv=splits), return_predictions="predict_proba", backend="serial"
    )
    assert result.predictions("m", "predict_proba").shape == (150, 2)


class Inline(Executor):
    def submit(self, fn, /, *args, **kwargs):
        future = Future()
        future.set_result(fn(*args, **kwargs))
        return future

    def shutdown(self, wait=True, *, cancel_futures=False):
        pass


def test_an_executor_that_runs_work_in_this_process_leaves_it_as_it_was():
    def limits():
        return sorted((lib["filepath"], lib["num_threads"]) for lib in threadpool_info())

    af.run_cv(Model(), FOLDS, backend="serial")
    before = dict(os.environ), limits()
    assert not af.run_cv(Model(), FOLDS, backend=Inline()).failures
    assert (dict(os.environ), limits()) == before


def test_runs_inside_tasks_take_their_seeds_from_the_outer_run():
    class Nests(Model):
        def fit(self, X, y=None):
            inner = af.run_cv({"f": RandomForestClassifier(2)}, af.Folds(X, y, cv=2))
            self.score_ = inner["f"]["test_score"].mean()
            return self

        def score(self, X, y=None):
            return self.score_

    scores = [
        af.run_cv(Nests(), FOLDS, random_state=0, backend=backend)["nests"]["test_score"].tobytes()
        for backend in ("serial", "serial", "multiprocessing")
    ]
    assert scores[0] == scores[1] == scores[2]


@pytest.mark.parametrize("stratify", [y, "no", 1])
def test_stratify_takes_a_truth_value(stratify):
    with pytest.raises(InvalidInputError, match="True, False or None"):
        af.Folds(X, y, stratify=stratify)


def test_no_cv_is_scikit_learns_default():
    assert af.Folds(X, y, cv=None).n_splits == 5


def test_text_is_no_list_of_models():
    with pytest.raises(InvalidInputError, match="no estimator: str 'logit'"):
        af.run_cv("logit", FOLDS)


def test_an_estimator_without_tags_is_named():
    class Duck:
        def fit(self, X, y=None):
            return self

        def get_params(self, deep=True):
            return {}

        def set_params(self, **params):
            return self

        def score(self, X, y=None):
            return 1.0

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(InvalidInputError, match="model 'd'"):
            af.run_cv({"d": Duck()}, FOLDS, backend="serial")
