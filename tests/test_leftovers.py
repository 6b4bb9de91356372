"""No process, file or shared memory is left, however the driver ends; watched from outside."""

import subprocess
import sys
import textwrap

import pytest
from tests.backends import BACKENDS, PROCESS_BACKENDS

FAILS = """
    folds = af.Folds(X, y, cv=4)
    N_JOBS = 2 if BACKEND == "joblib" else 1  # joblib runs what is for one worker in the caller
    with af.get_executor(BACKEND, n_jobs=N_JOBS) as executor:
        af.run_cv(Quick(), folds, backend=executor)
    assert af.run_cv(Quick(), folds, backend=BACKEND, n_jobs=N_JOBS)["quick"]["test_score"].sum() == 2
    forgotten = af.get_executor(BACKEND, n_jobs=1)
    assert forgotten.submit(lambda: 1).result() == 1
    (MARKS / "done").touch()
    sys.stdin.read()
    raise RuntimeError("the program failed")
"""


@pytest.mark.parametrize("backend", BACKENDS)
def test_nothing_is_left_of_warm_and_forgotten_workers_when_a_program_fails(backend, start_driver):
    driver = start_driver(backend, FAILS)
    driver.wait_for("done")
    code, out, errors = driver.end()
    assert (code, out) == (1, "")
    assert errors.count("Traceback") == 1
    assert errors.splitlines()[0] == "Traceback (most recent call last):"
    assert errors.splitlines()[-1] == "RuntimeError: the program failed"


KILLED = """
    af.run_cv(Quick(), af.Folds(X, y, cv=2), backend=BACKEND, n_jobs=1)  # its worker stays, idle
    af.run_cv(Hangs(), af.Folds(X, y, cv=2), backend=BACKEND, n_jobs=2)
"""


@pytest.mark.parametrize("backend", PROCESS_BACKENDS)
def test_nothing_is_open_to_others_and_nothing_is_left_when_the_driver_is_killed(backend, start_driver):
    driver = start_driver(backend, KILLED)
    driver.wait_for("hangs-*", 2)
    assert not driver.open_to_others()
    driver.process.kill()
    assert driver.end()[0] == -9


def test_many_runs_in_one_process_leave_memory_descriptors_and_threads_flat():
    code = """
        import gc, threading, psutil
        import anyfold as af
        from sklearn.datasets import load_iris
        from sklearn.dummy import DummyClassifier
        X, y = load_iris(return_X_y=True)
        process = psutil.Process()
        def run(backend):
            af.run_cv(DummyClassifier(), af.Folds(X, y, cv=2), backend=backend, n_jobs=2)
        def state():
            gc.collect()
            return process.num_fds(), threading.active_count(), process.children(recursive=True)
        for backend in ("threads", "multiprocessing", "loky"):
            for _ in range(20):
                run(backend)
            before, memory = state(), process.memory_info().rss
            for _ in range(200):
                run(backend)
            assert state() == before, (backend, before, state())
            grown = process.memory_info().rss - memory
            assert grown < 2**21, (backend, grown)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True, timeout=100)
