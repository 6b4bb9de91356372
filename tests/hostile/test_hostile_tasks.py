"""A table of hostile tasks on every backend: each has its exact outcome, and none harms its neighbours."""

import gc
import os
import resource
import signal
import sys
import tempfile
import threading
import time
import warnings
import weakref
from pathlib import Path

import numpy as np
import psutil
import pytest
import sklearn
from sklearn.base import BaseEstimator
from sklearn.exceptions import FitFailedWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import KFold
from sklearn.tree import DecisionTreeClassifier
from tests.backends import BACKENDS
from tests.drivers import listening_to_other_hosts
from tests.hostile.table import TASKS, TIMEOUT, HostileModel

import anyfold as af
from anyfold.errors import AnyfoldError
from anyfold.executors.base import isolation_of
from anyfold.testing.probes import count_invocations, probe_data

NEIGHBOURS = {"logit": LogisticRegression(C=0.1), "tree": DecisionTreeClassifier(random_state=0)}
FOLDS = af.Folds(*probe_data(), cv=KFold(3))
PATIENCE = 60
NOT_OF_TASKS = ("_THREADS", "PYTEST_CURRENT_TEST")
"""Variables that anyfold sets where the first task of a worker begins, and one of pytest."""
N_WORKERS = 2
SLOW_TO_HEAL = ("loky", "joblib", "dask", "ray")
"""Where tasks that end their workers are tried in one run, not each in one of its own."""


@pytest.fixture(scope="module", params=[*BACKENDS, "dask", "ray"])
def executor(request):
    with af.get_executor(request.param, n_jobs=N_WORKERS) as executor:
        executor.name = request.param
        executor.forks = []
        af.run_cv(NEIGHBOURS, FOLDS, backend=executor)
        processes = [os.getpid(), *(child.pid for child in psutil.Process().children(recursive=True))]
        assert len(processes) > N_WORKERS or isolation_of(executor) != "process"
        assert not listening_to_other_hosts(processes)
        yield executor
    if isolation_of(executor) != "process":
        for fork in executor.forks:
            fork.kill()
    _, left = psutil.wait_procs(executor.forks, timeout=PATIENCE)
    assert not left, "a fork of a task has outlived its worker"


@pytest.fixture(scope="module")
def alone():
    """Scores of the neighbours where nobody disturbs them."""
    return scores(af.run_cv(NEIGHBOURS, FOLDS, backend="serial"))


def scores(result):
    return {name: result[name]["test_score"].tobytes() for name in NEIGHBOURS}


def surroundings_on(executor):
    """What a task finds on each worker, by process; all workers are there at once."""
    if isolation_of(executor) == "none":
        return {os.getpid(): surroundings()}
    with tempfile.TemporaryDirectory() as folder:
        futures = [executor.submit(meet, folder, N_WORKERS) for _ in range(N_WORKERS)]
        return dict(future.result(PATIENCE) for future in futures)


def meet(folder, n):
    """Wait until so many workers are here, then say what is found."""
    Path(folder, f"{os.getpid()}-{threading.get_ident()}").touch()
    deadline = time.monotonic() + PATIENCE
    while len(list(Path(folder).iterdir())) < n:
        assert time.monotonic() < deadline
    return os.getpid(), surroundings()


def surroundings():
    streams = []
    for descriptor in range(3):
        status = os.fstat(descriptor)
        streams.append((status.st_dev, status.st_ino))
    return {
        "cwd": str(Path.cwd()),
        "environ": {name: value for name, value in os.environ.items() if not name.endswith(NOT_OF_TASKS)},
        "handlers": [handler_name(number) for number in sorted(signal.valid_signals())],
        "streams": streams,
        "sys": [type(getattr(sys, name)).__name__ for name in ("stdin", "stdout", "stderr")],
        "memory": resource.getrlimit(resource.RLIMIT_AS),
        "numpy": np.geterr(),
        "sklearn": sklearn.get_config(),
        "filters": [str(entry) for entry in warnings.filters],
    }


