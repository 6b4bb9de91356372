"""No process, file or shared memory is left, however the driver ends; watched from outside."""

import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest
from tests.backends import BACKENDS, PROCESS_BACKENDS

SCRIPT = """
    import os, sys
    from pathlib import Path
    from sklearn.base import BaseEstimator
    from sklearn.datasets import load_iris
    import anyfold as af

    class Model(BaseEstimator):
        def fit(self, X, y):
            Path(os.environ["MARKS"], f"worker-{os.getpid()}").touch()
            if ENDING == "killed":
                import signal
                signal.pause()
            return self
        def score(self, X, y):
            return 1.0

    ENDING = sys.argv[1]
    X, y = load_iris(return_X_y=True)
    executor = af.get_executor(sys.argv[2], n_jobs=2) if ENDING == "forgotten" else sys.argv[2]
    jobs = {} if ENDING == "forgotten" else {"n_jobs": 2}
    result = af.run_cv(Model(), af.Folds(X, y), backend=executor, **jobs)
    assert result["model"]["test_score"].sum() == 5
    if ENDING == "exception":
        raise RuntimeError("the script failed")
    if ENDING == "exit":
        os._exit(3)
"""


@pytest.fixture
def driver(tmp_path):
    """Starts a script that runs models; afterwards everything that it started must be gone."""
    marks, temp = tmp_path / "marks", tmp_path / "temp"
    marks.mkdir()
    temp.mkdir()
    before = set(Path("/dev/shm").iterdir())

    def start(ending, backend):
        script = tmp_path / "script.py"  # without a main guard
        script.write_text(textwrap.dedent(SCRIPT))
        environment = dict(os.environ, MARKS=str(marks), TMPDIR=str(temp), PYTHONWARNINGS="error")
        return subprocess.Popen(
            [sys.executable, script, ending, backend], env=environment, stderr=subprocess.PIPE, text=True
        )

    def workers():
        return [int(mark.name.partition("-")[2]) for mark in marks.glob("worker-*")]

    start.workers = workers
    yield start
    eventually(lambda: not [pid for pid in workers() if alive(pid)], "worker processes are left")
    eventually(lambda: not of_dead_owners(before), f"shared memory is left: {of_dead_owners(before)}")
    # joblib and loky keep a folder of their own, which their tracker removes a little later.
    eventually(lambda: not list(temp.rglob("*")), f"files are left: {list(temp.rglob('*'))}")


def of_dead_owners(before):
    """Return new shared memory, less what names a process of somebody else that is alive."""
    new = set(Path("/dev/shm").iterdir()) - before
    return [path for path in new if not any(alive(int(pid)) for pid in re.findall(r"\d+", path.name))]


def alive(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def eventually(condition, complaint, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, complaint
        time.sleep(0.02)


def descendants_outlive(process):
    return [child for child in process if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("ending", "status"), [("normal", 0), ("exception", 1), ("forgotten", 0)])
def test_nothing_is_left_when_the_driver_ends(driver, backend, ending, status):
    process = driver(ending, backend)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == status, errors
    if ending == "normal":
        assert errors == ""


@pytest.mark.parametrize("backend", PROCESS_BACKENDS)
def test_nothing_is_left_when_the_driver_leaves_without_cleaning_up(driver, backend):
    process = driver("exit", backend)
    process.communicate(timeout=60)
    assert process.returncode == 3


@pytest.mark.parametrize("backend", PROCESS_BACKENDS)
def test_nothing_is_left_when_the_driver_is_killed(driver, backend):
    process = driver("killed", backend)
    eventually(lambda: len(driver.workers()) == 2, "the workers never started", 60)
    children = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.communicate(timeout=60)
    eventually(lambda: not descendants_outlive(children), f"left: {children}")


@pytest.mark.parametrize("backend", PROCESS_BACKENDS)
def test_ctrl_c_gives_control_back_and_leaves_no_worker(driver, backend):
    process = driver("killed", backend)
    eventually(lambda: len(driver.workers()) == 2, "the workers never started", 60)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == -signal.SIGINT, errors
    assert "KeyboardInterrupt" in errors


def test_a_script_without_a_main_guard_runs_once(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(
            """
            import os, sys
            from pathlib import Path
            with open(os.environ["RUNS"], "a") as runs:
                runs.write("x")
            import anyfold as af
            from sklearn.datasets import load_iris
            from sklearn.linear_model import Ridge
            result = af.run_cv(Ridge(), af.Folds(*load_iris(return_X_y=True)), backend=sys.argv[1], n_jobs=2)
            """
        )
    )
    for number, backend in enumerate(BACKENDS, start=1):
        runs = tmp_path / "runs"
        subprocess.run(
            [sys.executable, script, backend], env=dict(os.environ, RUNS=str(runs)), check=True, timeout=60
        )
        assert runs.read_text() == "x" * number


def test_many_runs_in_one_process_leave_descriptors_and_threads_flat():
    code = """
        import threading, psutil
        import anyfold as af
        from sklearn.datasets import load_iris
        from sklearn.dummy import DummyClassifier
        X, y = load_iris(return_X_y=True)
        def run():
            af.run_cv(DummyClassifier(), af.Folds(X, y, cv=2), n_jobs=2)
        for _ in range(5):
            run()
        process = psutil.Process()
        before = process.num_fds(), threading.active_count()
        for _ in range(200):
            run()
        after = process.num_fds(), threading.active_count()
        assert after == before, (before, after)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True, timeout=100)
