"""Ctrl-C gives control back within two seconds, with what had finished."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from tests.backends import PROCESS_BACKENDS

SCRIPT = """
    import sys, time
    from pathlib import Path
    from sklearn.base import BaseEstimator
    from sklearn.datasets import load_iris
    import anyfold as af

    class Quick(BaseEstimator):
        def fit(self, X, y):
            return self
        def score(self, X, y):
            return 0.5

    class Hangs(Quick):
        def fit(self, X, y):
            (Path(sys.argv[2]) / f"hanging-{X[0, 0]}").touch()
            time.sleep(3600)

    X, y = load_iris(return_X_y=True)
    folds = af.Folds(X, y, cv=2)
    models = {"a": Quick(), "b": Quick(), "hangs": Hangs()}
    executor = None
    try:
        af.run_cv(models, folds, backend=sys.argv[1], n_jobs=2)
    except KeyboardInterrupt as interrupt:
        back = time.time()
        result = interrupt.result
        assert result.interrupted
        assert result["a"]["test_score"].tolist() == [0.5, 0.5], result
        assert ("hangs", 0) in result.missing
        print(back)
    af.run_cv({"a": Quick()}, folds, backend=sys.argv[1], n_jobs=2)  # usable as before
    print(time.time())
"""


@pytest.fixture
def start(tmp_path):
    """Starts the script in a session of its own, which ends with the test."""
    processes = []

    def begin(backend):
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(SCRIPT), backend, str(tmp_path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        processes.append(process)
        wait_for_hanging(tmp_path, process)
        return process

    yield begin
    for process in processes:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def wait_for_hanging(folder, process):
    """Wait until both workers hang: then all quick tasks, which come first, are done."""
    deadline = time.monotonic() + 60
    while len(list(folder.glob("hanging-*"))) < 2:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("whole_group", [False, True], ids=["the driver alone", "the whole terminal"])
@pytest.mark.parametrize("backend", PROCESS_BACKENDS)
def test_one_ctrl_c_gives_control_and_finished_results_back(backend, whole_group, start):
    process = start(backend)
    pressed = time.time()
    (os.killpg if whole_group else os.kill)(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert err == ""
    assert float(out.split()[0]) - pressed < 2


@pytest.mark.parametrize("backend", PROCESS_BACKENDS)
def test_sigterm_leaves_no_worker(backend, start):
    process = start(backend)
    process.terminate()
    process.communicate(timeout=30)
    deadline = time.monotonic() + 10
    while members := _members(process.pid):
        assert time.monotonic() < deadline, members
        time.sleep(0.02)


def _members(session):
    members = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[3]) == session and fields[0] != "Z":
                members.append(folder.name)
    return members
