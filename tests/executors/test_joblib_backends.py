"""The joblib backend follows joblib's active backend, and leaves joblib as it was."""

import os
import subprocess
import sys

import joblib
import pytest
from joblib.externals.loky import reusable_executor
from tests.executors.executor_helpers import PATIENCE, alive, wait_until

from anyfold.errors import UnsupportedFeatureError
from anyfold.executors import get_executor
from anyfold.executors.joblib import JoblibExecutor


@pytest.fixture(autouse=True)
def no_reusable_pool():
    """Each test begins and ends without joblib's pool of loky workers."""

    def end():
        if reusable_executor._executor is not None:
            reusable_executor._executor.shutdown(wait=True)

    end()
    yield
    end()


@pytest.mark.parametrize(
    ("config", "isolation", "workers"),
    [
        ({"backend": "loky", "n_jobs": 2}, "process", 2),
        ({"backend": "multiprocessing", "n_jobs": 2}, "process", 2),
        ({"backend": "threading", "n_jobs": 3}, "thread", 3),
        ({"backend": "sequential"}, "none", 1),
        ({"backend": "loky", "n_jobs": 1}, "none", 1),
        ({"require": "sharedmem", "n_jobs": 2}, "none", 1),  # joblib forces n_jobs=1 here
    ],
)
def test_it_takes_backend_and_number_of_workers_from_joblibs_configuration(config, isolation, workers):
    with joblib.parallel_config(**config):
        executor = get_executor("joblib")
    with executor:
        assert executor.isolation == isolation
        assert executor.max_workers == workers
        assert executor.submit(lambda: 3).result(PATIENCE) == 3


def test_n_jobs_goes_before_joblibs_configuration():
    with joblib.parallel_config("threading", n_jobs=3), get_executor("joblib", 2) as executor:
        assert executor.max_workers == 2


def test_the_configuration_counts_where_the_executor_is_made():
    with joblib.parallel_config("threading", n_jobs=2):
        executor = JoblibExecutor()
    with executor, joblib.parallel_config("loky", n_jobs=2):
        assert executor.submit(os.getpid).result(PATIENCE) == os.getpid()


def test_loky_workers_that_it_started_end_with_it():
    with joblib.parallel_config("loky"):
        executor = JoblibExecutor(2)
    pid = executor.submit(os.getpid).result(PATIENCE)
    executor.shutdown()
    assert not alive(pid)


def test_loky_workers_that_were_there_before_stay():
    (pid,) = set(joblib.Parallel(2)(joblib.delayed(os.getpid)() for _ in range(1)))
    with joblib.parallel_config("loky"), JoblibExecutor(2) as executor:
        assert executor.submit(abs, -1).result(PATIENCE) == 1
    assert alive(pid)
    assert joblib.Parallel(2)(joblib.delayed(abs)(-i) for i in range(4)) == [0, 1, 2, 3]


def test_joblib_can_be_used_beside_it_and_after_it():
    with joblib.parallel_config("loky"), JoblibExecutor(2) as executor:
        futures = [executor.submit(abs, -i) for i in range(10)]
        assert joblib.Parallel(2)(joblib.delayed(abs)(-i) for i in range(4)) == [0, 1, 2, 3]
        assert [future.result(PATIENCE) for future in futures] == list(range(10))
    assert joblib.Parallel(2)(joblib.delayed(abs)(-i) for i in range(4)) == [0, 1, 2, 3]


def test_a_backend_that_cannot_call_back_is_refused():
    class Old(joblib.parallel.ThreadingBackend):
        supports_retrieve_callback = False

    with joblib.parallel_config(Old()), pytest.raises(UnsupportedFeatureError, match="Old cannot report"):
        JoblibExecutor(2)


def test_memory_mapping_folders_are_removed(tmp_path):
    code = """
import os, joblib
from anyfold.executors.joblib import JoblibExecutor
with joblib.parallel_config("loky", temp_folder=os.environ["FOLDER"]), JoblibExecutor(2) as executor:
    executor.submit(os._exit, 1).exception()
    print(executor.submit(abs, -1).result())
"""
    environ = {**os.environ, "FOLDER": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environ, check=True
    )
    assert done.stdout == "1\n"
    wait_until(lambda: not list(tmp_path.iterdir()), f"{tmp_path} to be empty")
