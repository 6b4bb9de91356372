"""A real notebook kernel gets control back on Ctrl-C, and shows bars and tables."""

import os
import re
import tempfile
import time
from ast import literal_eval

import pytest
from jupyter_client.manager import KernelManager
from tests.drivers import PATIENCE, alive, eventually

CELL = """
import os, sys, time
from pathlib import Path
from sklearn.base import BaseEstimator
from sklearn.datasets import load_iris
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
import anyfold as af

MARKS = Path(os.environ["MARKS"])
X, y = load_iris(return_X_y=True)
folds = af.Folds(X, y, cv=2)

class Quick(BaseEstimator):
    def fit(self, X, y):
        return self
    def score(self, X, y):
        return 0.5

class Hangs(Quick):
    def __init__(self, mark):
        self.mark = mark
    def fit(self, X, y):
        (MARKS / f"{self.mark}-{os.getpid()}").touch()
        while True:
            time.sleep(3600)

def prepare(X):
    return X

def run(backend):
    hangs = make_pipeline(FunctionTransformer(prepare), Hangs(backend))
    try:
        af.run_cv({"quick": Quick(), "hangs": hangs}, folds, backend=backend, n_jobs=2)
    finally:
        back.append(time.time())

back = []
"""


class Kernel:
    """A notebook's kernel, as a notebook server starts it."""

    def __init__(self, marks, sockets):
        self.marks = marks
        self.manager = KernelManager(transport="ipc", ip=f"{sockets}/kernel")
        folders = {"IPYTHONDIR": str(marks / "ipython"), "JUPYTER_RUNTIME_DIR": str(marks / "jupyter")}
        self.manager.start_kernel(env=os.environ | folders | {"MARKS": str(marks)})
        self.client = self.manager.client()
        self.client.start_channels()

    def ask(self, code, value="None"):
        """Run a cell and return the value of an expression after it."""
        expressions = {"value": value}
        reply = self.client.execute(code, user_expressions=expressions, reply=True, timeout=PATIENCE)
        assert reply["content"]["status"] == "ok", "\n".join(reply["content"]["traceback"])
        told = reply["content"]["user_expressions"]["value"]
        assert told["status"] == "ok", told
        return literal_eval(told["data"]["text/plain"])

    def shown_by(self, code):
        """Run a cell and return what it shows, as pairs of the kind of message and its content."""
        number, shown = self.client.execute(code), []
        while True:
            message = self.client.get_iopub_msg(timeout=PATIENCE)
            if message["parent_header"].get("msg_id") != number:
                continue
            if message["content"].get("execution_state") == "idle":
                self.client.get_shell_msg(timeout=PATIENCE)
                return shown
            shown.append((message["msg_type"], message["content"].get("data")))

    def end(self):
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=False)
        self.manager.context.destroy()


@pytest.fixture(scope="module")
def kernel(tmp_path_factory):
    with tempfile.TemporaryDirectory() as sockets:  # not below the tests' folder: names of sockets are short
        kernel = Kernel(tmp_path_factory.mktemp("kernel"), sockets)
        try:
            kernel.client.wait_for_ready(timeout=PATIENCE)
            kernel.ask(CELL)
            yield kernel
        finally:
            kernel.end()


def test_a_notebook_gets_its_kernel_back(kernel):
    for backend in ("multiprocessing", "loky"):
        marks = f"{backend}-*"
        kernel.client.execute(f"run({backend!r})", stop_on_error=False)  # or the next question may be dropped
        eventually(lambda marks=marks: len(list(kernel.marks.glob(marks))) == 2, "both workers hang")
        pressed = time.time()
        kernel.manager.interrupt_kernel()
        reply = kernel.client.get_shell_msg(timeout=PATIENCE)["content"]
        assert (reply["status"], reply["ename"]) == ("error", "KeyboardInterrupt")
        assert kernel.ask("", "back.pop()") - pressed < 2
        workers = [int(mark.name.rpartition("-")[2]) for mark in kernel.marks.glob(marks)]
        assert not list(filter(alive, workers))
        assert kernel.ask("result = sys.last_value.result", "result.interrupted")
        assert kernel.ask("", "result.missing") == (("hangs", 0), ("hangs", 1))
        assert kernel.ask("", "result['quick']['test_score'].tolist()") == [0.5, 0.5]
        again = f"result = af.run_cv(Quick(), folds, backend={backend!r}, n_jobs=1)"
        assert kernel.ask(again, "result['quick']['test_score'].tolist()") == [0.5, 0.5]


def test_a_notebook_shows_a_bar_and_a_table(kernel):
    shown = kernel.shown_by("af.run_cv(Quick(), folds, backend='serial', progress=True)")
    bars = [data for kind, data in shown if kind in ("display_data", "update_display_data")]
    assert '<progress value="0" max="2">' in bars[0]["text/html"]
    told = r"anyfold: 2/2 tasks, \d+:\d\d in all, best score 0\.5 \(quick\)"
    assert re.fullmatch(told, bars[-1]["text/plain"])
    (table,) = (data for kind, data in shown if kind == "execute_result")
    assert "<td" in table["text/html"]
    assert table["text/plain"].startswith("CVResult: 1 model on 2 folds")