def handler_name(number):
    handler = signal.getsignal(number)
    return getattr(
        handler, "__qualname__", str(handler) if isinstance(handler, int) else type(handler).__name__
    )


@pytest.mark.parametrize("how", TASKS)
def test_each_has_its_outcome_and_its_neighbours_have_theirs(executor, how, tmp_path, alone):
    hostile = TASKS[how]
    expected = hostile.ending_on(executor.name)
    if isinstance(expected, str) or (executor.name in SLOW_TO_HEAL and expected.stage == "worker"):
        return
    before = surroundings_on(executor)
    models = {
        "logit": NEIGHBOURS["logit"],
        "hostile": HostileModel(str(tmp_path), how=how),
        "tree": NEIGHBOURS["tree"],
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FitFailedWarning)
        result = af.run_cv(models, FOLDS, backend=executor, retries=0, **hostile.settings)
    assert scores(result) == alone
    assert count_invocations(tmp_path, "hostile-20") == 1
    hostile_scores = result["hostile"]["test_score"].tolist()
    if expected.type is None:
        assert not result.failures
        assert hostile_scores == [1.0] * 3
    else:
        assert [(f.model, f.fold, f.stage, f.type) for f in result.failures] == [
            ("hostile", 1, expected.stage, expected.type)
        ]
        assert hostile_scores[1] == 1.0 or not expected.is_scored
    assert scores(af.run_cv(NEIGHBOURS, FOLDS, backend=executor)) == alone
    after = surroundings_on(executor)
    same = before.keys() & after.keys()
    assert {pid: after[pid] for pid in same} == {pid: before[pid] for pid in same}
    assert expected.stage == "worker" or same == before.keys()
    executor.forks += [psutil.Process(int(mark.name.rpartition("-")[2])) for mark in tmp_path.glob("stays-*")]


def test_those_that_end_their_workers_have_their_outcome_in_one_run(executor, tmp_path, alone):
    if executor.name not in SLOW_TO_HEAL:
        return
    endings = {how: task.ending_on(executor.name) for how, task in TASKS.items()}
    endings = {how: ending for how, ending in endings.items() if ending.stage == "worker"}
    hostile = {how: HostileModel(str(tmp_path), how, how=how) for how in endings}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FitFailedWarning)
        result = af.run_cv({**NEIGHBOURS, **hostile}, FOLDS, backend=executor, retries=0, timeout=TIMEOUT)
    assert scores(result) == alone
    assert {(f.model, f.fold, f.stage, f.type) for f in result.failures} == {
        (how, 1, "worker", ending.type) for how, ending in endings.items()
    }
    assert scores(af.run_cv(NEIGHBOURS, FOLDS, backend=executor)) == alone


@pytest.mark.parametrize("backend", ["threads", "multiprocessing"])
def test_a_model_that_exits_does_not_end_the_program_of_the_caller(backend, tmp_path):
    model = HostileModel(str(tmp_path), on=None, how="sys.exit")
    with pytest.raises(AnyfoldError, match=r"a model raised SystemExit\(\)") as caught:
        af.run_cv(model, FOLDS, backend=backend, n_jobs=2)
    assert "all 3 tasks failed" in caught.value.__notes__[0]
    assert isinstance(caught.value.__cause__, SystemExit)


class Raises(BaseEstimator):
    def fit(self, X, y):
        used = Used()
        USED.append(weakref.ref(used))
        raise ArithmeticError("never works")

    def score(self, X, y):
        return 1.0


class Used:
    pass


USED = []


def test_what_a_failed_task_has_used_is_freed_without_the_garbage_collector():
    gc.disable()
    try:
        with pytest.raises(ArithmeticError):
            af.run_cv(Raises(), FOLDS, backend="serial")
        assert [used() for used in USED] == [None] * 3
    finally:
        gc.enable()
        USED.clear()
