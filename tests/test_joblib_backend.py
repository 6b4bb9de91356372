"""Code that uses joblib runs on anyfold's executors, with the same numbers and with anyfold's promises."""

import logging
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
import weakref
from contextlib import closing
from itertools import islice
from typing import ClassVar

import numpy as np
import psutil
import pytest
from joblib import Parallel, delayed, effective_n_jobs, parallel_config
from sklearn.datasets import make_classification
from sklearn.ensemble import BaggingClassifier, RandomForestClassifier, StackingClassifier
from sklearn.feature_selection import RFECV
from sklearn.inspection import permutation_importance
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeClassifier

import anyfold as af
from anyfold.errors import (
    InvalidSettingError,
    TaskTimeoutError,
    TimeLimitError,
    UnsupportedFeatureError,
    WorkerLostError,
)
from anyfold.executors import registry
from anyfold.executors.multiprocessing import MultiprocessingExecutor

EXECUTORS = ("threads", "multiprocessing")
X, y = make_classification(200, 10, n_informative=5, n_classes=3, random_state=0)
TREE = DecisionTreeClassifier(random_state=0)


def on(executor, **settings):
    return parallel_config(backend="anyfold", executor=executor, n_jobs=2, **settings)


def square(n):
    return n * n


def test_joblib_knows_the_name_and_is_not_imported_for_it():
    code = """
import sys, anyfold
assert "joblib" not in sys.modules
import joblib
assert "anyfold" not in type(joblib.parallel.__spec__.loader).__module__
with joblib.parallel_config(backend="anyfold", executor="threads", n_jobs=2):
    print(joblib.Parallel()(joblib.delayed(abs)(n) for n in (-1, -2)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[1, 2]\n"


def stacked():
    models = [("svm", LinearSVC(random_state=0)), ("forest", RandomForestClassifier(5, random_state=0))]
    return StackingClassifier(models, LogisticRegression()).fit(X, y).predict_proba(X)


JOBS = {
    "stacking": stacked,
    "one vs rest": lambda: OneVsRestClassifier(LogisticRegression()).fit(X, y).predict_proba(X),
    "recursive elimination": lambda: RFECV(TREE, cv=3).fit(X, y).cv_results_["mean_test_score"],
    "permutation": lambda: permutation_importance(TREE.fit(X, y), X, y, random_state=0).importances,
    "forest": lambda: RandomForestClassifier(8, n_jobs=2, random_state=0).fit(X, y).predict_proba(X),
    "bagging": lambda: BaggingClassifier(TREE, 6, random_state=0).fit(X, y).predict_proba(X),
}


@pytest.mark.parametrize("executor", EXECUTORS)
@pytest.mark.parametrize("job", JOBS)
def test_estimators_of_scikit_learn_have_the_serial_numbers(executor, job):
    expected = JOBS[job]()
    with on(executor):
        np.testing.assert_array_equal(JOBS[job](), expected)


def test_one_worker_and_the_serial_executor_run_where_they_are():
    with parallel_config(backend="anyfold", executor="serial"):
        assert Parallel()(delayed(os.getpid)() for _ in range(2)) == [os.getpid()] * 2
    with on("multiprocessing"):
        assert Parallel(n_jobs=1)([delayed(os.getpid)()]) == [os.getpid()]


def test_how_many_workers_there_are_is_known():
    with on("processes"):
        assert effective_n_jobs() == 2
        assert effective_n_jobs(3) == 3
    with (
        af.get_executor("threads", n_jobs=3) as executor,
        parallel_config(backend="anyfold", executor=executor),
    ):
        assert effective_n_jobs() == 3
        assert effective_n_jobs(2) == 2
        names = Parallel()(delayed(lambda: threading.current_thread().name)() for _ in range(5))
        assert all(name.startswith("anyfold") for name in names)
    with pytest.raises(ValueError, match="n_jobs == 0"), on("threads"):
        effective_n_jobs(0)


class NotWarm(MultiprocessingExecutor):
    """Ends with the run, as an instance of Ray does that anyfold has started."""

    keep_warm = False
    made: ClassVar = []

    def __init__(self, max_workers):
        super().__init__(max_workers)
        self.made.append(weakref.ref(self))


def test_workers_that_do_not_stay_warm_stay_for_all_calls_of_a_context(monkeypatch):
    monkeypatch.setitem(registry._backends, "not-warm", registry.Backend("not-warm", NotWarm))
    with on("not-warm"):
        pids = [set(Parallel()(delayed(os.getpid)() for _ in range(4))) for _ in range(3)]
        assert psutil.pid_exists(min(pids[0]))
    assert len(NotWarm.made) == 1
    assert len(set.union(*pids)) <= 2
    assert not any(map(psutil.pid_exists, set.union(*pids)))


def test_it_can_be_named_for_one_call():
    run = Parallel(backend="anyfold", executor="multiprocessing", n_jobs=2)
    pids = run(delayed(os.getpid)() for _ in range(5))
    assert os.getpid() not in pids


def look(array, n):
    return array[n], array.flags.writeable, array.flags.owndata


def test_data_that_calls_have_in_common_is_sent_once_and_cannot_be_changed():
    shared = np.arange(200_000.0)
    with on("multiprocessing"):
        seen = Parallel(batch_size=1)(delayed(look)(shared, n) for n in range(20))
    assert [value for value, _, _ in seen] == list(range(20))
    # The first is sent as it is: nobody knows yet that there will be others.
    assert [flags for _, *flags in seen[1:]] == [[False, False]] * 19


def test_a_call_that_writes_to_common_data_has_a_copy_of_its_own():
    def write(array, n):
        array[0] += n
        return float(array[0])

    with on("multiprocessing"):
        assert Parallel(batch_size=1)(delayed(write)(np_zeros, n) for n in range(6)) == list(range(6))


np_zeros = np.zeros(200_000)


def test_a_buffer_below_the_limit_of_joblib_can_be_filled_anew_for_each_call():
    def calls():
        buffer = np.empty(100_000)
        for n in range(6):
            buffer[:] = n // 2  # joblib draws a call for each of the two workers before it hands them over
            yield delayed(look)(buffer, 0)

    with on("multiprocessing"):
        assert [value for value, *_ in Parallel(batch_size=1)(calls())] == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize(
    ("max_nbytes", "is_shared"), [(7999, True), ("1K", True), (8000, False), (None, False)]
)
def test_the_limit_is_the_one_that_joblib_is_given(max_nbytes, is_shared):
    array = np.arange(1000.0)
    with on("multiprocessing"):
        calls = (delayed(look)(array, n) for n in range(4))
        seen = Parallel(batch_size=1, max_nbytes=max_nbytes)(calls)
    assert seen[3][1] is not is_shared


@pytest.mark.parametrize("executor", EXECUTORS)
def test_generators_work_side_by_side_and_may_be_closed_early(executor):
    with on(executor), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # joblib tells of what was not used
        first = Parallel(return_as="generator")(delayed(square)(n) for n in range(100))
        second = Parallel(return_as="generator_unordered")(delayed(square)(n) for n in range(100))
        with closing(first), closing(second):
            assert list(islice(first, 50)) == [n * n for n in range(50)]
            assert set(second) == {n * n for n in range(100)}
    assert "anyfold-joblib" not in [thread.name for thread in threading.enumerate()]


@pytest.mark.parametrize("executor", EXECUTORS)
def test_an_error_is_the_original_one(executor):
    with on(executor), pytest.raises(ZeroDivisionError) as caught:
        Parallel(batch_size=1)(delayed(divmod)(1, n) for n in (2, 1, 0, 3))
    assert caught.value.__notes__ == ["raised by divmod, batch 2"]


def test_what_cannot_be_pickled_is_an_error():
    with on("multiprocessing"), pytest.raises(TypeError, match="cannot pickle"):
        Parallel()(delayed(id)(threading.Lock()) for _ in range(30))


def test_a_lost_worker_is_replaced(tmp_path):
    def kill_once(n):
        if n == 5 and not (tmp_path / "done").exists():
            (tmp_path / "done").touch()
            os._exit(3)
        return n

    with on("multiprocessing", retries=1):
        assert Parallel()(delayed(kill_once)(n) for n in range(40)) == list(range(40))
        with pytest.raises(WorkerLostError, match="exit, batch 0: the worker that ran it ended 2 times"):
            Parallel()([delayed(os._exit)(3)])
        assert Parallel()(delayed(square)(n) for n in range(4)) == [0, 1, 4, 9]


def hang(n):
    if n == 1:
        threading.Event().wait()
    return n


def test_limits_of_time_are_kept():
    with on("multiprocessing", timeout=0.5), pytest.raises(TaskTimeoutError, match=r"timeout=0\.5"):
        Parallel()(delayed(hang)(n) for n in range(3))
    with on("multiprocessing", time_limit=1), pytest.raises(TimeLimitError, match="time_limit=1"):
        Parallel()(delayed(hang)(n) for n in range(3))


def test_ctrl_c_ends_the_workers_within_two_seconds(tmp_path):
    interrupted = []

    def hang_and_tell(n):
        (tmp_path / str(os.getpid())).touch()
        threading.Event().wait()

    def interrupt():
        while not list(tmp_path.iterdir()):
            time.sleep(0.01)
        interrupted.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with on("multiprocessing"), pytest.raises(KeyboardInterrupt):
        Parallel()(delayed(hang_and_tell)(n) for n in range(2))
    assert time.monotonic() - interrupted[0] < 2
    thread.join()
    while any(psutil.pid_exists(int(pid.name)) for pid in tmp_path.iterdir()):
        time.sleep(0.01)  # they were killed, and are gone when somebody has looked


def inside(n):
    return {os.getpid(), *Parallel(n_jobs=2)(delayed(os.getpid)() for _ in range(3))}


@pytest.mark.parametrize("executor", EXECUTORS)
def test_calls_inside_of_tasks_run_where_they_are(executor):
    with on(executor):
        assert all(len(pids) == 1 for pids in Parallel()(delayed(inside)(n) for n in range(3)))


def talk(n):
    print("hello", n)
    logging.getLogger("talk").warning("careful")
    warnings.warn("mind", UserWarning, stacklevel=1)


@pytest.mark.parametrize("executor", EXECUTORS)
def test_what_tasks_say_reaches_the_caller(executor, capsys, caplog):
    with on(executor), pytest.warns(UserWarning, match=r"mind\n\[talk, batches 0, 1\]"):
        Parallel(batch_size=1)(delayed(talk)(n) for n in range(2))
    assert capsys.readouterr().out == "[talk, batch 0] hello 0\n[talk, batch 1] hello 1\n"
    assert [record.getMessage() for record in caplog.records] == [
        "[talk, batch 0] careful",
        "[talk, batch 1] careful",
    ]


@pytest.mark.parametrize(
    ("settings", "error", "told"),
    [
        ({"retires": 1}, TypeError, "did you mean 'retries'"),
        ({"executor": "joblib"}, InvalidSettingError, "name another"),
        ({"journal": "file"}, UnsupportedFeatureError, "is given has no journal"),
    ],
)
def test_bad_settings_are_refused_at_once(settings, error, told):
    with pytest.raises(error, match=told):
        parallel_config(backend="anyfold", **settings)
