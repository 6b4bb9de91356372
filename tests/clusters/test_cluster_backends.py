"""Dask and Ray on this machine, beside the contract: what is peculiar to them, and that nothing is left."""

import os
import subprocess
import sys
import threading
from concurrent.futures import Future

import numpy as np
import pytest
import ray
from sklearn.datasets import load_iris
from sklearn.dummy import DummyClassifier

import anyfold as af
from anyfold.errors import InvalidSettingError, MissingDependencyError, WorkerLostError
from anyfold.executors import registry

BACKENDS = ("dask", "ray")
PATIENCE = 60  # seconds; a hang, not slowness
X, Y = load_iris(return_X_y=True)


@pytest.fixture(scope="module", params=BACKENDS)
def executor(request):
    with af.get_executor(request.param, n_jobs=2) as executor:
        yield executor


def test_dask_leaves_the_global_generator_to_tasks():
    code = (
        "import random, sys; from dask.sizeof import sizeof; import anyfold.executors._dask_worker\n"
        "before = random.getstate(); sizeof(dict.fromkeys(range(99))); sys.exit(before != random.getstate())"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_task_that_cannot_be_unpickled_fails_alone(executor):
    class Unreadable:
        def __reduce__(self):
            return int, ("no number",)

    failing, good = executor.submit(print, Unreadable()), executor.submit(pow, 2, 5)
    assert isinstance(failing.exception(PATIENCE), ValueError)
    assert good.result(PATIENCE) == 32


def test_stopped_work_is_lost_and_the_executor_goes_on(executor, tmp_path):
    def hold(name):
        import time

        (tmp_path / name).touch()
        time.sleep(1000)

    held = [executor.submit(hold, f"held-{i}") for i in range(2)]
    while len(list(tmp_path.iterdir())) < 2:
        assert not any(future.done() for future in held)
    executor.stop_running()
    for future in held:
        assert isinstance(future.exception(PATIENCE), WorkerLostError)
    assert executor.submit(pow, 2, 5).result(PATIENCE) == 32


def test_workers_have_the_callers_priority(executor):
    assert executor.submit(os.nice, 0).result(PATIENCE) == os.nice(0)


def test_ray_cancels_in_the_thread_that_takes_in_answers(monkeypatch, tmp_path):
    """Elsewhere the two race, and "Tried to complete task that was not pending" ends the caller's process."""

    def hold():
        while not (tmp_path / "go").exists():
            pass

    cancelling, answering = Future(), Future()
    monkeypatch.setattr("ray.cancel", lambda ref, *, force: cancelling.set_result(threading.get_ident()))
    with af.get_executor("ray", n_jobs=2) as executor:
        held = executor.submit(hold)
        answer = ray.remote(hold).remote().future()
        answer.add_done_callback(lambda _: answering.set_result(threading.get_ident()))
        executor.stop_running()
        thread = cancelling.result(PATIENCE)
        (tmp_path / "go").touch()
        held.result(PATIENCE)
        assert answering.result(PATIENCE) == thread
        del answer


def test_results_of_shared_calls_stay_with_the_workers(executor):
    shared = executor.submit_shared(np.arange, 1000.0).result(PATIENCE)

    def total(handle):
        array = handle.get()
        return array.sum(), array.flags.writeable, array.ctypes.data % 64

    assert executor.submit(total, shared).result(PATIENCE) == (499500.0, False, 0)
    assert shared.get().sum() == 499500.0


def test_an_error_of_a_shared_call_is_raised(executor):
    assert isinstance(executor.submit_shared(lambda: 1 / 0).exception(PATIENCE), ZeroDivisionError)


def test_resources_that_do_not_exist_are_refused(executor):
    with pytest.raises(InvalidSettingError, match="unobtainium"):
        executor.submit_with_resources({"unobtainium": 1}, pow, 2, 5)


def test_data_is_shared_once_and_not_sent_again_by_a_second_run(executor, monkeypatch):
    shared = []
    share = executor.share
    monkeypatch.setattr(executor, "share", lambda obj: shared.append(type(obj).__name__) or share(obj))
    folds = af.Folds(X, Y, cv=3)
    for _ in range(2):
        af.run_cv(DummyClassifier(), folds, backend=executor)
    assert shared == ["FoldData", "Job", "Job"]


@pytest.mark.parametrize(("backend", "package"), [("dask", "distributed"), ("ray", "ray")])
def test_a_missing_package_is_named_with_the_command(backend, package, monkeypatch):
    monkeypatch.setattr(registry.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        MissingDependencyError, match=rf'needs .{package}.*pip install "anyfold\[{backend}\]"'
    ):
        af.get_executor(backend)


def test_importing_anyfold_imports_neither():
    code = "import sys, anyfold; assert not {'ray', 'dask', 'distributed'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=PATIENCE)


WARM_RAY = """
    import ray

    def instance():
        af.run_cv(Quick(), af.Folds(X, y, cv=2), backend="ray", n_jobs=2)
        return ray.get_runtime_context().gcs_address

    first = instance()
    assert instance() == first

    @ray.remote
    class Users:
        def answer(self):
            return 42

    users = Users.remote()
    af.shutdown()
    assert ray.get(users.answer.remote()) == 42
    assert instance() == first
    (MARKS / "done").touch()
    sys.stdin.read()
"""


def test_a_local_ray_stays_for_the_next_call_and_for_the_users_actors_and_ends_with_the_program(
    start_driver,
):
    driver = start_driver("ray", WARM_RAY)
    driver.wait_for("done")
    driver.process.kill()
    assert driver.end()[0] == -9
