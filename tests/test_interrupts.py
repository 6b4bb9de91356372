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
            (Path(sys.argv[2]) / "hanging").touch()
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


def wait_for(path, process):
    deadline = time.monotonic() + 60
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("whole_group", [False, True], ids=["the driver alone", "the whole terminal"])
@pytest.mark.parametrize("backend", PROCESS_BACKENDS)
def test_one_ctrl_c_gives_control_and_finished_results_back(backend, whole_group, tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(SCRIPT), backend, str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    wait_for(tmp_path / "hanging", process)
    # The quick models of fold 0 are done, since tasks start in order; give fold 1's the time of a task.
    time.sleep(0.5)
    pressed = time.time()
    (os.killpg if whole_group else os.kill)(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert err == ""
    assert float(out.split()[0]) - pressed < 2


@pytest.mark.parametrize("backend", PROCESS_BACKENDS)
def test_sigterm_leaves_no_worker(backend, tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(SCRIPT), backend, str(tmp_path)],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    wait_for(tmp_path / "hanging", process)
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
